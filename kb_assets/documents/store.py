"""Documents and revisions in PostgreSQL: every change of a batch in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb

from kb_assets.database.bulk import copy_rows
from kb_assets.database.connect import Database
from kb_assets.database.lease import Lease
from kb_assets.database.names import SCHEMA
from kb_assets.database.statements import Statements
from kb_assets.documents.batch import Batch, Parsed
from kb_assets.documents.normalise import normalise
from kb_assets.documents.recipe import Recipe
from kb_assets.documents.source import Entry
from kb_assets.errors import DocumentError
from kb_assets.fingerprints import Shard, slot
from kb_assets.settings import SourceSettings

_statements = Statements.beside(__file__)

_DOCUMENT = {
    "id": "int8",
    "source_id": "int4",
    "path": "text",
    "slot": "int2",
    "pending_revision_id": "int8",
}
_REVISION = {
    "id": "int8",
    "document_id": "int8",
    "content_hash": "bytea",
    "recipe_id": "int4",
    "title": "text",
    "text": "text",
    "metadata": "jsonb",
    "tags": "text[]",
    "media_type": "text",
    "run_id": "text",
}


def ensure_source(database: Database, source: SourceSettings) -> None:
    """Register a source, or its changed settings."""
    left_out = {"name", "kind", "uri", *source.BY_ITSELF}
    settings = source.model_dump(mode="json", exclude=left_out)
    with database.transaction() as connection:
        connection.execute(
            _statements("ensure_source"),
            {
                "name": source.name,
                "kind": source.kind,
                "uri": source.uri,
                "settings": Jsonb(settings),
            },
        )


def find_source(database: Database, name: str) -> int | None:
    """Return the id of a source, or None if no run has registered it yet."""
    with database.transaction() as connection:
        row = connection.execute(_statements("source_id"), {"name": name}).fetchone()
    return None if row is None else int(row[0])


def find_recipe(database: Database, recipe: Recipe) -> int | None:
    """Return the id of a recipe, or None if no run has used it yet."""
    with database.transaction() as connection:
        row = connection.execute(
            _statements("recipe_id"), {"fingerprint": recipe.fingerprint}
        ).fetchone()
    return None if row is None else int(row[0])


def ensure_recipe(database: Database, recipe: Recipe) -> int:
    """Return the id of a recipe, stored now if it is new."""
    known = find_recipe(database, recipe)
    if known is not None:
        return known
    named = {"fingerprint": recipe.fingerprint, "settings": Jsonb(dict(recipe.settings))}
    with database.transaction() as connection:
        connection.execute(_statements("ensure_recipe"), named)
        row = connection.execute(
            _statements("recipe_id"), {"fingerprint": recipe.fingerprint}
        ).fetchone()
    assert row is not None
    return int(row[0])


@dataclass(frozen=True, slots=True)
class ShardState:
    """What was known of a shard at a moment.

    Attributes:
        leases: How many leases there have been of the shard, and of shards of another layout
            that share slots with it.
        listing: The fingerprint of its listing, if everything in that had been read.
        erased: Paths of the source that are not read any more, whatever it lists.
    """

    leases: int
    listing: bytes | None
    erased: frozenset[str]

    def leave_out_erased(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        """Return a listing without what was erased."""
        if not self.erased:
            return entries
        return (entry for entry in entries if entry.path not in self.erased)


def find_state(database: Database, shard: Shard) -> ShardState:
    """Return what is known of a shard now."""
    named = {
        "source": shard.source,
        "slot_low": shard.slot_low,
        "slot_high": shard.slot_high,
    }
    with database.transaction() as connection:
        row = connection.execute(_statements("find_state"), named).fetchone()
    assert row is not None
    leases, listing, erased = row
    return ShardState(leases, listing, frozenset(erased))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document to quarantine.

    Attributes:
        stage: Where it could not go on.
        document_id: The document.
        content_hash: What its content is; empty if it could not be read.
        error: Why.
    """

    stage: Literal["read", "parse", "split"]
    document_id: int
    content_hash: bytes
    error: DocumentError


def quarantine(
    connection: psycopg.Connection[Any], refusals: Sequence[Refusal], conditions: bytes
) -> None:
    """Write down why documents cannot be used; once the conditions change they are tried again."""
    if not refusals:
        return
    connection.execute(
        _statements("save_quarantine"),
        {
            "conditions": conditions,
            "stages": [one.stage for one in refusals],
            "document_ids": [one.document_id for one in refusals],
            "content_hashes": [one.content_hash for one in refusals],
            "reasons": [one.error.reason for one in refusals],
            "details": [normalise(str(one.error)) for one in refusals],
        },
    )


