"""One function for each thing that is looked at; none reads a large table from end to end."""

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import psycopg

from kb_assets.database.connect import Database, conninfo
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import list_spaces
from kb_assets.index.account import account_for, contents_of
from kb_assets.index.checks import busy_shards
from kb_assets.index.space import describe_spaces
from kb_assets.index.vectors import catalogued, index_name, is_fit
from kb_assets.knowledge_base.health.facts import (
    ArchiveHealth,
    BackupHealth,
    QualityHealth,
    ShardHealth,
    SpaceHealth,
    Spending,
    Versions,
)

if TYPE_CHECKING:
    from kb_assets.backup.place import BackupPlace
    from kb_assets.settings import Settings

_COUNTED_BYTES = 64 * 1024**2
"""Chunks of a smaller table are counted: that takes a tenth of a second."""

_statements = Statements.beside(__file__)


def find_versions(database: Database) -> Versions:
    """Return what runs, and how large the database is."""
    with database.transaction() as connection:
        row = connection.execute(_statements("versions")).fetchone()
    assert row is not None
    schema, postgres, pgvector, database_bytes = row
    return Versions(_own_version(), schema, postgres.split()[0], pgvector, database_bytes)


def _own_version() -> str:
    try:
        return version("kb-assets")
    except PackageNotFoundError:
        return "unknown"


def about_chunks(database: Database) -> tuple[int, bool]:
    """Return about how many chunks there are, and whether they are few enough to be counted."""
    with database.transaction() as connection:
        row = connection.execute(_statements("about_chunks")).fetchone()
    assert row is not None
    table_bytes, chunks = row
    return chunks, table_bytes < _COUNTED_BYTES


def look_at_shards(
    database: Database, settings: "Settings", looks: Mapping[str, datetime], *, is_exact: bool
) -> tuple[ShardHealth, ...]:
    """Return where the documents of every shard are.

    Args:
        database: Where readers look.
        settings: Which shards there are.
        looks: When each was last listed, as far as is known; see `last_looks`.
        is_exact: Whether to count what readers can find.
    """
    busy = busy_shards(database, settings.shards)
    found = []
    for shard in settings.shards:
        account = account_for(database, shard)
        contents = contents_of(database, shard) if is_exact else None
        moments = [one for one in (looks.get(shard.key), account.listed_at) if one]
        looked_at = max(moments) if account.listed_at else None
        found.append(
            ShardHealth(shard.source, shard.key, account, contents, looked_at, shard in busy)
        )
    return tuple(found)


def last_looks(url: str, settings: "Settings") -> dict[str, datetime]:
    """Return when each shard's source was last listed, by Dagster's history.

    A listing that shows what the last one did is written down nowhere else.

    Raises:
        psycopg.Error: Dagster's database cannot be asked.
    """
    named = {"asset": '["raw_documents"]', "shards": [one.key for one in settings.shards]}
    with psycopg.connect(conninfo(url, "kb_status"), autocommit=True) as connection:
        if connection.execute(_statements("has_history")).fetchone() != (True,):
            return {}
        return dict(connection.execute(_statements("last_looks"), named).fetchall())


def look_at_automation(url: str) -> tuple[datetime | None, tuple[str, ...]]:
    """Return when Dagster's daemon last reported, and which schedules and sensors are switched off.

    Raises:
        psycopg.Error: Dagster's database cannot be asked.
    """
    with psycopg.connect(conninfo(url, "kb_status"), autocommit=True) as connection:
        if connection.execute(_statements("has_history")).fetchone() != (True,):
            return None, ()
        row = connection.execute(_statements("automation")).fetchone()
    assert row is not None
    return row[0], tuple(row[1])


