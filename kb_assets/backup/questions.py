"""Questions whose answers prove that a restored database answers as the one that was backed up.

They are asked without any vector index, which would answer roughly, and each time a little
differently built. Their vectors are kept, so that whoever asks again needs no provider.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import psycopg

from kb_assets.database.migrate import current, head
from kb_assets.database.statements import Statements
from kb_assets.database.vectors import VectorTypes
from kb_assets.embeddings.embedder import Vectors
from kb_assets.embeddings.open import embedder_for
from kb_assets.embeddings.request import embed_query
from kb_assets.embeddings.space import Space, live_space_in, spaces_in
from kb_assets.errors import BackupCorruptError, KbError
from kb_assets.retrieval.evaluate import golden_questions
from kb_assets.retrieval.query import Filters
from kb_assets.retrieval.snapshot import Snapshot
from kb_assets.retrieval.vectors import vector_parameter
from kb_assets.settings import Settings

QUESTIONS_FILE = "questions.json"

_MOST = 20
_ANSWERS = 10
_VECTORS_PER_ANSWER = 20
_DIGITS = 5
_TOLERANCE = 2.5e-5
"""How far scores of one database may differ on two machines."""

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A chunk that answers, by what it is called in every copy of the database.

    Attributes:
        source: Its source.
        path: Its document.
        ordinal: Its place in the document.
        score: Cosine similarity, or BM25; rounded.
    """

    source: str
    path: str
    ordinal: int
    score: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its answers.

    Attributes:
        text: What is asked.
        vector: Its vector in the space.
        nearest: The nearest chunks by vector, best first.
        worded: The best chunks by words, best first.
    """

    text: str
    vector: tuple[float, ...]
    nearest: tuple[Answer, ...] = ()
    worded: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions that were asked of one state of a database.

    Attributes:
        space: The space that answered; empty if none did.
        asked: The questions.
        note: Why they are none, or others than the golden ones.
    """

    space: str = ""
    asked: tuple[Asked, ...] = ()
    note: str = ""


def ask(connection: psycopg.Connection[Any], settings: Settings) -> Questions:
    """Ask the golden questions; where there are none, or no provider, what some chunks say.

    Args:
        connection: In the transaction whose state is asked.
        settings: Where golden questions are, and how they are embedded.
    """
    if current(connection) != head():
        return Questions(note="Nothing was asked: the schema is not the one of this code.")
    VectorTypes.of(connection).register(connection)
    space = live_space_in(connection)
    if space is None:
        return Questions(note="Nothing was asked: nothing was indexed yet.")
    note, chosen = "", tuple[Asked, ...]()
    if settings.quality.questions is not None:
        try:
            chosen = _golden(space, settings)
        except KbError as error:
            note = f"Not the golden questions, but chunks were asked for. {error.what} {error.why}"
    return _answered(connection, space, chosen or _drawn(connection, space), note.strip())


def ask_again(connection: psycopg.Connection[Any], questions: Questions) -> Questions:
    """Return the same questions with the answers of now; see `differences`.

    Args:
        connection: In a transaction on the other database.
        questions: What was asked of the first one.
    """
    if not questions.asked:
        return questions
    VectorTypes.of(connection).register(connection)
    for space in spaces_in(connection):
        if space.name == questions.space:
            return _answered(connection, space, questions.asked, questions.note)
    gone = tuple(replace(one, nearest=(), worded=()) for one in questions.asked)
    return Questions(questions.space, gone, f"There is no space {questions.space}.")


def differences(before: Questions, after: Questions) -> tuple[str, ...]:
    """Return which questions are answered otherwise than before, in words.

    Of answers that are equally good, to the digits that are kept, any order is the same.
    """
    found = []
    for one, again in zip(before.asked, after.asked, strict=True):
        for how, old, new in (
            ("meaning", one.nearest, again.nearest),
            ("words", one.worded, again.worded),
        ):
            if not _same(old, new):
                found.append(f"{one.text[:60]!r} by {how}: {_named(old)} before, {_named(new)} now")
    return tuple(found)


