"""Connections: whose, where to, and whether what answers there can serve us."""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import IsolationLevel, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from kb_assets.database.message_rights import ARCHIVER
from kb_assets.database.row_security import CALLER
from kb_assets.database.vectors import VectorTypes
from kb_assets.errors import DatabaseRefusedError, DatabaseUnavailableError, SettingsError
from kb_assets.settings import Settings

DAGSTER_VARIABLE = "KB_DAGSTER_DATABASE_URL"
"""The variable that says where Dagster keeps its runs and events."""

POOL_WAIT_SECONDS = 30.0
"""How long a transaction waits for a free connection."""

_IDLE_SESSIONS = 2
"""How many sessions wait for the next one that is needed."""

_LEAST_POSTGRES = 16
_LEAST_PGVECTOR = (0, 8, 4)

_CONNECTION_DEFAULTS: dict[str, str | int] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

_LIMITS = (errors.ProgramLimitExceeded, errors.StatementTooComplex, errors.TooManyColumns)
_LOST = (
    *(psycopg.OperationalError, psycopg.InterfaceError),
    *(errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout),
)


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """Where each role connects. The URLs may hold passwords: they are left out of `repr`.

    Without a URL for callers, nobody can search as one; without one for backups, none is made.
    """

    writer: str = field(repr=False)
    reader: str = field(repr=False)
    migrator: str = field(repr=False)
    dagster: str = field(repr=False)
    caller: str = field(default="", repr=False)
    backup: str = field(default="", repr=False)
    archiver: str = field(default="", repr=False)


def resolve_urls(settings: Settings) -> DatabaseUrls:
    """Return where to connect; starts the embedded server if no other one is set.

    Without a `database_url` of its own, a knowledge base has a server in its home. With one,
    reading, archiving and migrating go there too unless told otherwise, backups are made by who
    may migrate unless told otherwise, and Dagster uses the database `dagster` of that server unless
    `KB_DAGSTER_DATABASE_URL` says where.

    Raises:
        SettingsError: A URL is not one of PostgreSQL.
        DatabaseRefusedError: The embedded server cannot run here.
        DatabaseUnavailableError: The embedded server did not start.
    """
    dagster = os.environ.get(DAGSTER_VARIABLE, "")
    if not settings.database_url:
        # Not at module level: servers of one's own work where the embedded one does not.
        from kb_assets.database.embedded import start_embedded

        address = start_embedded(settings.home_folder)
        writer, reader = address.url("kb", "kb_writer"), address.url("kb", "kb_reader")
        migrator = address.url("kb", "kb_migrator")
        caller, backup = address.url("kb", CALLER), address.url("kb", "kb_backup")
        archiver = address.url("kb", ARCHIVER)
        dagster = dagster or address.url("dagster", "dagster")
    else:
        caller = backup = ""
        writer = reader = migrator = archiver = settings.database_url
        dagster = dagster or _with_database(settings.database_url, "dagster")
    caller = settings.caller_database_url or caller
    migrator = _checked(settings.migration_database_url or migrator)
    return DatabaseUrls(
        writer=_checked(writer),
        reader=_checked(settings.read_database_url or reader),
        migrator=migrator,
        dagster=_checked(dagster),
        caller=_checked(caller) if caller else "",
        backup=_checked(settings.backup_database_url or backup or migrator),
        archiver=_checked(settings.archive_database_url or archiver),
    )


