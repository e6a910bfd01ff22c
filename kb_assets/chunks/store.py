"""Chunks in PostgreSQL: all of a revision's, in one transaction."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from kb_assets.chunks.plan import CHUNK_COLUMNS, ChunkRows, SplitJob
from kb_assets.chunks.splitters import SplitSettings
from kb_assets.database.bulk import copy_encoded
from kb_assets.database.connect import Database
from kb_assets.database.lease import Lease
from kb_assets.database.statements import Statements
from kb_assets.documents.recipe import Recipe
from kb_assets.documents.store import Refusal, quarantine
from kb_assets.errors import DocumentError
from kb_assets.fingerprints import Shard

_statements = Statements.beside(__file__)

MAX_REVISIONS = 1000
"""The most revisions of one transaction."""


@dataclass(frozen=True, slots=True)
class Unsplit:
    """A revision without chunks, and the document it belongs to."""

    document_id: int
    content_hash: bytes
    job: SplitJob


def measure_unsplit(
    database: Database, shard: Shard, recipe: Recipe, *, most: int
) -> tuple[int, int]:
    """Return how many of the shard's revisions have no chunks, up to so many, and their bytes."""
    named = {
        "source": shard.source,
        "slot_low": shard.slot_low,
        "slot_high": shard.slot_high,
        "fingerprint": recipe.fingerprint,
        "most": most,
    }
    with database.transaction() as connection:
        row = connection.execute(_statements("measure_unsplit"), named).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def unsplit_groups(
    connection: psycopg.Connection[Any],
    lease: Lease,
    recipe: Recipe,
    settings: SplitSettings,
    *,
    max_bytes: int,
) -> Iterator[list[Unsplit]]:
    """Yield the shard's revisions that have no chunks, in groups that fit into memory.

    No transaction is open between two groups. A text larger than `max_bytes` makes a group of
    its own.
    """
    for ids in _groups(_sizes(connection, lease, recipe), max_bytes):
        rows = connection.execute(_statements("read_unsplit"), {"ids": ids}).fetchall()
        yield [
            Unsplit(
                document_id,
                content_hash,
                SplitJob(lease.source_id, id_, title, media_type, text, settings),
            )
            for id_, document_id, content_hash, title, media_type, text in rows
        ]


def _sizes(
    connection: psycopg.Connection[Any], lease: Lease, recipe: Recipe
) -> Iterator[tuple[int, int]]:
    named = {
        "source_id": lease.source_id,
        "slot_low": lease.shard.slot_low,
        "slot_high": lease.shard.slot_high,
        "fingerprint": recipe.fingerprint,
        "limit": MAX_REVISIONS,
    }
    after = 0
    while True:
        rows = connection.execute(_statements("find_unsplit"), named | {"after": after}).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield from rows


def _groups(sizes: Iterable[tuple[int, int]], max_bytes: int) -> Iterator[list[int]]:
    group: list[int] = []
    held = 0
    for id_, size in sizes:
        if group and (held + size > max_bytes or len(group) >= MAX_REVISIONS):
            yield group
            group, held = [], 0
        group.append(id_)
        held += size
    if group:
        yield group


class ChunkStore:
    """Writes the chunks of one shard's revisions, under its lease."""

    def __init__(self, database: Database, lease: Lease, conditions: bytes) -> None:
        self._database = database
        self._lease = lease
        self._conditions = conditions

    def save(
        self,
        split: Sequence[tuple[Unsplit, ChunkRows]],
        refused: Sequence[tuple[Unsplit, DocumentError]],
    ) -> None:
        """Write the chunks of whole revisions, and quarantine those that could not be split.

        Raises:
            LeaseLostError: Another run took the shard over.
        """
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            rows = (made.rows for _, made in split)
            copy_encoded(connection, ("kb", "chunk"), CHUNK_COLUMNS, rows)
            connection.execute(
                _statements("mark_chunked"), {"ids": [row.job.revision_id for row, _ in split]}
            )
            if refused:
                self._refuse(connection, refused)

    def _refuse(
        self,
        connection: psycopg.Connection[Any],
        refused: Sequence[tuple[Unsplit, DocumentError]],
    ) -> None:
        revisions = {"revision_ids": [row.job.revision_id for row, _ in refused]}
        connection.execute(_statements("drop_pending"), revisions)
        connection.execute(_statements("delete_revisions"), revisions)
        refusals = [
            Refusal("split", one.document_id, one.content_hash, error) for one, error in refused
        ]
        quarantine(connection, refusals, self._conditions)
