"""Some tables of a backup, beside whatever else is in a database."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from kb_assets.backup.listing import (
    Entry,
    choose,
    needed_extensions,
    owners,
    read_listing,
    split_schemas,
    without_extensions,
)
from kb_assets.backup.loading import Load, require_same_rows, timed
from kb_assets.backup.manifest import Manifest, TableFacts
from kb_assets.backup.programs import find_program
from kb_assets.backup.restore import RestoreReport, not_needed
from kb_assets.backup.roles import make_roles
from kb_assets.backup.target import Target, connected, lock, require_fitting
from kb_assets.database.statements import Statements
from kb_assets.errors import BackupTargetError, NotFoundError

_statements = Statements(Path(__file__).with_name("restoring.sql"))

_AS_IT_WAS = (
    "What was erased since the backup is in these tables again: the ledger is not replayed for a "
    "part. Take over what you need, then drop them."
)


def restore_part(
    manifest: Manifest,
    folder: Path,
    url: str,
    *,
    tables: Collection[str] = (),
    schemas: Collection[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> RestoreReport:
    """Restore some tables, as they were, where there are none of these names.

    If it fails, the tables are dropped again.

    Args:
        manifest: The backup.
        folder: Its files: fetched, verified and decrypted.
        url: The database; see `find_target`.
        tables: Such as `kb.message`; partitions come with their table.
        schemas: Such as `kb_space`: all of it.
        say: Told what is being done.

    Raises:
        NotFoundError: The backup has no such table or schema.
        BackupBusyError: Another restore into the database is at work.
        BackupTargetError: A table is there already, or an extension or a role is not.
        BackupCorruptError: What was restored is not what was backed up.
        DatabaseRefusedError: A step failed.
        DatabaseUnavailableError: The database was lost.
        DiskError: A disk is full.
    """
    with connected(url) as connection:
        lock(connection)
        target = Target.of(connection)
        program = find_program("pg_restore", max(target.major, manifest.server_major))
        load = Load(manifest, folder, url, program)
        listed = read_listing(program, folder, url)
        wanted = [_named(listed, table) for table in tables]
        _require_schemas(listed, schemas)
        entries, left_out = choose(listed, wanted, schemas, target.schemas)
        require_fitting(connection, manifest, needed_extensions(entries))
        entries = without_extensions(entries, target.lacks(manifest))
        definitions = [one for one in entries if one.is_any(("TABLE ",))]
        chosen = [
            table
            for table in manifest.tables
            if any(one.is_table(table.schema, table.name) for one in definitions)
        ]
        places = [one.place for one in definitions]
        _require_absent(connection, places)
        report = RestoreReport(
            manifest.id, target.database, len(chosen), sum(table.rows for table in chosen)
        )
        report.roles_made = make_roles(connection, (), owners(entries))
        report.notes = (_AS_IT_WAS, *_told(left_out), *not_needed(target, manifest))
        try:
            _load(load, entries, chosen, target, report, say)
        except BaseException:
            _drop(connection, places)
            raise
    return report


def _load(
    load: Load,
    entries: Sequence[Entry],
    chosen: Sequence[TableFacts],
    target: Target,
    report: RestoreReport,
    say: Callable[[str], None],
) -> None:
    schemas, others = split_schemas(entries, target.schemas)
    seconds = report.seconds
    say("Making tables.")
    timed(seconds, "schema", lambda: load.run("pre-data", schemas))
    timed(seconds, "schema", lambda: load.run("pre-data", others))
    say(f"Loading {report.rows:,} rows.")
    timed(seconds, "rows", lambda: load.fill(others, chosen))
    say("Comparing the rows with those of the backup.")
    require_same_rows(chosen, timed(seconds, "checksums", lambda: load.count(chosen)))
    say("Building indexes.")
    timed(seconds, "indexes", lambda: load.index(others))


def _named(listed: Sequence[Entry], name: str) -> tuple[str, str]:
    """Return schema and name of a table that is in the backup."""
    schema, _, table = name.rpartition(".")
    if not any(one.is_table(schema, table) for one in listed):
        raise NotFoundError(
            f"The backup has no table {name}.", fix="Name it with its schema: kb.message."
        )
    return schema, table


def _require_schemas(listed: Sequence[Entry], schemas: Collection[str]) -> None:
    for schema in schemas:
        if not any(one.is_in({schema}) for one in listed):
            raise NotFoundError(f"The backup has nothing in a schema {schema}.")


def _require_absent(connection: psycopg.Connection[Any], places: Sequence[tuple[str, str]]) -> None:
    for schema, name in places:
        named = {"schema": schema, "name": name}
        if connection.execute(_statements("find_relation"), named).fetchone() == (True,):
            raise BackupTargetError(
                f"Table {schema}.{name} is there already: nothing was restored.",
                why="It is in use; or a restore of it was killed, and it is not whole.",
                fix="Restore into another database with --to-url, and copy over what you need.",
            )


def _told(left_out: Sequence[Entry]) -> tuple[str, ...]:
    if not left_out:
        return ()
    named = "; ".join(one.text.rpartition(" ")[0] for one in left_out)
    return (f"Left out, for they need tables that were not asked for: {named}.",)


def _drop(connection: psycopg.Connection[Any], places: Sequence[tuple[str, str]]) -> None:
    if places and not connection.closed:
        names = SQL(", ").join([Identifier(*place) for place in places])
        connection.execute(_statements("drop_tables", tables=names))