class Database:
    """A pool of writer connections.

    Nothing is connected before the first transaction, which also checks the server.

    Attributes:
        conninfo: What other clients connect with; it may hold a password.
    """

    def __init__(
        self,
        url: str,
        *,
        max_size: int = 8,
        application_name: str = "kb_assets",
        snapshots: bool = False,
        lock_seconds: float = 0.0,
    ) -> None:
        """Remember where to connect.

        Args:
            url: The writer's database; not through a pooler.
            max_size: The most connections open at once.
            application_name: What `pg_stat_activity` shows.
            snapshots: Whether each transaction only reads, and sees one state of the database.
            lock_seconds: How long a statement may wait for a lock; 0 sets no bound.

        Raises:
            SettingsError: The URL is not one of PostgreSQL.
        """
        self.conninfo = conninfo(url, application_name, lock_seconds)
        # A session may be idle for as long as its work takes elsewhere.
        options = conninfo_to_dict(self.conninfo)["options"]
        self._session_conninfo = make_conninfo(
            self.conninfo, options=f"{options} -c idle_session_timeout=0"
        )
        self._max_size = max_size
        self._snapshots = snapshots
        self._pool: ConnectionPool[psycopg.Connection] | None = None
        self._types: VectorTypes | None = None
        self._sessions: list[psycopg.Connection] = []
        self._lock = threading.Lock()

    @contextmanager
    def transaction(
        self, *, wait_seconds: float = POOL_WAIT_SECONDS
    ) -> Iterator[psycopg.Connection]:
        """Lend a connection for one transaction: committed at the end.

        It is READ COMMITTED, or REPEATABLE READ and READ ONLY for snapshots.

        Rolled back if the body raises. If the connection is lost during the commit, the outcome
        is unknown: read it again.

        Args:
            wait_seconds: How long to wait for a connection when all are lent.

        Raises:
            DatabaseUnavailableError: No connection, or it was lost, or the server gave up a wait.
            DatabaseRefusedError: The server cannot serve us; see `check_server`.
        """
        pool = self._opened()
        with unavailable_when_lost(), pool.connection(wait_seconds) as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        """Lend a connection that is nobody else's, in autocommit mode, for as long as it is needed.

        It comes as if it were new: nothing is left of what an earlier session set or made.

        Raises:
            DatabaseUnavailableError: No connection, or it was lost, or the server gave up a wait.
            DatabaseRefusedError: The server cannot serve us; see `check_server`.
        """
        with unavailable_when_lost():
            connection = self._idle_session() or self.connect_outside_pool()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
        self._keep_session(connection)

    def _idle_session(self) -> psycopg.Connection | None:
        with self._lock:
            connection = self._sessions.pop() if self._sessions else None
        if connection is None:
            return None
        try:
            connection.execute("")
        except psycopg.Error:
            connection.close()
            return None
        return connection

    def _keep_session(self, connection: psycopg.Connection) -> None:
        """Keep a session for the next one that is needed, unless it was lost meanwhile."""
        try:
            # As DISCARD ALL, but for prepared statements, which the driver believes are there.
            connection.execute(
                "close all; reset all; discard temp; select pg_advisory_unlock_all()"
            )
        except psycopg.Error:
            connection.close()
            return
        with self._lock:
            if self._pool is not None and len(self._sessions) < _IDLE_SESSIONS:
                self._sessions.append(connection)
                return
        connection.close()

    def connect_outside_pool(self) -> psycopg.Connection:
        """Open a connection that is nobody else's, in autocommit mode; the caller closes it.

        Raises:
            DatabaseUnavailableError: The server cannot be reached.
            DatabaseRefusedError: The server cannot serve us; see `check_server`.
        """
        with unavailable_when_lost():
            connection = psycopg.connect(self._session_conninfo, autocommit=True)
            try:
                if self._types is None:
                    check_server(connection)
                    self._types = VectorTypes.of(connection)
                self._types.register(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def close(self) -> None:
        """Close all connections that are not lent. A later transaction opens the pool again."""
        with self._lock:
            pool, self._pool = self._pool, None
            sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.close()
        if pool is not None:
            pool.close()

    def __enter__(self) -> "Database":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self) -> ConnectionPool[psycopg.Connection]:
        with self._lock:
            if self._pool is None:
                # A pool hides why it cannot connect, and waits: the first connection is our own.
                self.connect_outside_pool().close()
                self._pool = ConnectionPool(
                    self.conninfo,
                    min_size=0,
                    max_size=self._max_size,
                    configure=self._configure,
                    check=ConnectionPool.check_connection,
                    open=True,
                )
            return self._pool

    def _configure(self, connection: psycopg.Connection) -> None:
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        if self._snapshots:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            # A plan made for no question in particular is a bad one for a narrow filter: only
            # statements that ask for it are prepared.
            connection.prepare_threshold = sys.maxsize
        if self._types is not None:
            self._types.register(connection)