class DocumentStore:
    """Writes batches of one shard's documents, under its lease."""

    def __init__(self, database: Database, lease: Lease, conditions: bytes) -> None:
        self._database = database
        self._lease = lease
        self._conditions = conditions

    def save(self, batch: Batch) -> None:
        """Write a batch: all of it, or nothing.

        Raises:
            LeaseLostError: Another run took the shard over.
        """
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            revisions = dict(
                zip(
                    (one.read.candidate.entry.path for one in batch.parsed),
                    _reserve(connection, "reserve_revision_ids", len(batch.parsed)),
                    strict=True,
                )
            )
            self._move_documents(connection, batch)
            ids = self._add_documents(connection, batch, revisions)
            self._save_versions(connection, batch, ids)
            self._drop_pending(connection, batch)
            self._add_revisions(connection, batch.parsed, ids, revisions)
            refusals = [
                Refusal(
                    "parse" if one.read else "read",
                    ids[one.candidate.entry.path],
                    one.read.state.content_hash if one.read else b"",
                    one.error,
                )
                for one in batch.refused
            ]
            quarantine(connection, refusals, self._conditions)

    def forget_listing(self) -> None:
        """Forget what the shard's listing was, before documents change.

        Raises:
            LeaseLostError: Another run took the shard over.
        """
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            connection.execute(_statements("forget_listing"), {"shard_id": self._lease.shard_id})

    def record_listing(self, found: int, fingerprint: bytes | None) -> None:
        """Note how many documents the shard's listing showed.

        Args:
            found: How many.
            fingerprint: What the listing was, if an equal one would leave nothing to be done.

        Raises:
            LeaseLostError: Another run took the shard over.
        """
        shard = {"shard_id": self._lease.shard_id}
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            connection.execute(
                _statements("record_listing"),
                shard | {"found": found, "fingerprint": fingerprint},
            )
            connection.execute(_statements("forget_other_listings"), shard)

    def mark_absent(self, *, vanished: Sequence[int], withheld: Sequence[int]) -> None:
        """Mark documents as vanished, or as missing when the guard withholds that."""
        if not vanished and not withheld:
            return
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            connection.execute(_statements("mark_vanished"), {"ids": list(vanished)})
            connection.execute(_statements("mark_missing"), {"ids": list(withheld)})

    def _move_documents(self, connection: psycopg.Connection[Any], batch: Batch) -> None:
        """Give documents their new paths; readers find them there at once."""
        if not batch.moved:
            return
        paths = [read.candidate.entry.path for read, _ in batch.moved]
        connection.execute(
            _statements("move_documents"),
            {
                "document_ids": [id_ for _, id_ in batch.moved],
                "paths": paths,
                "slots": [slot(path) for path in paths],
            },
        )
        connection.execute(_statements("note_change"))

    def _add_documents(
        self, connection: psycopg.Connection[Any], batch: Batch, revisions: dict[str, int]
    ) -> dict[str, int]:
        """Return the id of each document by its path; new ones get theirs now."""
        candidates = batch.candidates
        ids = {c.entry.path: c.document_id for c in candidates if c.document_id is not None}
        ids |= {read.candidate.entry.path: id_ for read, id_ in batch.moved}
        new = [candidate for candidate in candidates if candidate.entry.path not in ids]
        if new:
            reserved = _reserve(connection, "reserve_document_ids", len(new))
            paths = [candidate.entry.path for candidate in new]
            rows = (
                (id_, self._lease.source_id, path, slot(path), revisions.get(path))
                for id_, path in zip(reserved, paths, strict=True)
            )
            _copy(connection, "document", _DOCUMENT, rows)
            ids |= dict(zip(paths, reserved, strict=True))
        return ids

    def _save_versions(
        self, connection: psycopg.Connection[Any], batch: Batch, ids: dict[str, int]
    ) -> None:
        if touched := batch.touched:
            connection.execute(
                _statements("touch_versions"),
                {
                    "document_ids": [ids[one.candidate.entry.path] for one in touched],
                    "tokens": [one.token for one in touched],
                },
            )
        if read := batch.read[len(batch.touched) :]:
            connection.execute(
                _statements("save_versions"),
                {
                    "document_ids": [ids[one.candidate.entry.path] for one in read],
                    "tokens": [one.token for one in read],
                    "content_hashes": [one.state.content_hash for one in read],
                    "recipe_ids": [one.state.recipe_id for one in read],
                },
            )
        unread = [ids[one.candidate.entry.path] for one in batch.refused if one.read is None]
        if unread:
            connection.execute(_statements("forget_versions"), {"document_ids": unread})

    def _drop_pending(self, connection: psycopg.Connection[Any], batch: Batch) -> None:
        """Drop what waited of known documents that are no longer what it was made from."""
        changed = [one.read.candidate for one in batch.parsed]
        changed += [one.candidate for one in batch.reverted]
        mended = [c.document_id for c in changed if c.document_id is not None]
        refused = [one.candidate.document_id for one in batch.refused]
        documents = {"document_ids": [*mended, *(id_ for id_ in refused if id_ is not None)]}
        if documents["document_ids"]:
            connection.execute(_statements("clear_pending"), documents)
            connection.execute(_statements("note_unused_texts"), documents)
            connection.execute(_statements("delete_superseded"), documents)
            connection.execute(_statements("release_from_quarantine"), {"document_ids": mended})

    def _add_revisions(
        self,
        connection: psycopg.Connection[Any],
        parsed: list[Parsed],
        ids: dict[str, int],
        revisions: dict[str, int],
    ) -> None:
        """Add revisions, and let them wait; those of new documents do so already."""
        if not parsed:
            return
        rows = (
            (
                revisions[one.read.candidate.entry.path],
                ids[one.read.candidate.entry.path],
                one.read.state.content_hash,
                one.read.state.recipe_id,
                one.document.title,
                one.document.text,
                Jsonb(one.document.metadata),
                list(one.document.tags),
                one.document.media_type,
                self._lease.run_id,
            )
            for one in parsed
        )
        _copy(connection, "document_revision", _REVISION, rows)
        known = [one.read.candidate for one in parsed if one.read.candidate.document_id is not None]
        if known:
            connection.execute(
                _statements("set_pending"),
                {
                    "document_ids": [candidate.document_id for candidate in known],
                    "revision_ids": [revisions[candidate.entry.path] for candidate in known],
                },
            )


def _copy(
    connection: psycopg.Connection[Any],
    table: str,
    columns: dict[str, str],
    rows: Iterable[tuple[Any, ...]],
) -> None:
    copy_rows(connection, (SCHEMA, table), list(columns), list(columns.values()), rows)


def _reserve(connection: psycopg.Connection[Any], name: str, count: int) -> list[int]:
    if not count:
        return []
    return [id_ for (id_,) in connection.execute(_statements(name), {"count": count})]
