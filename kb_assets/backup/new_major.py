"""A new major version of the embedded server: by dump and restore, beside the old data folder."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import psycopg

from kb_assets.backup.copying import copy_knowledge_base, copy_other
from kb_assets.backup.scratch import FAST
from kb_assets.database.cluster import ADMINISTRATOR, Cluster, ServerAddress
from kb_assets.database.connect import unavailable_when_lost
from kb_assets.database.embedded import Major, only_user
from kb_assets.database.provision import provision
from kb_assets.database.statements import Statements
from kb_assets.database.successor import discard, kept, succeed, successor, version_of
from kb_assets.errors import DatabaseRefusedError, DiskError
from kb_assets.settings import Settings

_OURS = {"kb", "dagster", "postgres"}

_statements = Statements(Path(__file__).with_name("restoring.sql"))


@dataclass(frozen=True, slots=True)
class NewMajor:
    """A data folder of another version that took the old one's place.

    Attributes:
        before: The version of PostgreSQL that was.
        after: The one that is.
        kept: Where the old data folder is.
        rows: How many rows of the knowledge base were copied.
    """

    before: int
    after: int
    kept: Path
    rows: int


def upgrade_server(
    settings: Settings, major: Major, *, say: Callable[[str], None] = lambda _: None
) -> NewMajor | None:
    """Let another version of PostgreSQL serve a knowledge base; None if it does already.

    Until the last step the old data folder is what it was; killed at any point, the next command
    that starts the server finishes that step, or removes what was begun.

    Args:
        settings: Of a knowledge base with the embedded server, whose schema is this code's.
        major: The version of PostgreSQL.
        say: Told what is being done.

    Raises:
        DatabaseRefusedError: The version is older, or the server has databases of others.
        DatabaseUnavailableError: Other processes use the server, or a server did not start.
        DiskError: There is no room, or an earlier old data folder is in the way.
        BackupCorruptError: The copy is not the same.
    """
    home = settings.home_folder
    with only_user(home) as folder:
        before = version_of(folder / "data")
        if before is None or before == major:
            return None
        if before > major:
            raise DatabaseRefusedError(
                f"The embedded server is PostgreSQL {before} already.",
                why="A database does not go back to an earlier version.",
            )
        kept(folder)
        say(f"Copying the databases from PostgreSQL {before} to {major}.")
        try:
            rows = _fill(settings, folder, before, major, say)
            old = succeed(folder, major)
        except BaseException:
            discard(folder)
            raise
        return NewMajor(before, major, old, rows)


def _fill(
    settings: Settings, folder: Path, before: int, major: int, say: Callable[[str], None]
) -> int:
    """Copy everything from the old server to the new one, and stop both."""
    old, new = Cluster(folder, before), successor(folder, major)
    new.make_folder()
    with ExitStack() as running:
        # A process that was killed may have left it running, with other options.
        old.stop()
        running.callback(old.stop)
        source = old.ensure_running({"default_transaction_read_only": "on"})
        _require_only_ours(source)
        _require_room(source, folder)
        running.callback(new.stop)
        target = new.ensure_running(FAST)
        provision(target)
        # Within what is removed if we are killed.
        dumps = new.folder / "dumps"
        files = dumps / "kb"
        files.mkdir(parents=True, mode=0o700)
        copy_other(_url(source, "dagster"), _url(target, "dagster"), dumps)
        rows = copy_knowledge_base(_url(source, "kb"), _url(target, "kb"), files, settings, say=say)
        rmtree(dumps)
        return rows


def _url(address: ServerAddress, database: str) -> str:
    return address.url(database, ADMINISTRATOR)


def _require_only_ours(address: ServerAddress) -> None:
    names = {name for (name,) in _rows(address, "find_databases")}
    if others := sorted(names - _OURS):
        raise DatabaseRefusedError(
            f"The embedded server has databases that are not its own: {', '.join(others)}.",
            why="They would be left behind.",
            fix="Dump and drop them first, or drop them if they are not needed.",
        )


def _require_room(address: ServerAddress, folder: Path) -> None:
    """Make sure that the disk has room for a dump and a second data folder."""
    ((size,),) = _rows(address, "measure_databases")
    needed, free = 2 * int(size), shutil.disk_usage(folder).free
    if free < needed:
        raise DiskError(
            "There is no room for a second data folder.",
            why=f"It may take {needed:,} bytes with the dump; {free:,} are free.",
            fix="Make room on the disk of the knowledge base's home.",
        )


def _rows(address: ServerAddress, statement: str) -> list[tuple[Any, ...]]:
    with (
        unavailable_when_lost(),
        psycopg.connect(_url(address, "postgres"), autocommit=True) as connection,
    ):
        return connection.execute(_statements(statement)).fetchall()
