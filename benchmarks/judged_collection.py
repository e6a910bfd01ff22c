"""Test collections of the research world: documents, questions, and who answers what."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kb_assets.retrieval.qrels import read_judgements

CRANFIELD_DOCUMENTS = 1400
"""The file has more, which no judgement names: strangers that were put in later."""


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    body: str


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents by their names, and questions by theirs with what answers them, in grades."""

    name: str
    documents: dict[str, Document]
    questions: dict[str, str]
    judged: dict[str, dict[str, int]]

    def write(self, folder: Path) -> dict[str, str]:
        """Write each document as a Markdown file; returns what each path stands for."""
        folder.mkdir(parents=True)
        names = {f"{place:07}.md": name for place, name in enumerate(self.documents)}
        for path, name in names.items():
            one = self.documents[name]
            heading = f"# {one.title}\n\n" if one.title else ""
            (folder / path).write_text(f"{heading}{one.body}\n", encoding="utf-8")
        return names


def load(folder: Path) -> Collection:
    """Read a folder of Cranfield, or one as BEIR has it."""
    is_beir = (folder / "corpus.jsonl").is_file()
    return _beir(folder) if is_beir else _cranfield(folder)


def _beir(folder: Path) -> Collection:
    judgements = read_judgements(folder)
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    documents = {
        str(row["_id"]): Document(_one_line(row.get("title") or ""), row["text"]) for row in rows
    }
    return Collection(
        folder.resolve().name,
        documents,
        {str(number): one.text for number, one in enumerate(judgements, start=1)},
        {str(number): one.documents for number, one in enumerate(judgements, start=1)},
    )


def _cranfield(folder: Path) -> Collection:
    documents = {}
    for name, record in _records(folder / "cran.all.1400"):
        fields = dict(re.findall(r"^\.([TABW])\n(.*?)(?=^\.[TABW]\n|\Z)", record, re.M | re.S))
        if int(name) <= CRANFIELD_DOCUMENTS:
            documents[name] = Document(_one_line(fields.get("T", "")), fields.get("W", ""))
    judged: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.trec").read_text(encoding="utf-8").splitlines():
        question, _, document, grade = line.split()
        judged.setdefault(question, {})[document] = int(grade)
    # The judgements count the questions; the numbers these have in their own file are others.
    questions = {
        str(place): _one_line(record.removeprefix(".W\n"))
        for place, (_, record) in enumerate(_records(folder / "cran.qry"), start=1)
    }
    questions = {name: text for name, text in questions.items() if name in judged}
    return Collection(folder.resolve().name, documents, questions, judged)


def _records(file: Path) -> Iterator[tuple[str, str]]:
    """Return the number and the rest of each record of a file of Cranfield."""
    for record in re.split(r"^\.I (?=\d)", file.read_text(encoding="utf-8"), flags=re.M)[1:]:
        number, _, rest = record.partition("\n")
        yield number.strip(), rest


def _one_line(text: str) -> str:
    return " ".join(text.split())
