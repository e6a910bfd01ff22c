"""The embedded server's next data folder: filled beside the old one, then put in its place.

Nothing here guards against other processes: `embedded` calls it under its lock. So a folder that
is being filled when the lock is free was left by a killed upgrade, and is discarded; one that is
full takes the old one's place, whoever comes first.
"""

import os
from pathlib import Path
from shutil import rmtree

from kb_assets.database.account import ServerAccount, embedded_binaries
from kb_assets.database.cluster import Cluster
from kb_assets.errors import DatabaseUnavailableError, DiskError

_FILLING, _FULL = "filling", "full"


def version_of(data: Path) -> int | None:
    """Return the version of PostgreSQL that made a data folder; None if there is none."""
    try:
        return int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


def settle(folder: Path) -> None:
    """Finish or discard what a killed upgrade left.

    Args:
        folder: Of the embedded server: its data folder is below.
    """
    if (folder / _FILLING).exists():
        # The old server runs for who copies from it: nothing can be written there.
        if (major := version_of(folder / "data")) is not None:
            Cluster(folder, major).stop()
        discard(folder)
    if (folder / _FULL).exists():
        _put_in_place(folder)


def successor(folder: Path, major: int) -> Cluster:
    """Return the server whose data folder is filled."""
    return Cluster(folder / _FILLING, major)


def discard(folder: Path) -> None:
    """Remove a successor, and end its server."""
    filling = folder / _FILLING
    if (major := version_of(filling / "data")) is not None:
        Cluster(filling, major).stop()
    _remove_socket(filling)
    rmtree(filling, ignore_errors=True)


def succeed(folder: Path, major: int) -> Path:
    """Put a full data folder in the old one's place, and return where the old one is kept.

    Both servers must be stopped.

    Raises:
        DatabaseUnavailableError: The successor cannot be written to the disk.
    """
    old = kept(folder)
    filling = folder / _FILLING
    _write_to_disk(filling / "data", major)
    _remove_socket(filling)
    filling.rename(folder / _FULL)
    _sync(folder)
    _put_in_place(folder)
    return old


def kept(folder: Path) -> Path:
    """Return where the present data folder is kept once another one has its place.

    Raises:
        DiskError: Something is there.
    """
    place = folder / f"data.{version_of(folder / 'data')}"
    if place.exists():
        raise DiskError(
            f"{place} is in the way.",
            why="An earlier upgrade left it: the old data folder is kept.",
            fix=f"If it is not needed any more: rm -r {place}",
        )
    return place


def _put_in_place(folder: Path) -> None:
    full, data = folder / _FULL, folder / "data"
    if (full / "data").exists():
        if data.exists():
            data.rename(kept(folder))
            _sync(folder)
        (full / "data").rename(data)
        _sync(folder)
        _sync(full)
    rmtree(full)


def _write_to_disk(data: Path, major: int) -> None:
    """Make sure that all of it outlives a crash of the machine: it was filled without waiting."""
    account = ServerAccount.choose(embedded_binaries(major))
    result = account.run("initdb", "--sync-only", "-D", str(data))
    if result.returncode != 0:
        raise DatabaseUnavailableError(f"{data} cannot be written.", why=result.stdout.strip())


def _remove_socket(folder: Path) -> None:
    """Remove the folder of a socket that lies elsewhere."""
    note = folder / "socket-folder"
    if note.is_file():
        rmtree(note.read_text(), ignore_errors=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