def write_questions(questions: Questions, folder: Path) -> None:
    """Write questions and answers into the folder of a backup."""
    content = json.dumps(asdict(questions), ensure_ascii=True, indent=1)
    (folder / QUESTIONS_FILE).write_text(content, encoding="utf-8")


def read_questions(folder: Path) -> Questions:
    """Return the questions of a backup that was fetched.

    Raises:
        BackupCorruptError: They are not in the form that is written.
    """
    try:
        facts = json.loads((folder / QUESTIONS_FILE).read_text(encoding="utf-8"))
        asked = tuple(
            Asked(
                one["text"], tuple(one["vector"]), _answers(one["nearest"]), _answers(one["worded"])
            )
            for one in facts["asked"]
        )
        return Questions(facts["space"], asked, facts["note"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupCorruptError(
            f"{QUESTIONS_FILE} of a backup cannot be read.", why=str(error)
        ) from error


def _answers(found: Sequence[dict[str, Any]]) -> tuple[Answer, ...]:
    return tuple(Answer(**one) for one in found)


def _golden(space: Space, settings: Settings) -> tuple[Asked, ...]:
    questions, _ = golden_questions(settings)
    step = -(-len(questions) // _MOST)
    embedder = embedder_for(space.model, settings.embedding)
    return tuple(
        Asked(question.text, tuple(embed_query(embedder, question.text).tolist()))
        for question in questions[::step]
    )


def _drawn(connection: psycopg.Connection[Any], space: Space) -> tuple[Asked, ...]:
    statement = _statements("draw_chunks", embeddings=space.table)
    rows = connection.execute(statement, {"limit": _MOST})
    return tuple(Asked(text, tuple(map(float, vector.to_list()))) for text, vector in rows)


def _answered(
    connection: psycopg.Connection[Any], space: Space, asked: Sequence[Asked], note: str
) -> Questions:
    words = Snapshot(connection, Filters(), by_documents=False)
    answered = tuple(
        replace(
            one,
            nearest=_nearest(connection, space, numpy.array(one.vector, numpy.float32)),
            worded=_worded(connection, words, one.text),
        )
        for one in asked
    )
    return Questions(space.name, answered, note)


def _nearest(
    connection: psycopg.Connection[Any], space: Space, vector: Vectors
) -> tuple[Answer, ...]:
    rows = connection.execute(
        _statements("find_nearest", embeddings=space.table),
        {
            "vector": vector_parameter(space, vector),
            "most": _ANSWERS * _VECTORS_PER_ANSWER,
            "limit": _ANSWERS,
        },
    )
    return tuple(Answer(*row) for row in rows)


def _worded(connection: psycopg.Connection[Any], words: Snapshot, text: str) -> tuple[Answer, ...]:
    scored = words.score_words(text)
    if scored is None:
        return ()
    top = scored.top(_ANSWERS)
    chunks = words.chunks_at([(source_id, position) for source_id, position, _ in top])
    scores = [top[place - 1][2] for place, _, _ in chunks]
    named = connection.execute(
        _statements("name_chunks"),
        {
            "revision_ids": [revision_id for _, revision_id, _ in chunks],
            "ordinals": [ordinal for _, _, ordinal in chunks],
        },
    )
    return tuple(
        Answer(source, path, ordinal, round(score, _DIGITS))
        for (source, path, ordinal), score in zip(named, scores, strict=True)
    )


def _same(before: Sequence[Answer], after: Sequence[Answer]) -> bool:
    """Compare scores place by place, and the chunks that are better than the last place."""
    if len(before) != len(after):
        return False
    pairs = zip(before, after, strict=True)
    if any(abs(one.score - other.score) > _TOLERANCE for one, other in pairs):
        return False
    if not before:
        return True
    last = before[-1].score + _TOLERANCE
    known = {(one.source, one.path, one.ordinal) for one in after}
    return all((one.source, one.path, one.ordinal) in known for one in before if one.score > last)


def _named(answers: Sequence[Answer]) -> str:
    if not answers:
        return "nothing"
    best = answers[0]
    return f"{len(answers)}, first {best.source}:{best.path}#{best.ordinal} ({best.score:.5f})"
