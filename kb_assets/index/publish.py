"""Publishing: complete new revisions go live and old ones go, in one transaction.

Readers see each document whole, all old or all new, because what they see hangs on one
column, `document.live_revision_id`, and it changes together with everything behind it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.lease import Lease
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import live_space_in
from kb_assets.fingerprints import Shard
from kb_assets.index.quality import require_quality

PUBLISH_LOCK_CLASS = 0x6B62_0002
"""First key of the advisory lock that publishing, collecting and promoting share."""

MAX_DOCUMENTS = 1000
"""The most documents one transaction publishes, so that others wait for moments only."""

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What came of publishing one shard.

    Attributes:
        published: Documents that went live for the first time.
        replaced: Documents whose new revision took the place of an older one.
        removed: Documents that left, because their source no longer has them.
        waiting: Documents that wait on, because texts of theirs have no vectors yet.
        seconds: How long it took.
    """

    published: int
    replaced: int
    removed: int
    waiting: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Batch:
    published: int
    replaced: int
    removed: int


def lock_publishing(connection: psycopg.Connection[Any]) -> None:
    """Take the knowledge base's publish lock until the transaction ends.

    Whatever is decided under it must be read by a later statement: at READ COMMITTED that
    one sees what the former holder of the lock committed.
    """
    connection.execute(_statements("lock_publishing"), {"lock_class": PUBLISH_LOCK_CLASS})


def publish_documents(run: Run, shard: Shard) -> PublishReport:
    """Publish what is complete in a shard, and take away what vanished.

    Raises:
        ShardBusyError: Another run holds the shard.
        LeaseLostError: Another run took the shard over.
        QualityError: Retrieval fails its golden questions, and that is to stop publishing.
    """
    started = time.monotonic()
    published = replaced = removed = candidates = 0
    with run.lease(shard) as lease:
        publishable = _publishable(run.database, lease)
        if publishable and run.settings.quality.block_publish:
            require_quality(run.database)
        for document_ids in _groups(publishable, MAX_DOCUMENTS):
            batch = _publish(run.database, lease, document_ids)
            candidates += len(document_ids)
            published += batch.published
            replaced += batch.replaced
            removed += batch.removed
    waiting = candidates - published - replaced - removed
    return PublishReport(published, replaced, removed, waiting, time.monotonic() - started)


def _publishable(database: Database, lease: Lease) -> list[int]:
    with database.transaction() as connection:
        rows = connection.execute(
            _statements("find_publishable"),
            {
                "source_id": lease.source_id,
                "slot_low": lease.shard.slot_low,
                "slot_high": lease.shard.slot_high,
            },
        ).fetchall()
    return [document_id for (document_id,) in rows]


def _groups(ids: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _publish(database: Database, lease: Lease, document_ids: Sequence[int]) -> _Batch:
    with database.transaction() as connection:
        lock_publishing(connection)
        lease.guard(connection)
        flipped = _flip(connection, document_ids)
        vanished = connection.execute(
            _statements("find_vanished"), {"document_ids": list(document_ids)}
        ).fetchall()
        old = [old_id for _, old_id in flipped if old_id is not None]
        gone = [revision_id for _, revision_ids in vanished for revision_id in revision_ids or ()]
        if old or gone:
            _delete_revisions(connection, old + gone)
        if vanished:
            connection.execute(
                _statements("delete_documents"), {"document_ids": [row[0] for row in vanished]}
            )
    return _Batch(published=len(flipped) - len(old), replaced=len(old), removed=len(vanished))


def _flip(
    connection: psycopg.Connection[Any], document_ids: Sequence[int]
) -> list[tuple[int, int | None]]:
    space = live_space_in(connection)
    if space is None:
        return []
    return connection.execute(
        _statements("flip", embeddings=space.table),
        {"document_ids": list(document_ids), "space_id": space.id},
    ).fetchall()


def _delete_revisions(connection: psycopg.Connection[Any], revision_ids: list[int]) -> None:
    named = {"revision_ids": revision_ids}
    connection.execute(_statements("note_unused_texts"), named)
    connection.execute(_statements("delete_revisions"), named)