def look_at_spaces(database: Database, *, is_exact: bool) -> tuple[SpaceHealth, ...]:
    """Return every embedding space, oldest first.

    Args:
        database: Where readers look.
        is_exact: Whether to count vectors, and texts without one.
    """
    spaces = list_spaces(database)
    with database.transaction() as connection:
        known = catalogued(connection, spaces)
    counted = {one.space.id: one for one in describe_spaces(database)} if is_exact else {}
    found = []
    for space in spaces:
        about, count = known[space.id], counted.get(space.id)
        sizes = [one.bytes for one in about.indexes if one.name == index_name(space)]
        found.append(
            SpaceHealth(
                space,
                vectors=count.vectors if count else about.about_vectors,
                missing=count.missing if count else None,
                indexed=is_fit(space, about.indexes),
                index_bytes=sum(sizes),
            )
        )
    return tuple(found)


def look_at_quality(database: Database) -> QualityHealth | None:
    """Return the last evaluation of the configured questions; None if there was none."""
    # Not at module level: it loads what measures.
    from kb_assets.retrieval.measures import NDCG, RECALL
    from kb_assets.retrieval.verdict import LEADING

    named = {"mode": LEADING, "ndcg": NDCG, "recall": RECALL}
    with database.transaction() as connection:
        row = connection.execute(_statements("last_quality"), named).fetchone()
    if row is None:
        return None
    evaluated_at, verdict, reasons, questions, ndcg, recall = row
    return QualityHealth(evaluated_at, verdict, tuple(reasons), questions, ndcg, recall)


def look_at_backups(place: "BackupPlace") -> BackupHealth:
    """Return how the backups are, without reading them.

    Raises:
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    entries = place.entries()
    whole = [one for one in entries if one.manifest and one.may_come_back]
    newest = whole[0] if whole else None
    manifest = newest.manifest if newest else None
    drills = [one.own_drills[0] for one in entries if one.is_good]
    drill = max(drills, key=lambda one: datetime.fromisoformat(one.finished_at), default=None)
    failed = [one for one in entries[:1] if one.own_drills and not one.is_good]
    return BackupHealth(
        uri=place.store.uri,
        backups=len(whole),
        newest=newest.id if newest else "",
        made_at=datetime.fromisoformat(manifest.snapshot_at) if manifest else None,
        stored_bytes=manifest.stored_bytes if manifest else 0,
        is_signed=newest.is_signed if newest else False,
        drilled_at=datetime.fromisoformat(drill.finished_at) if drill else None,
        drill_seconds=sum(drill.seconds.values()) / 1000 if drill else 0.0,
        failed_drill=failed[0].id if failed else "",
    )


def look_at_archive(
    database: Database, retention_days: int | None, now: datetime
) -> ArchiveHealth | None:
    """Return how far the archive is; None if there is none, and never was.

    Args:
        database: Where readers look.
        retention_days: How long messages stay in the database; None if none ever leaves it.
        now: The moment.
    """
    # Not at module level: who keeps no messages need not wait for it.
    from kb_assets.archive.plan import ERASURE_GRACE, GRACE, due_months
    from kb_assets.archive.relation import MESSAGES
    from kb_assets.archive.store import find_late_months, find_months

    named = {"relation": MESSAGES.name, "asked_before": now - ERASURE_GRACE}
    with database.transaction() as connection:
        row = connection.execute(_statements("archive_contents"), named).fetchone()
        months, late = find_months(connection), find_late_months(connection)
    assert row is not None
    objects, object_bytes, rows, erasures = row
    if retention_days is None and not objects and not erasures:
        return None
    held = {one.month for one in months if one.hold_until is not None and one.hold_until > now}
    hot = ({one.month for one in months if one.is_hot} | set(late)) - held
    due, overdue = (
        0 if retention_days is None else len(due_months(hot, moment, retention_days))
        for moment in (now, now - GRACE)
    )
    return ArchiveHealth(due, overdue, objects, object_bytes, rows, erasures)


def look_at_spending(database: Database, repeated: int) -> Spending:
    """Return what embeddings cost.

    Args:
        database: Where readers look.
        repeated: How many chunks share the vector of another.
    """
    with database.transaction() as connection:
        row = connection.execute(_statements("spending")).fetchone()
    assert row is not None
    texts, tokens, cost, month_cost = row
    saved = repeated * cost / texts if texts else 0.0
    return Spending(texts, tokens, cost, month_cost, saved)
