"""Where a backup is restored: an empty database, ours while the restore lasts.

While it is being filled it says so: schema `kb_restore` is there, and no revision is entered, so
that nothing takes it for a knowledge base. What a killed restore left is cleared by the next one.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from kb_assets.backup.manifest import Manifest
from kb_assets.database.connect import conninfo, resolve_urls, unavailable_when_lost
from kb_assets.database.statements import Statements
from kb_assets.errors import (
    BackupBusyError,
    BackupTargetError,
    DatabaseUnavailableError,
    SettingsError,
)
from kb_assets.settings import Settings

CLAIM_SCHEMA = "kb_restore"
"""It is in a database for as long as a restore into it is unfinished."""

_LOCK = {"lock_class": 0x6B625F62, "lock_id": 2}
_BLANK_SCHEMAS = {"kb", "kb_space"}
_BLANK_TABLES = {("kb", "alembic_version"), ("kb", "index_state")}
"""Where a knowledge base has rows before anything was put into it."""

_MOST_NAMED = 5

_statements = Statements(Path(__file__).with_name("restoring.sql"))
_backing_up = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Target:
    """A database, as a restore finds it.

    Attributes:
        major: The server's major version.
        database: Its name.
        user: Who is connected.
        extensions: The version of each installed extension.
        available: The version of each that can be installed.
        schemas: Every schema.
    """

    major: int
    database: str
    user: str
    extensions: Mapping[str, str]
    available: Mapping[str, str]
    schemas: frozenset[str]

    @classmethod
    def of(cls, connection: psycopg.Connection[Any]) -> "Target":
        """Ask a database."""
        row = connection.execute(_statements("describe_target")).fetchone()
        assert row is not None
        major, database, user, extensions, available, schemas = row
        return cls(major, database, user, extensions or {}, available or {}, frozenset(schemas))

    def lacks(self, manifest: Manifest) -> tuple[str, ...]:
        """Return the extensions of a backup that cannot be had here."""
        there = {*self.extensions, *self.available}
        return tuple(name for name in manifest.extensions if name not in there)


def find_target(settings: Settings, to_url: str = "") -> str:
    """Return the URL of the database that is restored into.

    Args:
        settings: The knowledge base's: its own database, if no other one is named.
        to_url: Another one.

    Raises:
        SettingsError: A URL is not one of PostgreSQL.
        DatabaseRefusedError: The embedded server cannot run here.
        DatabaseUnavailableError: It did not start, or nothing answers at the other URL.
    """
    if to_url:
        require_reachable(to_url, "--to-url")
        return to_url
    if settings.database_url:
        return resolve_urls(settings).migrator
    from kb_assets.database.cluster import ADMINISTRATOR
    from kb_assets.database.embedded import start_embedded

    return start_embedded(settings.home_folder).url("kb", ADMINISTRATOR)


def require_reachable(url: str, option: str) -> None:
    """Make sure that a database answers where an option says.

    Args:
        url: What the option says.
        option: Such as `--to-url`: errors name it.

    Raises:
        SettingsError: It is not a URL of PostgreSQL.
        DatabaseUnavailableError: Nothing answers there, or not to us.
    """
    try:
        with connected(url):
            return
    except (SettingsError, DatabaseUnavailableError) as error:
        raise type(error)(
            f"{option} leads to no database.",
            why=error.why,
            fix=f"Correct {option}, or see whether its server runs.",
        ) from error


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Open a session in autocommit mode that no setting of the server ends early."""
    with (
        unavailable_when_lost(),
        psycopg.connect(conninfo(url, "kb_assets restore"), autocommit=True) as connection,
    ):
        connection.execute(_backing_up("prepare_session"))
        yield connection


@contextmanager
def claimed(
    url: str, manifest: Manifest, extensions: Collection[str]
) -> Iterator[psycopg.Connection[Any]]:
    """Hold a database that is empty but for what says that it is being filled.

    Args:
        url: The database, as a role that may make schemas in it.
        manifest: What comes.
        extensions: Which extensions that needs.

    Raises:
        BackupBusyError: Another restore into it is at work.
        BackupTargetError: It is not empty, too old, lacks an extension, or is not ours to fill.
    """
    with connected(url) as connection:
        require_fitting(connection, manifest, extensions)
        lock(connection)
        with _ours(), connection.transaction():
            _empty(connection)
            connection.execute(_statements("make_claim_schema"))
            connection.execute(_statements("make_claim_table"))
            connection.execute(_statements("enter_claim"), {"backup_id": manifest.id})
        yield connection


