"""Judged questions as the research world keeps them: BEIR's folders, TREC's queries and qrels."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from kb_assets.errors import SettingsError

MAX_GRADE = 1000

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")

_QUERIES = ("queries.jsonl", "queries.tsv", "queries.txt", "queries")
_QRELS = ("*.qrels", "qrels.trec", "qrels*.txt", "qrels*.tsv")


@dataclass(slots=True)
class Judged:
    """A question, and the documents that answer it, by identifier, with their grades."""

    text: str
    documents: dict[str, int] = field(default_factory=dict)


def is_text(value: object) -> TypeGuard[str]:
    """Say whether a value is a text that can be asked for and stored."""
    return isinstance(value, str) and bool(value.strip()) and not _NOT_STORABLE.search(value)


def read_judgements(path: Path) -> list[Judged]:
    """Read the judged questions of a folder, or of a file of judgements beside its queries.

    Questions without a document of grade 1 or more are left out: nothing could answer them.
    One that is asked twice is one question.

    Raises:
        SettingsError: A file is missing or has a line that cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    queries = _queries_file(folder)
    qrels = _qrels_file(folder) if path.is_dir() or path == queries else path
    texts = dict(_read_json_lines(queries) if queries.suffix == ".jsonl" else _read_tabs(queries))
    judged: dict[str, Judged] = {}
    for line, query, document, grade in _read_qrels(qrels):
        if query not in texts:
            raise _unreadable(qrels, line, f"{queries.name} has no query {query!r}")
        if grade > 0:
            one = judged.setdefault(texts[query], Judged(texts[query]))
            one.documents[document] = max(grade, one.documents.get(document, 0))
    if not judged:
        raise _unreadable(qrels, 1, "no query has a document that answers it")
    return list(judged.values())


def _queries_file(folder: Path) -> Path:
    for name in _QUERIES:
        if (folder / name).is_file():
            return folder / name
    raise SettingsError(
        f"There are no queries in {folder}.",
        why=f"None of {', '.join(_QUERIES)} is there.",
        fix="Name a YAML file of questions, or a folder with queries and qrels.",
    )


def _qrels_file(folder: Path) -> Path:
    if (folder / "qrels" / "test.tsv").is_file():
        return folder / "qrels" / "test.tsv"
    found = sorted((folder / "qrels").glob("*.tsv"))
    found = found or sorted({file for pattern in _QRELS for file in folder.glob(pattern)})
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise SettingsError(
            f"It is not clear which judgements in {folder} are meant.",
            why=f"Of qrels/*.tsv, {', '.join(_QRELS)} there should be one; there is: {names}.",
            fix="Name the file itself, beside its queries.",
        )
    return found[0]


def _read_json_lines(file: Path) -> Iterator[tuple[str, str]]:
    for number, line in _lines(file):
        try:
            query = json.loads(line)
            yield str(query["_id"]), _asked(file, number, query["text"])
        except (ValueError, TypeError, KeyError) as error:
            raise _unreadable(file, number, "it is no object with _id and text") from error


def _read_tabs(file: Path) -> Iterator[tuple[str, str]]:
    for number, line in _lines(file):
        query, tab, text = line.partition("\t")
        if not tab:
            raise _unreadable(file, number, "there is no tab between an id and a text")
        yield query.strip(), _asked(file, number, text)


def _read_qrels(file: Path) -> Iterator[tuple[int, str, str, int]]:
    """Return line, query, document and grade; of three columns as BEIR's, of four as TREC's."""
    for number, line in _lines(file):
        parts = line.split("\t") if "\t" in line else line.split()
        parts = [part.strip() for part in parts]
        if number == 1 and parts[-1].lower() == "score":
            continue
        if len(parts) not in (3, 4):
            raise _unreadable(file, number, f"it has {len(parts)} columns, and not 3 or 4")
        try:
            grade = int(parts[-1])
        except ValueError as error:
            raise _unreadable(file, number, f"{parts[-1]!r} is not a whole number") from error
        if grade > MAX_GRADE:
            raise _unreadable(file, number, f"the grade {grade} is above {MAX_GRADE}")
        yield number, parts[0], parts[-2], grade


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise _unreadable(file, 1, str(error)) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def _asked(file: Path, line: int, text: object) -> str:
    if not is_text(text):
        raise _unreadable(file, line, "the query has no text, or not all of it is text")
    return " ".join(text.split())


def _unreadable(file: Path, line: int, why: str) -> SettingsError:
    return SettingsError(
        f"The golden questions in {file} cannot be read.",
        why=f"Line {line}: {why}.",
        fix="docs/evaluation.md shows the formats.",
    )
