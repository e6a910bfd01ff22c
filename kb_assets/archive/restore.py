"""A month's way back into the database; doing it twice changes nothing.

Its objects are proven first. Then one transaction opens the month and fills it: with the rows of
the objects, but not those of erased conversations, and with what came late for it meanwhile. The
objects stay, marked as restored: readers find the rows in the database from that moment on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from kb_assets.archive.encoding import copied_rows
from kb_assets.archive.lease import MonthLease, month_lease
from kb_assets.archive.plan import window_of
from kb_assets.archive.relation import MESSAGES, ROW_HASH, Aging, Column
from kb_assets.archive.store import Segment, find_segments
from kb_assets.archive.verify import fetch_verified, read_verified
from kb_assets.archive.workplace import workplace
from kb_assets.database.bulk import copy_encoded
from kb_assets.database.names import SCHEMA
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.errors import ArchiveCorruptError
from kb_assets.object_store import ObjectStore

_statements = Statements(Path(__file__).with_name("reading.sql"))
_OPEN_MONTH = _statements("open_month")
_ADD_MONTH = _statements("add_month")
_MARK_RESTORED = _statements("mark_restored")

_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was brought back.

    Attributes:
        month: The first day of the month.
        segments: How many objects its rows came from.
        rows: How many rows came back.
        present: How many were in the database already, as they are in the objects.
        erased: How many were left out, because their conversations were erased.
        late: How many that had come late joined them.
        held_until: Until when the month is left alone, however old it is.
    """

    month: date
    segments: int
    rows: int
    present: int
    erased: int
    late: int
    held_until: datetime


def restore_month(
    run: Run,
    store: ObjectStore,
    month: date,
    hold_days: int,
    now: datetime,
    *,
    aging: Aging = MESSAGES,
) -> RestoreReport:
    """Bring a month back into the database, and keep it there for some days.

    Raises:
        NotFoundError: The month never had a message.
        ArchiveBusyError: Another run is at work in it.
        ArchiveCorruptError: An object is damaged, or the database has other rows of the same
            keys; nothing was changed.
        LeaseLostError: Another run took the month over; nothing was changed.
        TransientError: The database, the store or the disk failed; nothing was changed.
    """
    held_until = now + timedelta(days=hold_days)
    with month_lease(run.archive, aging, month, run_id=run.run_id) as lease:
        with run.archive.transaction() as connection:
            segments = find_segments(connection, [month], aging=aging)
        with workplace(run.settings.home_folder, f"{aging.name}-{month:%Y-%m}") as folder:
            files = [fetch_verified(store, one.facts, aging, folder) for one in segments]
            with run.archive.transaction() as connection:
                copied = copy_objects(connection, aging, files)
                return fill_month(connection, lease, aging, segments, copied, held_until)


def fill_month(
    connection: psycopg.Connection,
    lease: MonthLease,
    aging: Aging,
    segments: Sequence[Segment],
    copied: int,
    held_until: datetime,
) -> RestoreReport:
    """Open a month and fill it with what was copied; in a transaction that any error rolls back.

    Args:
        connection: Where `copy_objects` was called.
        lease: Holds the month.
        aging: The table.
        segments: Committed segments of the month: all there are.
        copied: How many rows their objects have.
        held_until: Until when the month is left alone.

    Raises:
        ArchiveCorruptError: The database has other rows of the same keys.
        LeaseLostError: Another run took the month over.
    """
    lease.guard(connection)
    named = {"month_id": lease.month_id, "hold_until": held_until}
    opened = connection.execute(_OPEN_MONTH, named).fetchone()
    assert opened is not None
    connection.execute(_ADD_MONTH, {"relation": aging.name, "month": lease.month})
    connection.execute(_statements("hold_conversations", group=aging.group))
    erased = connection.execute(_statements("leave_out_erased", group=aging.group)).rowcount
    table, columns = (SCHEMA, aging.name), _names(aging)
    insert = _statements("insert_restored", table=table, columns=columns)
    inserted = connection.execute(insert).rowcount
    _require_equal(connection, lease, aging)
    take_late = _statements(
        "take_late", late=(SCHEMA, aging.late), time=aging.time, table=table, columns=columns
    )
    window = window_of(lease.month)
    late = connection.execute(take_late, {"low": window.low, "high": window.high}).rowcount
    ids = [segment.id for segment in segments]
    connection.execute(_MARK_RESTORED, {"ids": ids})
    present = copied - erased - inserted
    return RestoreReport(lease.month, len(ids), inserted, present, erased, late, opened[0])


def copy_objects(connection: psycopg.Connection, aging: Aging, files: Sequence[Path]) -> int:
    """Copy the rows of files to `restored`, a table of the transaction's own; return how many."""
    connection.execute(_statements("make_restored", table=(SCHEMA, aging.name)))
    columns = (*aging.columns, Column(ROW_HASH, "bytea"))
    copied = 0

    def rows() -> Iterator[bytes]:
        nonlocal copied
        for batch in (batch for file in files for batch in read_verified(file, aging)):
            copied += batch.num_rows
            yield copied_rows(batch, columns)

    copy_encoded(connection, "restored", [column.name for column in columns], rows())
    return copied


def _require_equal(connection: psycopg.Connection, lease: MonthLease, aging: Aging) -> None:
    """Make sure that the month has every row of the objects, as it is in them."""
    find_different = _statements(
        "find_different",
        table=(SCHEMA, f"{aging.name}_{lease.month:%Y_%m}"),
        time=aging.time,
        key=aging.key,
        row_hash=aging.row_hash(),
    )
    different = [str(key) for (key,) in connection.execute(find_different, {"limit": _MOST_NAMED})]
    if different:
        raise ArchiveCorruptError(
            f"{lease.month:%Y-%m} has other rows in the database than in the archive.",
            why=f"The same {aging.key}, another content: {', '.join(different)}"
            f"{' and more' if len(different) == _MOST_NAMED else ''}.",
            fix="Find out who wrote them: rows of that key were archived before. Nothing was "
            "changed; delete those that are wrong, and restore again.",
        )


def _names(aging: Aging) -> Composed:
    return SQL(", ").join(map(Identifier, aging.names))
