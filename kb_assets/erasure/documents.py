"""A document: out of the index at once, and out of the listings of its source for good."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.documents.store import ensure_source
from kb_assets.embeddings.space import spaces_in
from kb_assets.erasure.ledger import Request, enter
from kb_assets.fingerprints import Shard
from kb_assets.index.lexical import remove_revisions
from kb_assets.index.publish import lock_publishing
from kb_assets.settings import Settings, SourceSettings

_statements = Statements(Path(__file__).with_name("erasing.sql"))


@dataclass(frozen=True, slots=True)
class Found:
    """A document as the index has it.

    Attributes:
        source_id: The source's row.
        document_id: Its own; None if it is not known.
        slot: Where it belongs; None if it is not known.
        is_listed: Whether the last listing showed it.
    """

    source_id: int
    document_id: int | None
    slot: int | None
    is_listed: bool


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the index has of a document; the hashes are of texts that nothing else has."""

    revisions: list[int]
    hashes: list[bytes]
    counts: dict[str, int]


def find_document(connection: psycopg.Connection[Any], source: str, path: str) -> Found | None:
    """Return what is known of a document; None if not even its source is known."""
    named = {"source": source, "path": path}
    row = connection.execute(_statements("find_document"), named).fetchone()
    return None if row is None else Found(row[0], row[1], row[2], row[1] is not None and row[3])


def count_document(connection: psycopg.Connection[Any], found: Found) -> dict[str, int]:
    """Return what the index has of a document, counted."""
    return _contents(connection, found).counts


def hide_document(run: Run, request: Request, source: str, path: str) -> int:
    """Take a document out of the index, keep it out, and return the erasure's number.

    Raises:
        ShardBusyError: A run that is at work in its shard did not finish in time.
        LeaseLostError: Another run took the shard over; nothing was changed.
    """
    _ensure_known(run, source)
    shard = _shard(run.settings, source, path)
    with run.lease(shard) as lease, run.database.transaction() as connection:
        lock_publishing(connection)
        lease.guard(connection)
        found = find_document(connection, source, path)
        assert found is not None
        contents = _contents(connection, found)
        if found.document_id is not None:
            _delete(connection, found, contents)
        id_ = enter(connection, request, run.run_id, contents.counts)
        connection.execute(
            _statements("hide_document"),
            {"source_id": found.source_id, "path": path, "erasure_id": id_},
        )
        connection.execute(_statements("forget_answers"))
        connection.execute(_statements("note_change"))
    return id_


def _ensure_known(run: Run, source: str) -> None:
    """Make sure of the source's row: a path is kept out of a source, even before its first run."""
    with run.database.transaction() as connection:
        if find_document(connection, source, "") is not None:
            return
    known = [one for one in run.settings.sources if one.name == source]
    ensure_source(run.database, known[0] if known else SourceSettings(name=source, uri=""))


def _shard(settings: Settings, source: str, path: str) -> Shard:
    shards = (shard for shard in settings.shards if shard.source == source and shard.owns(path))
    return next(shards, Shard(source))


def _contents(connection: psycopg.Connection[Any], found: Found) -> _Contents:
    named = {"document_id": found.document_id}
    revisions = [id_ for (id_,) in connection.execute(_statements("find_revisions"), named)]
    ids = {"revision_ids": revisions}
    hashes = [hash_ for (hash_,) in connection.execute(_statements("find_own_texts"), ids)]
    vectors = 0
    for space in spaces_in(connection):
        statement = _statements("count_vectors", embeddings=space.table)
        vectors += _number(connection.execute(statement, {"hashes": hashes}))
    chunks = _number(connection.execute(_statements("count_chunks"), ids))
    counts = {"revisions": len(revisions), "chunks": chunks, "vectors": vectors}
    return _Contents(revisions, hashes, counts)


def _delete(connection: psycopg.Connection[Any], found: Found, contents: _Contents) -> None:
    """Delete all that the index has of a document; its words go as soon as they are merged."""
    remove_revisions(connection, contents.revisions)
    document = {"document_id": found.document_id}
    connection.execute(_statements("delete_revisions"), document)
    connection.execute(_statements("delete_document"), document)
    hashes = {"hashes": contents.hashes}
    for space in spaces_in(connection):
        connection.execute(_statements("delete_vectors", embeddings=space.table), hashes)
    connection.execute(_statements("forget_refusals"), hashes)
    connection.execute(
        _statements("correct_listings"),
        {"source_id": found.source_id, "slot": found.slot, "listed": int(found.is_listed)},
    )


def _number(cursor: psycopg.Cursor[Any]) -> int:
    row = cursor.fetchone()
    return 0 if row is None else int(row[0])
