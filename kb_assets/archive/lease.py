"""One run at a time in a month of an aging table: an advisory lock, and a fence that outlives it.

As `database/lease.py` for shards: the lock keeps runs apart, the fence keeps a run that lost its
session unnoticed from committing anything.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date

import psycopg

from kb_assets.archive.relation import Aging
from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.errors import ArchiveBusyError, LeaseLostError, NotFoundError

MONTH_LOCK_CLASS = 0x6B625F61
"""The first key of every month's advisory lock ("kb_a"); the second is the month's id."""

_PAUSE_SECONDS = 0.2

_statements = Statements.beside(__file__)
_FIND_MONTH = _statements("find_month")
_TRY_LOCK = _statements("try_lock")
_UNLOCK = _statements("unlock")
_FIND_HOLDER = _statements("find_holder")
_RAISE_FENCE = _statements("raise_fence")
_GUARD = _statements("guard")


@dataclass(frozen=True, slots=True)
class MonthLease:
    """The right to archive, restore or erase in a month, until somebody raises the fence.

    Attributes:
        relation: The aging table's name.
        month: The month's first day.
        month_id: Its row.
        fence: Grows with every lease of the month.
        run_id: Who holds it.
    """

    relation: str
    month: date
    month_id: int
    fence: int
    run_id: str

    def guard(self, connection: psycopg.Connection) -> None:
        """Make sure the lease still holds until this transaction ends; its first statement.

        Raises:
            LeaseLostError: Another run has taken the month over; nothing may be written.
        """
        wanted = {"month_id": self.month_id, "fence": self.fence}
        if connection.execute(_GUARD, wanted).fetchone() is None:
            raise LeaseLostError(
                f"Run {self.run_id} has lost {self.month:%Y-%m} of {self.relation}.",
                why="Its connection broke and another run took the month over.",
                fix="Nothing: the other run does the work.",
            )


@contextmanager
def month_lease(
    database: Database, aging: Aging, month: date, *, run_id: str, wait_seconds: float = 0.0
) -> Iterator[MonthLease]:
    """Hold a month while the context lasts.

    Args:
        database: Where the table is.
        aging: The table.
        month: The month's first day.
        run_id: Who wants it.
        wait_seconds: How long to wait for another run; 0 tries once.

    Raises:
        NotFoundError: The month never had a message.
        ArchiveBusyError: Another run holds it, and did not finish in time.
        DatabaseUnavailableError: The database cannot be reached.
    """
    with database.session() as connection:
        named = {"relation": aging.name, "month": month}
        row = connection.execute(_FIND_MONTH, named).fetchone()
        if row is None:
            raise NotFoundError(f"There is nothing of {month:%Y-%m} in {aging.name}.")
        lock = {"lock_class": MONTH_LOCK_CLASS, "month_id": row[0]}
        _lock(connection, lock, month, wait_seconds)
        try:
            raised = connection.execute(_RAISE_FENCE, {"month_id": row[0], "run_id": run_id})
            (fence,) = raised.fetchone() or (0,)
            yield MonthLease(aging.name, month, row[0], fence, run_id)
        finally:
            with suppress(psycopg.OperationalError, psycopg.InterfaceError):
                connection.execute(_UNLOCK, lock)


def _lock(
    connection: psycopg.Connection, lock: dict[str, int], month: date, wait_seconds: float
) -> None:
    give_up = time.monotonic() + wait_seconds
    while connection.execute(_TRY_LOCK, lock).fetchone() != (True,):
        if time.monotonic() >= give_up:
            holder = connection.execute(_FIND_HOLDER, {"month_id": lock["month_id"]}).fetchone()
            who = f"run {holder[0]}" if holder and holder[0] else "another run"
            raise ArchiveBusyError(
                f"{month:%Y-%m} is busy: {who} holds it.",
                fix="Let it finish; the month is free once its process is gone.",
            )
        time.sleep(_PAUSE_SECONDS)
