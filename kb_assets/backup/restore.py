"""A backup into an empty database, which is closed until it is whole.

What was erased after the backup is erased again before anybody can read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from kb_assets.backup.listing import (
    Entry,
    needed_extensions,
    owners,
    read_listing,
    split_schemas,
    without_extensions,
)
from kb_assets.backup.loading import Load, require_same_rows, timed
from kb_assets.backup.manifest import Manifest, TableFacts
from kb_assets.backup.programs import find_program
from kb_assets.backup.roles import lacking_roles, make_roles
from kb_assets.backup.target import CLAIM_SCHEMA, Target, claimed, connected
from kb_assets.database.migrate import head, revisions, upgrade
from kb_assets.database.statements import Statements
from kb_assets.errors import SchemaError

_VERSION_TABLE = ("kb", "alembic_version")

_statements = Statements(Path(__file__).with_name("restoring.sql"))


@dataclass(slots=True)
class RestoreReport:
    """What was restored.

    Attributes:
        id: The backup's.
        database: Where it is now.
        tables: How many tables.
        rows: How many rows.
        roles_made: Roles that were missing; they have no password.
        upgraded_from: The revision of the backup's schema, if this code has a later one.
        notes: What should be known.
        seconds: How long each step took.
    """

    id: str
    database: str
    tables: int
    rows: int
    roles_made: tuple[str, ...] = ()
    upgraded_from: str = ""
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


def restore(
    manifest: Manifest,
    folder: Path,
    url: str,
    *,
    replay: Callable[[], tuple[str, ...]] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> RestoreReport:
    """Restore a whole backup; ended at any point, it can be started over.

    Args:
        manifest: The backup.
        folder: Its files: fetched, verified and decrypted.
        url: The database; see `find_target`.
        replay: Erases again what was erased since, and returns what should be known of that. It
            finds the schema of this code, of which no revision is entered yet. Without it the
            database stays as it was backed up, and of the backup's revision.
        say: Told what is being done.

    Raises:
        BackupBusyError: Another restore into the database is at work.
        BackupTargetError: It is not empty, too old, or lacks an extension or a role.
        BackupCorruptError: What was restored is not what was backed up.
        SchemaError: The backup is of a later version of this code.
        DatabaseRefusedError: A step failed.
        DatabaseUnavailableError: The database was lost.
        DiskError: A disk is full.
    """
    if replay is not None and manifest.revision not in revisions():
        raise SchemaError(
            f"The backup's schema is at revision {manifest.revision}, which this code does not "
            "know.",
            why=f"It was made by kb_assets {manifest.kb_version}.",
            fix="Upgrade kb_assets.",
        )
    listed = read_listing(find_program("pg_restore", manifest.server_major), folder, url)
    with claimed(url, manifest, needed_extensions(listed)) as connection:
        target = Target.of(connection)
        report = RestoreReport(manifest.id, target.database, len(manifest.tables), manifest.rows)
        program = find_program("pg_restore", max(target.major, manifest.server_major))
        _load(Load(manifest, folder, url, program), listed, connection, report, say)
        if replay is not None:
            say("Erasing again what was erased since the backup.")
            if manifest.revision != head():
                report.upgraded_from = manifest.revision
                timed(report.seconds, "upgrade", lambda: _upgrade(connection, url, manifest))
            report.notes += timed(report.seconds, "replay", replay)
        _open(connection, manifest.revision if replay is None else head())
    return report


def _load(
    load: Load,
    listed: Sequence[Entry],
    connection: psycopg.Connection[Any],
    report: RestoreReport,
    say: Callable[[str], None],
) -> None:
    manifest, seconds = load.manifest, report.seconds
    report.roles_made = make_roles(connection, manifest.roles, owners(listed))
    target = Target.of(connection)
    report.notes += lacking_roles(connection, manifest.roles)[0] + not_needed(target, manifest)
    listed = without_extensions(listed, target.lacks(manifest))
    schemas, others = split_schemas(listed, target.schemas)
    version = "TABLE DATA {} {} ".format(*_VERSION_TABLE)
    others = [one for one in others if not one.text.startswith(version)]
    say("Making tables.")
    timed(seconds, "schema", lambda: load.run("pre-data", schemas))
    timed(seconds, "schema", lambda: load.run("pre-data", others))
    say(f"Loading {manifest.rows:,} rows.")
    timed(seconds, "rows", lambda: load.fill(others, manifest.tables))
    load.set_sequences(manifest.sequences)
    say("Comparing the rows with those of the backup.")
    expected = [table for table in manifest.tables if _place(table) != _VERSION_TABLE]
    found = timed(seconds, "checksums", lambda: load.count(expected))
    require_same_rows(expected, found)
    say("Building indexes.")
    timed(seconds, "indexes", lambda: load.index(others))
    timed(seconds, "vacuum", lambda: _vacuum(load.url))


def not_needed(target: Target, manifest: Manifest) -> tuple[str, ...]:
    """Say which extensions are left out: nothing that is restored needs them."""
    return tuple(
        f"Extension {name} cannot be had here; nothing that is restored needs it."
        for name in target.lacks(manifest)
    )


def _vacuum(url: str) -> None:
    with connected(url) as connection:
        connection.execute(_statements("vacuum"))


def _upgrade(connection: psycopg.Connection[Any], url: str, manifest: Manifest) -> None:
    """Bring the schema to this code; the database stays closed."""
    row = connection.execute(_statements("find_version_owner")).fetchone()
    assert row is not None
    owner, user = row
    with connection.transaction():
        for step in ("let_claim_be_used", "make_closing", "close_when_upgraded"):
            connection.execute(_statements(step))
        connection.execute(_statements("enter_version"), {"revision": manifest.revision})
    # What is made belongs to whom all else belongs.
    between = "&" if "?" in url else "?"
    upgrade(url if owner == user else f"{url}{between}options={quote(f'-c role={owner}')}")


def _open(connection: psycopg.Connection[Any], revision: str) -> None:
    """Say that the database is whole."""
    with connection.transaction():
        connection.execute(_statements("drop_closing"))
        connection.execute(_statements("enter_version"), {"revision": revision})
        connection.execute(_statements("drop_schema", schema=CLAIM_SCHEMA))


def _place(table: TableFacts) -> tuple[str, str]:
    return table.schema, table.name
