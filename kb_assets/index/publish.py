"""Publishing: complete new revisions go live and old ones go, in one transaction.

Readers see each document whole, all old or all new, because what they see hangs on one
column, `document.live_revision_id`, and it changes together with everything behind it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
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

_WORTH_WORKERS_BYTES = 4_000_000
"""With less text, other processes gain nothing."""

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What came of publishing one shard.

    Attributes:
        published: Documents that went live for the first time.
        replaced: Documents whose new revision took the place of an older one.
        removed: Documents that left, because their source no longer has them.
        waiting: Documents that wait on, because texts of theirs have no vectors yet.
        lexical_seconds: How much of the time words took: analysing and storing them.
        seconds: How long it took.
    """

    published: int
    replaced: int
    removed: int
    waiting: int
    lexical_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A document with something to publish; without a revision, its end."""

    document_id: int
    revision_id: int | None
    text_bytes: int


@dataclass(slots=True)
class _Tally:
    """What was done so far."""

    published: int = 0
    replaced: int = 0
    removed: int = 0
    lexical_seconds: float = 0.0

    @contextmanager
    def words(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.lexical_seconds += time.monotonic() - started


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
    source = run.settings.source(shard.source)
    language = source.language or run.settings.search.language
    tally, candidates = _Tally(), 0
    if _may_have_work(run.database, shard, language):
        with run.lease(shard) as lease:
            is_current, publishable = _publishable(run.database, lease, language)
            if not is_current:
                with tally.words():
                    _make_lexical_current(run, lease, language)
            candidates = len(publishable)
            if publishable and run.settings.quality.block_publish:
                require_quality(run.database)
            _publish_all(run, lease, publishable, language, tally)
    return PublishReport(
        tally.published,
        tally.replaced,
        tally.removed,
        candidates - tally.published - tally.replaced - tally.removed,
        tally.lexical_seconds,
        time.monotonic() - started,
    )


def _may_have_work(database: Database, shard: Shard, language: str) -> bool:
    named = {"source": shard.source, "slot_low": shard.slot_low, "slot_high": shard.slot_high}
    with database.transaction() as connection:
        row = connection.execute(_statements("look_for_work"), named).fetchone()
        return row != (lexical.analyser_name(connection, language), False)


def _make_lexical_current(run: Run, lease: Lease, language: str) -> None:
    """Analyse a source anew: its language, the analyser or the server's dictionaries changed."""
    with run.database.transaction() as connection:
        lock_publishing(connection)
        lease.guard(connection)
        if not lexical.is_current(connection, lease.source_id, language):
            run.say(f"{lease.shard.source}: making the lexical index")
            lexical.rebuild_source(connection, lease.source_id, language)
            connection.execute(_statements("note_change"))


def _publishable(database: Database, lease: Lease, language: str) -> tuple[bool, list[_Candidate]]:
    """Return whether the source's words are analysed as they should be, and what can go live."""
    with database.transaction() as connection:
        is_current = lexical.is_current(connection, lease.source_id, language)
        rows = connection.execute(
            _statements("find_publishable"),
            {
                "source_id": lease.source_id,
                "slot_low": lease.shard.slot_low,
                "slot_high": lease.shard.slot_high,
            },
        ).fetchall()
    return is_current, [_Candidate(*row) for row in rows]


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


def _publish_all(
    run: Run, lease: Lease, publishable: Sequence[_Candidate], language: str, tally: _Tally
) -> None:
    groups = list(_groups(publishable))
    pending = ([one.revision_id for one in group if one.revision_id] for group in groups)
    few = sum(candidate.text_bytes for candidate in publishable) < _WORTH_WORKERS_BYTES
    # What takes long is done before others have to wait.
    with closing(lexical.analyse(run, language, pending, few=few)) as coming:
        for group in groups:
            with tally.words():
                analysed = next(coming)
            _publish(run.database, lease, group, analysed, tally)


def _publish(
    database: Database,
    lease: Lease,
    candidates: Sequence[_Candidate],
    analysed: lexical.Analysed,
    tally: _Tally,
) -> None:
    document_ids = [candidate.document_id for candidate in candidates]
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
            with tally.words():
                lexical.remove_revisions(connection, old + gone)
            _delete_revisions(connection, old + gone)
        if vanished:
            connection.execute(
                _statements("delete_documents"), {"document_ids": [row[0] for row in vanished]}
            )
        if flipped:
            live = [new_id for _, _, new_id in flipped]
            with tally.words():
                lexical.add_revisions(connection, lease.source_id, analysed, live)
        if flipped or vanished:
            connection.execute(_statements("note_change"))
    tally.published += len(flipped) - len(old)
    tally.replaced += len(old)
    tally.removed += len(vanished)


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
