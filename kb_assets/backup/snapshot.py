"""One state of the database, that many sessions see: what is copied and counted is the same.

The tables are held before the snapshot is taken: what a table loses when it is dropped or
truncated is gone from older snapshots, too.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from queue import SimpleQueue
from threading import Event
from typing import Any, TypeVar

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from kb_assets.backup.tables import Table, find_tables, require_readable
from kb_assets.database.connect import conninfo, unavailable_when_lost
from kb_assets.database.statements import Statements
from kb_assets.errors import BackupBusyError, DatabaseUnavailableError

BACKUP_LOCK = 0x6B625F62, 1
"""The advisory lock of who makes a backup ("kb_b")."""

_ATTEMPTS = 5
_LOOK_SECONDS = 0.2
_NAME = "kb_assets backup"

_GONE = (
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.UndefinedObject,
    psycopg.errors.ObjectNotInPrerequisiteState,
)

_statements = Statements.beside(__file__)
_PREPARE = _statements("prepare_session")
_BEGIN = _statements("begin_snapshot")
_EXPORT = _statements("export_snapshot")
_TRY_LOCK = _statements("try_lock")
_UNLOCK = _statements("unlock")
_FIND_HOLDER = _statements("find_holder")

Result = TypeVar("Result")
Task = Callable[[psycopg.Connection[Any]], Result]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state of the database, for as long as the session lives that took it.

    Attributes:
        url: Where it is.
        name: What other sessions take it by.
        taken_at: When it was taken.
        tables: Every table in it; they are held, so that nobody drops or empties them.
        connection: The session that took it, in its transaction.
        stopping: Set by whoever wants everything that looks at it to end.
    """

    url: str = field(repr=False)
    name: str
    taken_at: datetime
    tables: tuple[Table, ...]
    connection: psycopg.Connection[Any] = field(repr=False)
    stopping: Event = field(default_factory=Event, repr=False)

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend one more session whose transaction sees this state, and only reads.

        Raises:
            DatabaseUnavailableError: The state is not held any more.
        """
        with _connected(self.url) as connection:
            connection.execute(_BEGIN)
            try:
                connection.execute(_statements("use_snapshot", snapshot=Literal(self.name)))
            except _GONE as error:
                raise DatabaseUnavailableError(
                    "The session that held the snapshot was lost.",
                    why=str(error).strip(),
                    fix="See whether the server runs; then try again.",
                ) from error
            yield connection

    def each(self, tasks: Sequence[Task[Result]], sessions: int) -> list[Result]:
        """Do tasks in several sessions at once, and return what they gave, in order.

        The first failure ends the others, and is raised.

        Args:
            tasks: What to do, each with the session it is given.
            sessions: How many sessions.
        """
        with ExitStack() as stack:
            free: SimpleQueue[psycopg.Connection[Any]] = SimpleQueue()
            opened = [stack.enter_context(self.session()) for _ in range(min(sessions, len(tasks)))]
            for connection in opened:
                free.put(connection)
            pool = stack.enter_context(ThreadPoolExecutor(max(1, len(opened)), "backup"))
            futures = [pool.submit(_do, task, free) for task in tasks]
            try:
                wait_for(futures, self.stopping)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for connection in opened:
                    with suppress(psycopg.Error):
                        connection.cancel_safe(timeout=5)
                raise
            return [future.result() for future in futures]


def wait_for(futures: Sequence[Future[Any]], stopping: Event) -> None:
    """Wait until all have ended; the first failure is raised at once.

    Raises:
        CancelledError: They are to stop.
    """
    while True:
        done, running = wait(futures, _LOOK_SECONDS, FIRST_EXCEPTION)
        for future in done:
            future.result()
        if not running:
            return
        if stopping.is_set():
            raise CancelledError


@contextmanager
def open_snapshot(url: str) -> Iterator[Snapshot]:
    """Take a snapshot of a database, and hold it.

    Args:
        url: The database, as a role that may read every row.

    Raises:
        DatabaseRefusedError: The role may not read everything; it says what.
        DatabaseUnavailableError: The database cannot be reached, or was lost.
    """
    with unavailable_when_lost(), _connected(url) as connection:
        require_readable(connection)
        for _ in range(_ATTEMPTS):
            tables = find_tables(connection)
            if _hold(connection, tables):
                row = connection.execute(_EXPORT).fetchone()
                assert row is not None
                held = find_tables(connection)
                if {table.place for table in held} == {table.place for table in tables}:
                    yield Snapshot(url, row[0], row[1], held, connection)
                    return
            connection.rollback()
    raise DatabaseUnavailableError(
        "The database's tables do not stay the same for long enough to be held.",
        why=f"At each of {_ATTEMPTS} attempts some were made or dropped.",
        fix="Try again when nobody changes the schema.",
    )


@contextmanager
def only_backup(url: str, run_id: str) -> Iterator[None]:
    """Keep other backups of this database away while the context lasts.

    Args:
        url: The database, as the role that makes backups.
        run_id: Who is at work.

    Raises:
        BackupBusyError: Another one is being made.
    """
    lock = dict(zip(("lock_class", "lock_id"), BACKUP_LOCK, strict=True))
    with unavailable_when_lost(), _connected(url, f"{_NAME} {run_id}") as connection:
        if connection.execute(_TRY_LOCK, lock).fetchone() != (True,):
            raise _busy(connection.execute(_FIND_HOLDER, lock).fetchone())
        try:
            yield
        finally:
            # The server may take a moment to see that a session is closed.
            with suppress(psycopg.Error):
                connection.execute(_UNLOCK, lock)


@contextmanager
def _connected(url: str, name: str = _NAME) -> Iterator[psycopg.Connection[Any]]:
    """Open a session in autocommit mode that no setting of the server ends early."""
    with psycopg.connect(conninfo(url, name[:63]), autocommit=True) as connection:
        connection.execute(_PREPARE)
        yield connection


def _hold(connection: psycopg.Connection[Any], tables: Sequence[Table]) -> bool:
    """Begin a transaction that holds tables; False if one of them is gone."""
    connection.execute(_BEGIN)
    try:
        if tables:
            connection.execute(_statements("hold_tables", tables=_names(tables)))
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return False
    return True


def _names(tables: Sequence[Table]) -> Composed:
    return SQL(", ").join(SQL("only {}").format(Identifier(*table.place)) for table in tables)


def _do(task: Task[Result], free: "SimpleQueue[psycopg.Connection[Any]]") -> Result:
    connection = free.get()
    try:
        return task(connection)
    finally:
        free.put(connection)


def _busy(holder: tuple[str | None, datetime | None] | None) -> BackupBusyError:
    name, since = holder or (None, None)
    who = f"run {name.removeprefix(_NAME).strip()}" if name else "Another run"
    when = f", since {since:%Y-%m-%d %H:%M:%S} UTC" if since else ""
    return BackupBusyError(
        "Another backup of this database is being made.",
        why=f"{who[0].upper()}{who[1:]} is at work{when}.",
        fix="Let it finish; it holds nothing once its process is gone.",
    )
