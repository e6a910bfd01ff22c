"""A document's story: found, read, split, embedded, live or not, and why."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import live_space_in
from kb_assets.errors import NotFoundError

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Texts:
    """How far a revision's chunks are.

    Attributes:
        chunks: How many it was split into.
        tokens: Tokens in them.
        embedded: Chunks with a vector in the space that answers.
        refused: Chunks without one for good: (ordinal, reason, detail).
    """

    chunks: int
    tokens: int
    embedded: int
    refused: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True, slots=True)
class RevisionStory:
    """A revision of a document.

    Attributes:
        id: The revision.
        made_at: When it was read.
        state: `live`, or how far it is: `parsed` or `chunked`.
        texts: How far its chunks are; None before there is a space.
        title: Its title, if its content has one.
        media_type: What it was.
        text_bytes: Length of its normalised text.
        run_id: The run that read it.
    """

    id: int
    made_at: datetime
    state: str
    texts: Texts | None
    title: str | None = None
    media_type: str | None = None
    text_bytes: int | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a document is in quarantine."""

    stage: str
    reason: str
    detail: str
    attempts: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Story:
    """What happened to a document so far.

    Attributes:
        source: The source's name.
        path: The document's path in it.
        found_at: When it was first listed; None if it was erased.
        missing_since: When it was first missed, while the mass-delete guard keeps it.
        vanished_at: When it was seen to be gone; it leaves at the next publish.
        content_hash: What its content was when last read, hexadecimal; None if it never could be.
        live: The revision that answers.
        pending: The revision that waits.
        refusal: Why it is in quarantine.
        erasure: The number and the moment of its erasure, of which nothing but that is known.
    """

    source: str
    path: str
    found_at: datetime | None
    missing_since: datetime | None
    vanished_at: datetime | None
    content_hash: str | None
    live: RevisionStory | None
    pending: RevisionStory | None
    refusal: Refusal | None
    erasure: tuple[int, datetime] | None = None

    @property
    def verdict(self) -> str:
        """The story in one sentence."""
        if self.erasure:
            return "erased: it is not read any more, even if its source still has it"
        if self.vanished_at:
            return "gone from its source: it leaves search at the next publish"
        if self.missing_since:
            return "missing from its source, kept by the mass-delete guard until that is confirmed"
        if self.refusal and self.live:
            return f"quarantined ({self.refusal.reason}); an older revision answers"
        if self.refusal:
            return f"quarantined ({self.refusal.reason}); it cannot be found"
        if self.pending and self.live:
            return f"changed: the new revision is {self.pending.state}, the old one answers"
        if self.pending:
            return f"new: {self.pending.state}, and not published yet"
        return self._live_verdict()

    def _live_verdict(self) -> str:
        if self.live is None:
            return "known, and not read yet"
        if self.live.texts and self.live.texts.refused:
            return f"live, partial: {len(self.live.texts.refused)} texts have no vector"
        if self.live.texts and not self.live.texts.chunks:
            return "live, and empty: there is nothing in it to find"
        return "live"


def stories_of(database: Database, path: str, source: str | None = None) -> tuple[Story, ...]:
    """Return the stories of the documents with that path, one for each source that has it.

    Raises:
        NotFoundError: No document has it; it says which paths come close.
    """
    with database.transaction() as connection:
        rows = connection.execute(_statements("story"), {"path": path, "source": source}).fetchall()
        erased = connection.execute(_statements("find_erased"), {"path": path, "source": source})
        stories = (*(_story(connection, row) for row in rows), *map(_end, erased.fetchall()))
        if not stories:
            raise _not_found(connection, path)
        return stories


def _not_found(connection: psycopg.Connection[Any], path: str) -> NotFoundError:
    part = path.rsplit("/", 1)[-1]
    close = connection.execute(_statements("similar_paths"), {"part": part}).fetchall()
    named = ", ".join(f"{found} (in {source})" for source, found in close)
    return NotFoundError(
        f"No document is known by the path {path!r}.",
        why="No listing has shown it, or it left its source and was removed.",
        fix=f"Did you mean: {named}?" if close else "Look at include and exclude in kb.toml.",
    )


def _story(connection: psycopg.Connection[Any], row: tuple[Any, ...]) -> Story:
    source, path, found_at, missing_since, vanished_at, _, content_hash = row[:7]
    live_id, live_at, title, media_type, text_bytes, run_id = row[7:13]
    pending_id, pending_at, pending_state = row[13:16]
    live = pending = None
    if live_id is not None:
        texts = _texts(connection, live_id)
        live = RevisionStory(live_id, live_at, "live", texts, title, media_type, text_bytes, run_id)
    if pending_id is not None:
        texts = _texts(connection, pending_id)
        pending = RevisionStory(pending_id, pending_at, pending_state, texts)
    return Story(
        source=source,
        path=path,
        found_at=found_at,
        missing_since=missing_since,
        vanished_at=vanished_at,
        content_hash=content_hash.hex() if content_hash else None,
        live=live,
        pending=pending,
        refusal=Refusal(*row[16:]) if row[16] else None,
    )


def _end(row: tuple[Any, ...]) -> Story:
    source, path, erasure_id, erased_at = row
    return Story(source, path, *(None,) * 7, erasure=(erasure_id, erased_at))


def _texts(connection: psycopg.Connection[Any], revision_id: int) -> Texts | None:
    space = live_space_in(connection)
    if space is None:
        return None
    named = {"revision_id": revision_id, "space_id": space.id}
    counts = connection.execute(
        _statements("story_of_texts", embeddings=space.table), named
    ).fetchone()
    refused = connection.execute(_statements("refused_texts"), named).fetchall()
    assert counts is not None
    return Texts(counts[0], counts[1], counts[2], tuple(refused))
