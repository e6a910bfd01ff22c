"""Golden questions: what is asked, and which documents or passages answer it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

from kb_assets.errors import SettingsError
from kb_assets.fingerprints import settings_fingerprint
from kb_assets.retrieval.qrels import MAX_GRADE, is_text, read_judgements

_KEYS = {"question", "documents", "spans", "accepted", "answer_contains"}


@dataclass(frozen=True, slots=True)
class Span:
    """A passage that answers: one of this document that has this phrase in it."""

    document: str
    contains: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and what answers it: documents or spans.

    Documents are named by their path, or by `source:path`. Where no document has that, its path
    without extension, its file name without extension, or the `id` in its metadata does, too.

    Attributes:
        text: What is asked.
        documents: The documents that answer, with their grades: 1 answers, more answers better.
        spans: The passages that answer, where a document as a whole would be too little said.
        answer_contains: A phrase that stands in a passage that answers; empty if none is known.
    """

    text: str
    documents: Mapping[str, int] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    answer_contains: str = ""

    @property
    def named_documents(self) -> frozenset[str]:
        """Every document the question names, as it names it."""
        return frozenset(self.documents) | {span.document for span in self.spans}

    @property
    def expected(self) -> tuple[str, ...]:
        """What answers, in words: documents, best first, or phrases and where they stand."""
        if self.spans:
            return tuple(f"“{span.contains}” in {span.document}" for span in self.spans)
        return tuple(sorted(self.documents, key=lambda name: (-self.documents[name], name)))


def questions_hash(questions: Sequence[Question]) -> bytes:
    """Return what a set of questions is known by; their order does not matter."""
    ordered = sorted(questions, key=lambda question: question.text)
    return settings_fingerprint({"questions": [asdict(question) for question in ordered]})


def load_questions(path: Path) -> tuple[Question, ...]:
    """Read golden questions: a YAML file, a folder as BEIR has it, or TREC queries and qrels.

    Raises:
        SettingsError: There are none, or they cannot be read; it names the line.
    """
    if not path.exists():
        raise SettingsError(
            f"There are no golden questions at {path}.",
            why="No such file or folder exists.",
            fix="Set quality.questions in kb.toml; docs/evaluation.md shows what to put there.",
        )
    if path.is_dir() or path.suffix.lower() not in (".yaml", ".yml"):
        return tuple(Question(one.text, one.documents) for one in read_judgements(path))
    return _read_yaml(path)


def _read_yaml(path: Path) -> tuple[Question, ...]:
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _unreadable(path, line, str(error.problem or "it is not YAML")) from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise _unreadable(path, 1, str(error)) from error
    if not isinstance(node, yaml.SequenceNode) or not values:
        raise _unreadable(path, 1, "it is not a list of questions")
    questions: dict[str, Question] = {}
    for value, item in zip(values, node.value, strict=True):
        line = item.start_mark.line + 1
        question = _question(path, line, value)
        if value.get("accepted") is False:
            continue
        if question.text in questions:
            raise _unreadable(path, line, f"{question.text!r} is asked twice")
        questions[question.text] = question
    if not questions:
        raise _unreadable(path, 1, "none of these drafts is accepted yet")
    return tuple(questions.values())


def _question(path: Path, line: int, value: object) -> Question:
    if not isinstance(value, dict) or not is_text(value.get("question")):
        raise _unreadable(path, line, "it has no text under `question`")
    if unknown := sorted(str(key) for key in value if key not in _KEYS):
        raise _unreadable(path, line, f"a question has no `{unknown[0]}`")
    if ("documents" in value) == ("spans" in value):
        raise _unreadable(path, line, "a question has either `documents` or `spans`")
    contains = value.get("answer_contains", "")
    if "answer_contains" in value and not is_text(contains):
        raise _unreadable(path, line, "`answer_contains` is not text: put it in quotes")
    return Question(
        text=value["question"].strip(),
        documents=_documents(path, line, value["documents"]) if "documents" in value else {},
        spans=_spans(path, line, value["spans"]) if "spans" in value else (),
        answer_contains=contains,
    )


def _documents(path: Path, line: int, value: object) -> dict[str, int]:
    graded = value if isinstance(value, dict) else None
    if isinstance(value, list) and all(is_text(name) for name in value):
        graded = dict.fromkeys(value, 1)
    if not graded or not all(is_text(name) for name in graded):
        raise _unreadable(path, line, "`documents` is no list of paths, nor of paths with grades")
    for name, grade in graded.items():
        if type(grade) is not int or not 1 <= grade <= MAX_GRADE:
            problem = f"the grade of {name} is not a whole number from 1 to {MAX_GRADE}"
            raise _unreadable(path, line, problem)
    return dict(graded)


def _spans(path: Path, line: int, value: object) -> tuple[Span, ...]:
    if not isinstance(value, list) or not value:
        raise _unreadable(path, line, "`spans` is not a list")
    for span in value:
        if not isinstance(span, dict) or set(span) != {"document", "contains"}:
            raise _unreadable(path, line, "a span has `document` and `contains`, and nothing else")
        if not is_text(span["document"]) or not is_text(span["contains"]):
            raise _unreadable(path, line, "`document` and `contains` of a span are texts")
    return tuple(Span(**span) for span in value)


def _unreadable(path: Path, line: int, why: str) -> SettingsError:
    return SettingsError(
        f"The golden questions in {path} cannot be read.",
        why=f"Line {line}: {why}.",
        fix="docs/evaluation.md shows what a question looks like.",
    )
