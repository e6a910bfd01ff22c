"""What a new embedded server is given: databases, roles that are not superusers, pgvector.

The only place that works as the superuser. On a server of one's own, an administrator does the
same by hand.
"""

import psycopg
from psycopg.sql import SQL, Identifier

from kb_assets.database.cluster import ADMINISTRATOR, ServerAddress
from kb_assets.database.connect import unavailable_when_lost
from kb_assets.database.message_rights import ARCHIVER
from kb_assets.database.row_security import CALLER, WRITER

_VERSION = "kb_assets: provisioned, version 4"
"""Written as the comment of database `kb` when all is done; raise it when a step changes."""

MIGRATOR, READER, DAGSTER = "kb_migrator", "kb_reader", "dagster"
BACKUP = "kb_backup"
_DATABASES = {"kb": MIGRATOR, "dagster": DAGSTER}
_CONNECT = {"kb": (MIGRATOR, WRITER, READER, CALLER, ARCHIVER, BACKUP), "dagster": (DAGSTER,)}


def provision(address: ServerAddress) -> None:
    """Create what is missing; a server that has everything is asked one question.

    Killed at any step, it goes on from there the next time.

    Raises:
        DatabaseUnavailableError: The server died meanwhile.
    """
    with unavailable_when_lost(), _connect(address, ADMINISTRATOR) as server:
        if _is_provisioned(server):
            return
        _create_roles(server)
        for database, owner in _DATABASES.items():
            _create_database(server, database, owner)
        create_extension(address, "kb")
        server.execute(SQL("comment on database kb is {}").format(_VERSION))


def create_extension(address: ServerAddress, database: str) -> None:
    """Install pgvector in a database, or bring it to the version of the wheel."""
    with _connect(address, database) as connection:
        connection.execute("create extension if not exists vector with schema public")
        connection.execute("alter extension vector update")


def _connect(address: ServerAddress, database: str) -> psycopg.Connection:
    return psycopg.connect(address.url(database, ADMINISTRATOR), autocommit=True)


def _is_provisioned(server: psycopg.Connection) -> bool:
    row = server.execute(
        "select shobj_description(oid, 'pg_database') from pg_database where datname = 'kb'"
    ).fetchone()
    return row is not None and row[0] == _VERSION


def _create_roles(server: psycopg.Connection) -> None:
    known = {name for (name,) in server.execute("select rolname from pg_roles")}
    for role in (*_CONNECT["kb"], DAGSTER):
        if role not in known:
            server.execute(SQL("create role {} login").format(Identifier(role)))
    # COPY into tables whose rows are protected from callers is for a role that sees all of them.
    server.execute(SQL("alter role {} bypassrls").format(Identifier(WRITER)))
    # Half of the rows is no backup.
    server.execute(SQL("alter role {} bypassrls").format(Identifier(BACKUP)))
    server.execute(SQL("grant pg_read_all_data to {}").format(Identifier(BACKUP)))
    # The migrator changes tables the writer made at run time, and says who may read them.
    server.execute(SQL("grant {} to {}").format(Identifier(WRITER), Identifier(MIGRATOR)))


def _create_database(server: psycopg.Connection, name: str, owner: str) -> None:
    known = server.execute("select 1 from pg_database where datname = %s", (name,)).fetchone()
    database = Identifier(name)
    if known is None:
        server.execute(SQL("create database {} owner {}").format(database, Identifier(owner)))
    server.execute(SQL("revoke all on database {} from public").format(database))
    for role in _CONNECT[name]:
        grant = SQL("grant connect, temporary on database {} to {}")
        server.execute(grant.format(database, Identifier(role)))