def lock(connection: psycopg.Connection[Any]) -> None:
    """Keep other restores away from a database for as long as the session lives.

    Raises:
        BackupBusyError: One is at work.
    """
    if connection.execute(_statements("try_lock"), _LOCK).fetchone() != (True,):
        raise BackupBusyError(
            "Another restore into this database is at work.",
            fix="Let it finish; it holds nothing once its process is gone.",
        )


def require_fitting(
    connection: psycopg.Connection[Any], manifest: Manifest, extensions: Collection[str]
) -> None:
    """Make sure that a server can hold what a backup holds.

    Args:
        connection: In the database.
        manifest: The backup.
        extensions: Which of its extensions are needed: some are there for other reasons.

    Raises:
        BackupTargetError: It is older than the backup, or lacks an extension.
    """
    target = Target.of(connection)
    if target.major < manifest.server_major:
        raise BackupTargetError(
            f"The server is PostgreSQL {target.major}, the backup is of {manifest.server_major}.",
            why="A backup goes into the same version or a later one.",
            fix=f"Restore into PostgreSQL {manifest.server_major} or later.",
        )
    for name in sorted(extensions):
        version = manifest.extensions[name]
        installed = target.extensions.get(name)
        found = installed or target.available.get(name)
        if found is None:
            raise BackupTargetError(
                f"The server lacks the extension {name}.",
                why=f"The backup needs version {version} or later.",
                fix="Install it on the server, then try again.",
            )
        if _numbers(found) < _numbers(version):
            how = f"run `alter extension {name} update`" if installed else "install it"
            raise BackupTargetError(
                f"The server has {name} {found}, the backup is of {version}.",
                why="An older version may not read what a later one wrote.",
                fix=f"See that the server offers {version} or later, and {how}.",
            )


def require_empty(connection: psycopg.Connection[Any]) -> bool:
    """Make sure that a database holds nothing, or only what a killed restore left.

    The schema of a knowledge base that nothing was put into yet is nothing.

    Returns:
        Whether there is something of the kind, to be dropped first.

    Raises:
        BackupTargetError: Something else is in it.
    """
    objects = connection.execute(_statements("find_objects")).fetchall()
    if _unfinished(connection):
        return True
    if not objects or _is_blank(connection, {schema for schema, _, _ in objects}):
        return bool(objects)
    named = ", ".join(identity for _, identity, _ in objects[:_MOST_NAMED])
    raise BackupTargetError(
        f"Database {connection.info.dbname} is not empty: nothing was restored.",
        why=f"It has {len(objects)} objects, such as {named}.",
        fix="Restore into a new database with --to-url. If nothing in this one is needed any "
        "more, drop it and create it anew; the embedded server's is the folder `postgres` of the "
        "knowledge base's home (.kb): move it away.",
    )


def _empty(connection: psycopg.Connection[Any]) -> None:
    """Drop what is nothing; anything else is an error, see `require_empty`."""
    if not require_empty(connection):
        return
    connection.execute(_statements("end_killed"))
    for (schema,) in connection.execute(_statements("find_own_schemas")).fetchall():
        connection.execute(_statements("drop_schema", schema=schema))
    for _, _, statement in connection.execute(_statements("find_objects")).fetchall():
        connection.execute(statement)


def _unfinished(connection: psycopg.Connection[Any]) -> bool:
    return connection.execute(_statements("find_claim")).fetchone() == (True,)


def _is_blank(connection: psycopg.Connection[Any], schemas: set[str]) -> bool:
    """Say whether there is only the schema of a knowledge base, without anything in it."""
    written = connection.execute(_statements("find_written_tables")).fetchall()
    return schemas <= _BLANK_SCHEMAS and set(written) <= _BLANK_TABLES


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise BackupTargetError(
            "The database is not ours to fill.",
            why=str(error).strip(),
            fix="Connect as a role that owns the database, such as kb_migrator.",
        ) from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
