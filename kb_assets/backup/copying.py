"""Databases from one server to another: copied, and compared before anybody relies on the copy."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from kb_assets.backup.compare import compare
from kb_assets.backup.contents import count_tables
from kb_assets.backup.dump import dump
from kb_assets.backup.loading import JOBS, require_same_rows
from kb_assets.backup.manifest import TableFacts
from kb_assets.backup.programs import find_program, run_program
from kb_assets.backup.restore import restore
from kb_assets.backup.snapshot import open_snapshot
from kb_assets.backup.stage import draft_manifest
from kb_assets.errors import BackupCorruptError
from kb_assets.settings import Settings


def copy_knowledge_base(
    from_url: str,
    to_url: str,
    folder: Path,
    settings: Settings,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Copy a knowledge base's database, and return how many rows it has.

    Args:
        from_url: The database, as a role that sees every row.
        to_url: An empty one, as an administrator.
        folder: Empty; it is filled with as much as a backup has.
        settings: Which questions both are asked.
        say: Told what is being done.

    Raises:
        BackupCorruptError: The copy is not the same.
        KbError: A step failed.
    """
    began = datetime.now(UTC)
    with open_snapshot(from_url) as snapshot:
        dumped = dump(snapshot, folder, settings)
        manifest = draft_manifest("copy", began, snapshot.taken_at, dumped.contents)
    restore(manifest, folder, to_url, say=say)
    say("Comparing the copy with the original.")
    found = compare(manifest, folder, to_url, is_copy=True)
    if found.failures:
        raise BackupCorruptError("The copy is not the same.", why=" ".join(found.failures))
    return manifest.rows


def copy_other(from_url: str, to_url: str, folder: Path) -> None:
    """Copy a database that is none of a knowledge base's, such as Dagster's.

    Args:
        from_url: The database, which nobody changes meanwhile, as a role that sees every row.
        to_url: An empty one, as an administrator.
        folder: Where its dump goes.

    Raises:
        BackupCorruptError: The copy has other rows.
        KbError: A step failed.
    """
    major, expected = _counted(from_url)
    place = folder / "other"
    common = (f"--jobs={JOBS}", "--format=directory")
    run_program(
        find_program("pg_dump", major),
        (*common, "--compress=gzip:1", "--no-sync", f"--file={place}"),
        from_url,
    )
    target, _ = _counted(to_url)
    run_program(
        find_program("pg_restore", target), (*common, "--exit-on-error", str(place)), to_url
    )
    require_same_rows(expected, _counted(to_url)[1])


def _counted(url: str) -> tuple[int, tuple[TableFacts, ...]]:
    """Return the server's version, and what each table holds."""
    with open_snapshot(url) as snapshot:
        major = snapshot.connection.info.server_version // 10000
        return major, count_tables(snapshot, snapshot.tables)