def check_server(connection: psycopg.Connection) -> None:
    """Make sure that the server can serve us.

    Raises:
        DatabaseRefusedError: It is older than PostgreSQL 16, has no pgvector or one before 0.8.4
            (which can corrupt an index), or a pooler stands in between.
    """
    row = connection.execute(
        "select pg_backend_pid(), current_setting('server_version_num')::int / 10000,"
        " current_database(), (select extversion from pg_extension where extname = 'vector')"
    ).fetchone()
    assert row is not None
    backend, major, database, extension = row
    if backend != connection.info.backend_pid:
        raise DatabaseRefusedError(
            "Writes need a direct connection.",
            why="A pooler such as PgBouncer answers there: locks would belong to nobody.",
            fix="Let KB_DATABASE_URL name the PostgreSQL server itself.",
        )
    if major < _LEAST_POSTGRES:
        raise DatabaseRefusedError(
            f"The server is PostgreSQL {major}.", fix=f"Use version {_LEAST_POSTGRES} or later."
        )
    if extension is None:
        raise DatabaseRefusedError(
            f"Database {database!r} has no vector types.",
            why="The extension pgvector is not installed in it.",
            fix="Run `create extension vector` in it as an administrator, then `kb upgrade`.",
        )
    if tuple(map(int, re.findall(r"\d+", extension)[:3])) < _LEAST_PGVECTOR:
        raise DatabaseRefusedError(
            f"Database {database!r} has pgvector {extension}.",
            why="Versions before 0.8.4 can corrupt an HNSW index.",
            fix="Install pgvector 0.8.4 or later and run `alter extension vector update`.",
        )


@contextmanager
def unavailable_when_lost() -> Iterator[None]:
    """Tell a lost connection, or a wait the server gave up, as `DatabaseUnavailableError`.

    A limit of PostgreSQL that was exceeded is a `DatabaseRefusedError`: trying again does not
    help. A full disk or a lack of memory may pass, and stays unavailable.
    """
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailableError(
            "No database connection became free.",
            why=str(error),
            fix="See whether the server runs, and whether its max_connections is reached.",
        ) from error
    except _LIMITS as error:
        raise DatabaseRefusedError(
            "The database refuses what is larger than it can hold.",
            why=str(error).strip(),
            fix="Make smaller, or exclude, what the message speaks of.",
        ) from error
    except _LOST as error:
        raise DatabaseUnavailableError(
            "The database could not be reached, or gave up.",
            why=str(error).strip(),
            fix="See whether the server runs and the URL is right; then try again.",
        ) from error


def conninfo(url: str, application_name: str, lock_seconds: float = 0.0) -> str:
    """Return what to connect with: the URL's own parameters win over ours, except the zone."""
    given = conninfo_to_dict(_checked(url))
    locks = f"-c lock_timeout={max(1, int(lock_seconds * 1000))}" if lock_seconds else ""
    options = f"{locks} {given.pop('options', None) or ''} -c TimeZone=UTC".strip()
    ours = {**_CONNECTION_DEFAULTS, "application_name": application_name}
    merged: dict[str, Any] = {**ours, **given, "options": options}
    return make_conninfo(**merged)


def _checked(url: str) -> str:
    """Return the URL without a driver's name; what libpq says of it may quote the password."""
    plain = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
    try:
        if not plain.startswith("postgresql://"):
            raise ValueError
        conninfo_to_dict(plain)
    except (psycopg.Error, ValueError):
        raise SettingsError(
            "A database URL cannot be read.",
            why="It is not of the form postgresql://user:password@host:port/database, or has "
            "characters that must be percent-encoded.",
            fix="Correct KB_DATABASE_URL and the like.",
        ) from None
    return plain


def _with_database(url: str, database: str) -> str:
    parts = urlsplit(_checked(url))
    return urlunsplit(parts._replace(path=f"/{database}"))
