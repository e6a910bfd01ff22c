"""Drafts of golden questions: a chat model asks, the passage must answer, a person decides."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.errors import SettingsError
from kb_assets.retrieval.chat import Chat
from kb_assets.retrieval.prompt import fence
from kb_assets.retrieval.ranking import squeezed

_statements = Statements.beside(__file__)

_LEAST_TOKENS = 30
"""Shorter passages say too little to be asked about."""

_LONGEST_QUESTION = 300

_INSTRUCTION = """\
You draft test questions for the search engine of a knowledge base.

{rule}

Write one question that somebody would type who does not know the passage, that this passage alone \
answers. Use words of your own, and do not mention the passage or its document. Add the shortest \
phrase that answers it, copied from the passage character by character. Reply with JSON and \
nothing else: {{"question": "…", "answer": "…"}}. If there is nothing worth asking, leave both \
empty."""

_HEADER = """\
# Drafts of golden questions, made by `kb eval suggest` with {model}, seed {seed}.
#
# Read each one. If it is a question people ask and the documents named answer it, set
# `accepted: true` or delete that line; otherwise delete the question. Questions that are not
# accepted are not asked by `kb eval`.

"""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A question, and the phrase that answers it.

    Attributes:
        question: What could be asked.
        document: The document it was made from: `source:path`.
        answer_contains: A phrase of that document that answers.
    """

    question: str
    document: str
    answer_contains: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A passage that no question was kept for.

    Attributes:
        document: The document it is from: `source:path`.
        reason: `no_question`, `answer_not_in_passage` or `asked_already`.
    """

    document: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Passage:
    source: str
    path: str
    heading_path: tuple[str, ...]
    text: str

    @property
    def document(self) -> str:
        return f"{self.source}:{self.path}"


def suggest_questions(
    database: Database, chat: Chat, *, number: int, seed: int, sources: tuple[str, ...]
) -> Iterator[Suggestion | Dropped]:
    """Draw passages, and yield what the model would ask about each, as it arrives.

    The same seed draws the same passages from the same documents: one of each document, from
    all sources in turn.

    Args:
        database: Where readers connect.
        chat: The model that asks.
        number: How many passages are drawn; each costs a request.
        seed: What decides the draw.
        sources: Only documents of these; none named means of all.

    Raises:
        ProviderRefusedError: The model will never answer.
        ProviderUnavailableError: The model cannot be reached, or broke off.
    """
    asked: set[str] = set()
    for passage in _draw(database, number, seed, sources):
        suggestion = _suggest(chat, passage)
        if isinstance(suggestion, Suggestion):
            known = squeezed(suggestion.question).casefold().rstrip("?.! ")
            if known in asked:
                suggestion = Dropped(passage.document, "asked_already")
            asked.add(known)
        yield suggestion


def require_new(file: Path) -> None:
    """Refuse a file that is there, before anything is paid for.

    Raises:
        SettingsError: It is.
    """
    if file.exists() or not file.parent.is_dir():
        raise _not_writable(file, "It exists." if file.exists() else "Its folder does not exist.")


def write_draft(file: Path, suggestions: Iterable[Suggestion], *, model: str, seed: int) -> None:
    """Write suggestions as golden questions that nobody has accepted yet.

    Raises:
        SettingsError: The file is there already, or cannot be written.
    """
    import yaml

    entries = [
        {
            "question": suggestion.question,
            "documents": [suggestion.document],
            "answer_contains": suggestion.answer_contains,
            "accepted": False,
        }
        for suggestion in suggestions
    ]
    blocks = (
        yaml.safe_dump([entry], allow_unicode=True, sort_keys=False, width=1000)
        for entry in entries
    )
    text = _HEADER.format(model=json.dumps(model), seed=seed) + "\n".join(blocks)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise _not_writable(file, str(error)) from error


def _not_writable(file: Path, why: str) -> SettingsError:
    return SettingsError(
        f"The draft cannot be written to {file}.",
        why=why,
        fix="Name a file that does not exist yet, in a folder that does.",
    )


def _draw(
    database: Database, number: int, seed: int, sources: tuple[str, ...]
) -> tuple[_Passage, ...]:
    named = {
        "seed": str(seed),
        "number": number,
        "sources": list(sources),
        "least_tokens": _LEAST_TOKENS,
    }
    with database.transaction() as connection:
        rows = connection.execute(_statements("draw_passages"), named).fetchall()
    return tuple(
        _Passage(source, path, tuple(headings), text) for source, path, headings, text in rows
    )


def _suggest(chat: Chat, passage: _Passage) -> Suggestion | Dropped:
    where = " > ".join((passage.document, *passage.heading_path))
    fenced = fence([(where, passage.text)])
    said = "".join(chat.ask(_INSTRUCTION.format(rule=fenced.rule), fenced.text))
    question, phrase = _parsed(said)
    if not question or not phrase or len(question) > _LONGEST_QUESTION:
        return Dropped(passage.document, "no_question")
    if phrase not in squeezed(passage.text):
        return Dropped(passage.document, "answer_not_in_passage")
    return Suggestion(question, passage.document, phrase)


def _parsed(said: str) -> tuple[str, str]:
    """Return question and answer from a reply that should be JSON, but may have words around it."""
    try:
        found = json.loads(said[said.find("{") : said.rfind("}") + 1])
    except (ValueError, RecursionError):
        return "", ""
    question, phrase = (found.get(name) for name in ("question", "answer"))
    if not isinstance(question, str) or not isinstance(phrase, str):
        return "", ""
    return squeezed(question).strip(), squeezed(phrase).strip()
