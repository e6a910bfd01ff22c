"""One run at a time on a shard: an advisory lock, and a fence that outlives it.

The lock keeps runs apart. It is a session's, and a session can end unnoticed while its run
goes on; so every write transaction begins with the fence, which the next holder has raised.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.errors import (
    DatabaseUnavailableError,
    LeaseLostError,
    NotFoundError,
    ShardBusyError,
)
from kb_assets.fingerprints import Shard

SHARD_LOCK_CLASS = 0x6B625F73
"""The first key of every shard's advisory lock ("kb_s"); the second is the shard's id."""

_statements = Statements.beside(__file__)
_ADD_SHARD = _statements("add_shard")
_FIND_SHARD = _statements("find_shard")
_PREPARE = _statements("prepare_lease_session")
_TRY_LOCK = _statements("try_lock")
_UNLOCK = _statements("unlock")
_FIND_HOLDERS = _statements("find_holders")
_RAISE_FENCE = _statements("raise_fence")
_GUARD = _statements("guard")


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write a shard's rows, for as long as nobody has raised the fence.

    Attributes:
        shard: What is held.
        source_id: The row of its source.
        shard_id: Its own row.
        fence: Grows with every lease of the shard.
        run_id: Who holds it.
        waited: Another run held it, or what it shares slots with, when it was asked for.
    """

    shard: Shard
    source_id: int
    shard_id: int
    fence: int
    run_id: str
    waited: bool = False

    def guard(self, connection: psycopg.Connection) -> None:
        """Make sure the lease still holds until this transaction ends; its first statement.

        Raises:
            LeaseLostError: Another run has taken the shard over; nothing may be written.
        """
        wanted = {"shard_id": self.shard_id, "fence": self.fence}
        if connection.execute(_GUARD, wanted).fetchone() is None:
            raise LeaseLostError(
                f"Run {self.run_id} has lost shard {self.shard.key}.",
                why="Its connection broke and another run took the shard over.",
                fix="Nothing: the other run does the work.",
            )


@contextmanager
def shard_lease(
    database: Database,
    shard: Shard,
    *,
    run_id: str,
    wait_seconds: float,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Lease]:
    """Hold a shard while the context lasts.

    Shards of another layout that share slots with it are kept out as well.

    Args:
        database: Where the shard is.
        shard: What to hold; the row of its source must exist.
        run_id: Who wants it.
        wait_seconds: How long to wait for other runs; 0 tries once.
        on_wait: Told once, in a sentence, when there is something to wait for.

    Raises:
        NotFoundError: The shard's source is not in the database.
        ShardBusyError: Another run holds it, and did not finish in time.
        DatabaseUnavailableError: The database cannot be reached.
    """
    with database.session() as connection:
        lease = _take(connection, shard, run_id, wait_seconds, on_wait or _silent)
        try:
            yield lease
        finally:
            # The lock ends with the session, too, but the server may notice that a moment later.
            _unlock(connection, lease.shard_id)


def _silent(_: str) -> None: ...


def _take(
    connection: psycopg.Connection,
    shard: Shard,
    run_id: str,
    wait_seconds: float,
    on_wait: Callable[[str], None],
) -> Lease:
    try:
        source_id, shard_id = _find_or_add(connection, shard)
        waited = _lock(connection, shard, shard_id, wait_seconds, on_wait)
        milliseconds = str(int(max(wait_seconds, 1.0) * 1000))
        connection.execute(_PREPARE, {"lock_timeout": milliseconds})
        raised = connection.execute(_RAISE_FENCE, {"shard_id": shard_id, "run_id": run_id})
        row = raised.fetchone()
    except psycopg.errors.LockNotAvailable as error:
        raise ShardBusyError(
            f"Shard {shard.key} is free, but a write of its last run has not ended.",
            fix="Wait, or end that session: see pg_stat_activity.",
        ) from error
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(
            f"The database was lost while shard {shard.key} was taken.", why=str(error).strip()
        ) from error
    if row is None:
        raise _no_source(shard)
    return Lease(shard, source_id, shard_id, row[0], run_id, waited)


def _find_or_add(connection: psycopg.Connection, shard: Shard) -> tuple[int, int]:
    named = {
        "source": shard.source,
        "slot_low": shard.slot_low,
        "slot_high": shard.slot_high,
    }
    row = connection.execute(_FIND_SHARD, named).fetchone()
    if row is not None and row[1] is None:
        connection.execute(_ADD_SHARD, named)
        row = connection.execute(_FIND_SHARD, named).fetchone()
    if row is None or row[1] is None:
        raise _no_source(shard)
    return row[0], row[1]


def _lock(
    connection: psycopg.Connection,
    shard: Shard,
    shard_id: int,
    wait_seconds: float,
    on_wait: Callable[[str], None],
) -> bool:
    """Take the shard's lock, and keep it only if no overlapping shard is held.

    Two overlapping shards that are locked at the same moment see each other: both let go, and
    come back after pauses of unequal length.

    Returns:
        Whether there was something to wait for.
    """
    key = {"lock_class": SHARD_LOCK_CLASS, "shard_id": shard_id}
    give_up = time.monotonic() + wait_seconds
    pause = 0.1
    told = False
    while True:
        locked = connection.execute(_TRY_LOCK, key).fetchone() == (True,)
        holders = connection.execute(_FIND_HOLDERS, key).fetchall()
        if locked and not holders:
            return told
        if locked:
            _unlock(connection, shard_id)
        left = give_up - time.monotonic()
        if left <= 0:
            raise _busy(shard, holders, wait_seconds)
        if not told:
            on_wait(f"Waiting for shard {shard.key}, which {_who(holders)} holds.")
            told = True
        time.sleep(min(left, pause * random.uniform(0.5, 1.0)))
        pause = min(1.0, pause * 1.5)


def _unlock(connection: psycopg.Connection, shard_id: int) -> None:
    """Let go; a connection that is lost has let go already."""
    with suppress(psycopg.OperationalError, psycopg.InterfaceError):
        connection.execute(_UNLOCK, {"lock_class": SHARD_LOCK_CLASS, "shard_id": shard_id})


def _who(holders: list[tuple[str | None, datetime | None]]) -> str:
    if not holders or holders[0][0] is None or holders[0][1] is None:
        return "another run"
    run_id, since = holders[0]
    return f"run {run_id} (since {since:%Y-%m-%d %H:%M:%S} UTC)"


def _busy(
    shard: Shard, holders: list[tuple[str | None, datetime | None]], waited: float
) -> ShardBusyError:
    return ShardBusyError(
        f"Shard {shard.key} is busy: {_who(holders)} holds it.",
        why=f"It did not finish within {waited:g} seconds.",
        fix="Let it finish, or end it: the shard is free once its process is gone.",
    )


def _no_source(shard: Shard) -> NotFoundError:
    return NotFoundError(
        f"Source {shard.source!r} is not in the database.",
        why="Sources are entered there by the first run after kb.toml names them.",
        fix="Run `kb index`.",
    )
