"""A database that goes wrong at a chosen transaction, and one that waits at it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Literal

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.lease import Lease, shard_lease
from kb_assets.database.run import Run
from kb_assets.errors import DatabaseUnavailableError
from kb_assets.fingerprints import Shard
from kb_assets.knowledge_base import KnowledgeBase

Loss = Literal["before", "after", "during", "beside"]
"""When the connection is lost: before the transaction began; in it, when only the commit is left;
after it was committed, so that the caller is not told; or on every connection but its own."""


class FaultyDatabase(Database):
    """The writer's database, with one fault at the n-th transaction."""

    def __init__(self, url: str, loss: Loss, at: int) -> None:
        super().__init__(url)
        self.transactions = 0
        self._loss = loss
        self._at = at

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        self.transactions += 1
        loss = self._loss if self.transactions == self._at else None
        if loss == "before":
            raise DatabaseUnavailableError("The connection was lost before it began.")
        with super().transaction() as connection:
            if loss == "beside":
                end_other_sessions(self, spared=connection.info.backend_pid)
            yield connection
            if loss == "during":
                end_other_sessions(self, spared=0)
        if loss == "after":
            raise DatabaseUnavailableError("The connection was lost after it took effect.")


class PausingDatabase(Database):
    """The writer's database; its n-th transaction waits before it commits."""

    def __init__(self, url: str, at: int) -> None:
        super().__init__(url)
        self.about_to_commit = threading.Event()
        self.commit = threading.Event()
        self._left = at

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        with super().transaction() as connection:
            yield connection
            self._left -= 1
            if self._left == 0:
                self.about_to_commit.set()
                assert self.commit.wait(60)


class StolenRun(Run):
    """A run that loses every shard the moment it has it: its session ends, an heir takes over."""

    def lease(self, shard: Shard) -> AbstractContextManager[Lease]:
        return stolen_lease(self.database, shard)

    @classmethod
    def of(cls, run: Run) -> "StolenRun":
        return cls(**{name: getattr(run, name) for name in Run.__dataclass_fields__})


@contextmanager
def stolen_lease(database: Database, shard: Shard) -> Iterator[Lease]:
    """Yield a lease that another run has taken over without its holder's noticing."""
    with shard_lease(database, shard, run_id="zombie", wait_seconds=0) as zombie:
        end_lease_sessions(database)
        with shard_lease(database, shard, run_id="heir", wait_seconds=10):
            pass
        yield zombie


def end_lease_sessions(database: Database) -> None:
    """End the sessions that hold shards, as a lost network would."""
    _end(database, "pid in (select pid from pg_locks where locktype = 'advisory')", 0)


def end_other_sessions(database: Database, *, spared: int) -> None:
    """End every session of the database but one."""
    _end(database, "true", spared)


def _end(database: Database, which: str, spared: int) -> None:
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            f" where datname = current_database() and usename = current_user and {which}"
            " and pid not in (pg_backend_pid(), %s)",
            [spared],
        )


def wait_until_blocked(
    kb: KnowledgeBase, *, sessions: int = 1, or_over: threading.Thread | None = None
) -> None:
    """Wait until so many sessions of the database wait for a lock, or a thread has ended."""
    query = (
        # Locks can be seen whoever waits for them; what else a session of another role does, not.
        "select count(distinct l.pid) from pg_locks l join pg_stat_activity a using (pid)"
        " where not l.granted and a.datname = current_database()"
    )
    give_up = time.monotonic() + 60
    with psycopg.connect(kb.settings.database_url, autocommit=True) as connection:
        while connection.execute(query).fetchone() != (sessions,):
            assert time.monotonic() < give_up, "nothing waited for a lock"
            if or_over is not None and not or_over.is_alive():
                return
            time.sleep(0.005)


def with_database(run: Run, database: Database) -> Run:
    """Return the run over another database object."""
    return replace(run, database=database, archiver=None)


class Background(threading.Thread):
    """Work in another thread; what it raises comes out of `result`."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._error: BaseException | None = None
        self._result: object = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def result(self, seconds: float = 60.0) -> object:
        """Wait for its end; return what it returned, or raise what it raised."""
        self.join(seconds)
        assert not self.is_alive(), "it did not end in time"
        if self._error is not None:
            raise self._error
        return self._result
