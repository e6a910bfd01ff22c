"""What can be asserted of the archive: whole objects, no row twice, nothing left behind."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pyarrow.parquet as parquet

from kb_assets.archive.audit import AUDITED, AuditReport, verify_segments
from kb_assets.archive.plan import ERASURE_GRACE, GRACE, is_due, window_of
from kb_assets.archive.relation import MESSAGES, Aging
from kb_assets.archive.store import Segment, find_months, find_segments
from kb_assets.archive.verify import fetch_verified
from kb_assets.database.connect import Database
from kb_assets.database.names import SCHEMA
from kb_assets.database.statements import Statements
from kb_assets.object_store import ObjectStore

NEWEST = 3
"""How many of the newest objects each look fetches."""

TURNS = 30
"""In how many days each of the older objects is fetched once."""

_BATCH_ROWS = 16_384

OpenStore = Callable[[], ObjectStore]

_statements = Statements(Path(__file__).with_name("checks.sql"))
_FIND_LATE_WAITING = _statements("find_late_waiting", late=(SCHEMA, MESSAGES.late))
_COUNT_OPEN_ERASURES = _statements("count_open_erasures")
_COUNT_OBJECTS = _statements("count_objects")


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Rows that are both hot and cold, where there could be any.

    Attributes:
        compared: How many cold rows were looked for, by month.
        found: How many of them are hot as well, by month; no month without one.
    """

    compared: dict[date, int]
    found: dict[date, int]


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What should have left the database and did not; months that are held are left out.

    Attributes:
        months: Months with a partition that have been due for longer than `GRACE`.
        late: Late rows, by month, of which nothing was archived for as long.
        erasures: Erasures that were begun longer ago than `ERASURE_GRACE`, and did not finish.
    """

    months: tuple[date, ...]
    late: dict[date, int]
    erasures: int


def count_objects(database: Database) -> int:
    """Return how many objects the archive consists of."""
    with database.transaction() as connection:
        row = connection.execute(_COUNT_OBJECTS, {"relation": MESSAGES.name}).fetchone()
    return int(row[0]) if row else 0


def examine(database: Database, store: OpenStore, today: date) -> tuple[int, AuditReport]:
    """Fetch the newest objects, and the day's share of the older ones, and verify them anew.

    Args:
        database: Where the manifests are.
        store: Opens the archive's destination; not asked while nothing is archived.
        today: Whose turn it is.

    Returns:
        How many objects there are, and what was found of those that were fetched.

    Raises:
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    with database.transaction() as connection:
        segments = find_segments(connection, states=AUDITED)
    chosen = _turn_of(segments, today)
    return len(segments), verify_segments(store(), chosen) if chosen else AuditReport(())


def overlaps(database: Database, store: OpenStore) -> Overlaps:
    """Look for cold rows among hot ones, in months that have both.

    Late rows that repeat cold ones are none: they wait to be recognised as such.

    Args:
        database: Each transaction of it must see one state.
        store: Opens the archive's destination; not asked while there is nothing to compare.

    Raises:
        ArchiveCorruptError: An object is not what its manifest says.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    compared: dict[date, int] = {}
    found: dict[date, int] = {}
    with database.transaction() as connection:
        for month, segments in _hot_and_cold(connection, MESSAGES):
            compared[month] = sum(segment.rows for segment in segments)
            hot = sum(_count_hot(connection, store(), segment) for segment in segments)
            if hot:
                found[month] = hot
    return Overlaps(compared, found)


def leftovers(database: Database, now: datetime, retention_days: int | None) -> Leftovers:
    """Return what has been due for so long that a run should have taken it.

    Args:
        database: Where messages are.
        now: When that is asked.
        retention_days: How long they stay there; for ever, if there is no archive.
    """
    due_at = now - GRACE
    with database.transaction() as connection:
        months = find_months(connection)
        late = connection.execute(_FIND_LATE_WAITING, {"relation": MESSAGES.name}).fetchall()
        before = {"before": now - ERASURE_GRACE}
        (erasures,) = connection.execute(_COUNT_OPEN_ERASURES, before).fetchone() or (0,)
    if retention_days is None:
        return Leftovers((), {}, erasures)
    held = {one.month for one in months if one.hold_until is not None and one.hold_until > now}
    return Leftovers(
        months=tuple(
            one.month
            for one in months
            if one.is_hot and one.month not in held and is_due(one.month, due_at, retention_days)
        ),
        late={
            month: rows
            for month, rows, archived_at in late
            if month not in held
            and is_due(month, now, retention_days)
            and (archived_at is None or archived_at < due_at)
        },
        erasures=erasures,
    )


def _turn_of(segments: Sequence[Segment], today: date) -> list[Segment]:
    by_age = sorted(segments, key=lambda one: one.id, reverse=True)
    turn = today.toordinal() % TURNS
    return [one for place, one in enumerate(by_age) if place < NEWEST or one.id % TURNS == turn]


def _hot_and_cold(
    connection: psycopg.Connection, aging: Aging
) -> Iterator[tuple[date, list[Segment]]]:
    hot = [one.month for one in find_months(connection, aging) if one.is_hot]
    has_rows = _statements("has_rows", table=(SCHEMA, aging.name))
    cold = find_segments(connection, hot, aging=aging)
    for month, segments in groupby(cold, key=lambda one: one.month):
        window = window_of(month)
        named = {"low": window.low, "high": window.high}
        if connection.execute(has_rows, named).fetchone() == (True,):
            yield month, list(segments)


def _count_hot(connection: psycopg.Connection, store: ObjectStore, segment: Segment) -> int:
    """Return how many rows of a segment are hot; a column of its file is not in memory whole."""
    count = _statements("count_known", table=(SCHEMA, MESSAGES.name))
    hot = 0
    with TemporaryDirectory(prefix="kb-archive-") as folder:
        file = fetch_verified(store, segment.facts, MESSAGES, Path(folder))
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_BATCH_ROWS, columns=[MESSAGES.key, MESSAGES.time]):
                ids, moments = (column.to_pylist() for column in batch.columns)
                row = connection.execute(count, {"ids": ids, "moments": moments}).fetchone()
                hot += row[0] if row else 0
    return hot
