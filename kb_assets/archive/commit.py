"""The commit: segments become cold and their rows leave the database, in one transaction.

A month of its own leaves as a whole, with its partition: nobody could write to it since before it
was copied. Rows of a table that goes on being written to are deleted one by one, and only those
that are still as they were copied. If their number is not that of the copy, nothing happens.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from psycopg.errors import LockNotAvailable

from kb_assets.archive import store
from kb_assets.archive.encoding import copied_rows
from kb_assets.archive.lease import MonthLease
from kb_assets.archive.relation import ROW_HASH, Aging, Column
from kb_assets.archive.verify import read_keys
from kb_assets.database.bulk import copy_encoded
from kb_assets.database.connect import Database
from kb_assets.database.names import SCHEMA
from kb_assets.database.statements import Statements
from kb_assets.errors import ArchiveStaleError, DatabaseUnavailableError

_ATTEMPTS = 10
_PAUSE_SECONDS = 3.0
"""Between attempts to drop a partition; others go on with the table meanwhile."""

Manifests = Mapping[int, Mapping[str, Any]]

_statements = Statements.beside(__file__)
_RETIRE_RESTORED = _statements("retire_restored")
_LIMIT_LOCK_WAIT = _statements("limit_lock_wait")
_DROP_MONTH = _statements("drop_month")
_MAKE_KEYS = _statements("make_keys")


def commit_month(
    database: Database, lease: MonthLease, aging: Aging, manifests: Manifests, rows: int
) -> None:
    """Make all of a frozen month's segments cold, and drop its partition.

    Args:
        database: Where the table is.
        lease: Holds the month.
        aging: The table.
        manifests: By segment, of all that was copied and verified.
        rows: How many rows they hold.

    Raises:
        ArchiveStaleError: The partition holds another number of rows; nothing was changed.
        LeaseLostError: Another run took the month over; nothing was changed.
        DatabaseUnavailableError: The database was lost, and nothing was changed.
    """
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            _commit_month(database, lease, aging, manifests, rows)
            return
        except DatabaseUnavailableError as error:
            # Readers of the whole table keep its partitions from being dropped.
            if not isinstance(error.__cause__, LockNotAvailable) or not attempts_left:
                raise
        time.sleep(_PAUSE_SECONDS)


def _commit_month(
    database: Database, lease: MonthLease, aging: Aging, manifests: Manifests, rows: int
) -> None:
    partition = f"{aging.name}_{lease.month:%Y_%m}"
    count = _statements("measure_month", table=(SCHEMA, partition))
    with _known_outcome(database, manifests), database.transaction() as connection:
        lease.guard(connection)
        connection.execute(_RETIRE_RESTORED, {"month_id": lease.month_id})
        _commit(store.commit_segments(connection, manifests), len(manifests))
        found = connection.execute(count, {"table": f"{SCHEMA}.{partition}"}).fetchone()
        _same(found[0] if found else 0, rows)
        connection.execute(_LIMIT_LOCK_WAIT)
        connection.execute(_DROP_MONTH, {"relation": aging.name, "month": lease.month})


def commit_late(
    database: Database,
    lease: MonthLease,
    aging: Aging,
    manifests: Manifests,
    file: Path | None,
    repeated: Any,  # noqa: ANN401
) -> int:
    """Make a segment of late rows cold, and delete them, and those that were cold already.

    Args:
        database: Where the table is.
        lease: Holds the month.
        aging: The table.
        manifests: Of the one segment; none if all of the rows were cold already.
        file: Its object, read back and verified.
        repeated: Keys and hashes of what was left out of it: an Arrow table, or nothing.

    Returns:
        How many rows were deleted.

    Raises:
        ArchiveStaleError: A row changed after it was copied; nothing was changed.
        LeaseLostError: Another run took the month over; nothing was changed.
        DatabaseUnavailableError: The database was lost, and nothing was changed.
    """
    delete = _statements("delete_archived", table=(SCHEMA, aging.late), row_hash=aging.row_hash())
    columns = [Column(aging.key, "text"), Column(aging.time, "timestamptz")]
    columns.append(Column(ROW_HASH, "bytea"))
    rows = 0

    def keys() -> Iterator[bytes]:
        nonlocal rows
        left_out = [] if repeated is None else repeated.to_batches()
        archived = [] if file is None else read_keys(file, aging)
        for batch in chain(left_out, archived):
            rows += batch.num_rows
            yield copied_rows(batch, columns)

    with _known_outcome(database, manifests), database.transaction() as connection:
        lease.guard(connection)
        connection.execute(_MAKE_KEYS)
        copy_encoded(connection, "archived_key", [column.name for column in columns], keys())
        _same(connection.execute(delete).rowcount, rows)
        _commit(store.commit_segments(connection, manifests), len(manifests))
    return rows


@contextmanager
def _known_outcome(database: Database, manifests: Manifests) -> Iterator[None]:
    """Ask again whether a commit took place whose answer was lost."""
    try:
        yield
    except DatabaseUnavailableError:
        with database.transaction() as connection:
            if not manifests or not store.are_committed(connection, list(manifests)):
                raise


def _commit(found: int, wanted: int) -> None:
    if found != wanted:
        raise ArchiveStaleError(f"Only {found} of {wanted} segments were still to be committed.")


def _same(found: int, copied: int) -> None:
    if found != copied:
        raise ArchiveStaleError(
            f"{copied:,} rows were copied, and {found:,} of them are still the same.",
            why="Somebody changed them meanwhile.",
            fix="Nothing: they stay where they are, and are copied again.",
        )
