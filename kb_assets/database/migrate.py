"""The schema's version: bring it forward or back, and refuse to work with any other.

The steps are in `migrations/`. What is compared on every run needs no Alembic: a step's
revision is the number its file name begins with, and the last one is the head.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from kb_assets.database.connect import check_server, conninfo, unavailable_when_lost
from kb_assets.database.message_rights import is_separated, separate_archiver
from kb_assets.database.names import SCHEMA, SPACE_SCHEMA
from kb_assets.database.row_security import is_protected, protect_rows, protect_vectors
from kb_assets.errors import DatabaseRefusedError, SchemaError

if TYPE_CHECKING:
    from alembic.config import Config

_log = logging.getLogger(__name__)

VERSION_TABLE = "alembic_version"
# Alembic keeps what it works on in a global variable: threads wait here, processes in the database.
_one_at_a_time = threading.Lock()
_REVISION_FILE = re.compile(r"(\d{4})_\w+\.py")


def migrations_folder() -> Path:
    """Return the folder of the migrations: beside the package, as in the repository.

    Raises:
        SchemaError: It is not there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "migrations", package / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise SchemaError(
        "The migrations are not installed.",
        why=f"There is no folder `migrations` in {package.parent}.",
        fix="Work in a checkout of the repository, or copy its folder `migrations` there.",
    )


def revisions() -> tuple[str, ...]:
    """Return every revision this code knows, oldest first."""
    files = (migrations_folder() / "versions").iterdir()
    return tuple(sorted(m[1] for file in files if (m := _REVISION_FILE.fullmatch(file.name))))


def head() -> str:
    """Return the revision this code needs."""
    return revisions()[-1]


def current(connection: psycopg.Connection) -> str | None:
    """Return the database's revision; None if it has no schema of ours."""
    known = connection.execute("select to_regclass('kb.alembic_version') is not null").fetchone()
    if known != (True,):
        return None
    row = connection.execute("select version_num from kb.alembic_version").fetchone()
    return None if row is None else str(row[0])


def require_current_schema(connection: psycopg.Connection) -> None:
    """Make sure that the database has exactly the schema this code was written for.

    Raises:
        SchemaError: It is behind this code, ahead of it, or not there.
    """
    found, known = current(connection), revisions()
    if found == known[-1]:
        return
    if found is None:
        _require_no_restore(connection)
        raise SchemaError("The database has no tables yet.", fix="Run `kb upgrade`.")
    if found in known:
        raise SchemaError(
            f"The database's schema is at revision {found}, this code needs {known[-1]}.",
            why="The code was upgraded and the database was not.",
            fix="Run `kb upgrade`.",
        )
    raise SchemaError(
        f"The database's schema is at revision {found}, which this code does not know.",
        why=f"This code is older than the database: its last revision is {known[-1]}.",
        fix="Upgrade kb_assets.",
    )


def _require_no_restore(connection: psycopg.Connection) -> None:
    row = connection.execute("select to_regnamespace('kb_restore') is not null").fetchone()
    if row == (True,):
        raise SchemaError(
            "A backup is being restored into the database, or a restore of one broke off.",
            fix="Let it finish, or run `kb backup restore` again: it starts over.",
        )


def upgrade(migrator_url: str, revision: str = "head") -> None:
    """Bring the schema forward, in one transaction; calls at the same time wait for each other.

    Installs pgvector if the role may.

    Args:
        migrator_url: The database, as the role that owns its schemas.
        revision: Where to stop.

    Raises:
        DatabaseRefusedError: The server cannot serve us, or the role may not change the schema.
        DatabaseUnavailableError: The server cannot be reached.
        SchemaError: The database is ahead of this code.
    """
    from alembic import command

    _prepare(migrator_url)
    _run(migrator_url, lambda config: command.upgrade(config, revision))
    _protect(migrator_url)


def downgrade(migrator_url: str, revision: str) -> None:
    """Take the schema back; what only the newer schema can hold is lost.

    Args:
        migrator_url: The database, as the role that owns its schemas.
        revision: Where to stop; `base` removes everything.

    Raises:
        DatabaseRefusedError: The role may not change the schema.
        DatabaseUnavailableError: The server cannot be reached.
        SchemaError: The database is ahead of this code.
    """
    from alembic import command

    _run(migrator_url, lambda config: command.downgrade(config, revision))


def _prepare(migrator_url: str) -> None:
    """Install pgvector where that is possible, and check the server."""
    with (
        unavailable_when_lost(),
        psycopg.connect(conninfo(migrator_url, "kb_migrate"), autocommit=True) as connection,
    ):
        if connection.execute("select 1 from pg_extension where extname = 'vector'").rowcount == 0:
            try:
                connection.execute("create extension if not exists vector")
            except psycopg.Error as error:
                _log.info("pgvector could not be installed: %s", error)
        check_server(connection)


def _protect(migrator_url: str) -> None:
    """Give roles that were made after the tables what they need, and take it from others."""
    with (
        unavailable_when_lost(),
        psycopg.connect(conninfo(migrator_url, "kb_migrate")) as connection,
    ):
        if current(connection) != head():
            return
        if not is_separated(connection.execute):
            separate_archiver(connection.execute)
        if not is_protected(connection.execute):
            protect_rows(connection.execute)
            spaces = connection.execute("select id from kb.embedding_space order by id").fetchall()
            for (space_id,) in spaces:
                protect_vectors(connection.execute, f"{SPACE_SCHEMA}.embedding_{space_id}")


def _run(migrator_url: str, command: "Callable[[Config], None]") -> None:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    with (
        unavailable_when_lost(),
        _one_at_a_time,
        psycopg.connect(conninfo(migrator_url, "kb_migrate")) as connection,
    ):
        found = current(connection)
        if found is None:
            _require_no_restore(connection)
        elif found not in revisions():
            require_current_schema(connection)
        config.attributes["psycopg"] = connection
        with _causes():
            command(config)


@contextmanager
def _causes() -> Iterator[None]:
    """Tell SQLAlchemy's errors as what they come from."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise DatabaseRefusedError(
                "The schema cannot be changed by this role.",
                why=str(error.orig).strip(),
                fix=f"Let KB_MIGRATION_DATABASE_URL name a role that owns schema {SCHEMA}.",
            ) from error
        if isinstance(error.orig, psycopg.OperationalError):
            raise error.orig from error
        raise
