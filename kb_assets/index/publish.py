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
from kb_assets.index import lexical
from kb_assets.index.quality import require_quality

PUBLISH_LOCK_CLASS = 0x6B62_0002
"""First key of the advisory lock that publishing, collecting and promoting share."""

MAX_DOCUMENTS = 1000
"""The most documents one transaction publishes, so that others wait for moments only."""

MAX_TEXT_BYTES = 16_000_000
"""The most text one transaction publishes, unless a single document has more."""

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
class _Candidate:
    """A document with something to publish; without a revision, its end."""

    document_id: int
    revision_id: int | None
    text_bytes: int


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
    source = run.settings.source(shard.source)
    language = source.language or run.settings.search.language
    with run.lease(shard) as lease:
        _keep_lexical_current(run, lease, language)
        publishable = _publishable(run.database, lease)
        if publishable and run.settings.quality.block_publish:
            require_quality(run.database)
        for group in _groups(publishable):
            batch = _publish(run.database, lease, group, language)
            candidates += len(group)
            published += batch.published
            replaced += batch.replaced
            removed += batch.removed
    waiting = candidates - published - replaced - removed
    return PublishReport(published, replaced, removed, waiting, time.monotonic() - started)


def _keep_lexical_current(run: Run, lease: Lease, language: str) -> None:
    """Analyse a source anew if its language, the analyser or the server's dictionaries changed."""
    with run.database.transaction() as connection:
        if lexical.is_current(connection, lease.source_id, language):
            return
    with run.database.transaction() as connection:
        lock_publishing(connection)
        lease.guard(connection)
        if not lexical.is_current(connection, lease.source_id, language):
            run.say(f"{lease.shard.source}: making the lexical index")
            lexical.rebuild_source(connection, lease.source_id, language)
            connection.execute(_statements("note_change"))


def _publishable(database: Database, lease: Lease) -> list[_Candidate]:
    with database.transaction() as connection:
        rows = connection.execute(
            _statements("find_publishable"),
            {
                "source_id": lease.source_id,
                "slot_low": lease.shard.slot_low,
                "slot_high": lease.shard.slot_high,
            },
        ).fetchall()
    return [_Candidate(*row) for row in rows]


def _groups(candidates: Sequence[_Candidate]) -> Iterator[list[_Candidate]]:
    group: list[_Candidate] = []
    size = 0
    for candidate in candidates:
        if group and (len(group) == MAX_DOCUMENTS or size + candidate.text_bytes > MAX_TEXT_BYTES):
            yield group
            group, size = [], 0
        group.append(candidate)
        size += candidate.text_bytes
    if group:
        yield group


def _publish(
    database: Database, lease: Lease, candidates: Sequence[_Candidate], language: str
) -> _Batch:
    document_ids = [candidate.document_id for candidate in candidates]
    pending = [one.revision_id for one in candidates if one.revision_id is not None]
    with database.transaction() as connection:
        # What takes long is done before others have to wait.
        analysed = lexical.analyse(connection, language, pending)
    with database.transaction() as connection:
        lock_publishing(connection)
        lease.guard(connection)
        flipped = _flip(connection, document_ids)
        vanished = connection.execute(
            _statements("find_vanished"), {"document_ids": document_ids}
        ).fetchall()
        old = [old_id for _, old_id, _ in flipped if old_id is not None]
        gone = [revision_id for _, revision_ids in vanished for revision_id in revision_ids or ()]
        if old or gone:
            lexical.remove_revisions(connection, old + gone)
            _delete_revisions(connection, old + gone)
        if vanished:
            connection.execute(
                _statements("delete_documents"), {"document_ids": [row[0] for row in vanished]}
            )
        if flipped:
            live = [new_id for _, _, new_id in flipped]
            lexical.add_revisions(connection, lease.source_id, analysed, live)
        if flipped or vanished:
            connection.execute(_statements("note_change"))
    return _Batch(published=len(flipped) - len(old), replaced=len(old), removed=len(vanished))


def _flip(
    connection: psycopg.Connection[Any], document_ids: Sequence[int]
) -> list[tuple[int, int | None, int]]:
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
