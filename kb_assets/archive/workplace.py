"""Folders for files in work: each run has its own, and none outlives its run for long."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from kb_assets.errors import DiskError


@contextmanager
def workplace(home: Path, name: str, *, who: str = "archive") -> Iterator[Path]:
    """Lend an empty folder, which is gone afterwards; see `remove_abandoned`.

    Args:
        home: The knowledge base's home.
        name: What the folder's name begins with.
        who: Who works there: what is left is removed by who comes next of the same.

    Raises:
        DiskError: It cannot be made.
    """
    root = _root(home, who)
    with _disk(root, who):
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            _sweep(root)
            folder = Path(mkdtemp(prefix=f"{name}-", dir=root))
            held = _lock(folder, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
        os.close(held)


def remove_abandoned(home: Path, *, who: str = "archive") -> None:
    """Remove the folders of runs that were killed: they hold what is in the database.

    A folder is locked for as long as its run lives, whatever becomes of its lease.

    Raises:
        DiskError: The folder of folders cannot be read.
    """
    root = _root(home, who)
    if root.exists():
        with _disk(root, who), _locked(root):
            _sweep(root)


def _root(home: Path, who: str) -> Path:
    return home / f"{who}-work"


def _sweep(root: Path) -> None:
    for folder in root.iterdir():
        try:
            held = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        rmtree(folder, ignore_errors=True)
        os.close(held)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    held = _lock(root, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(held)


def _lock(folder: Path, kind: int) -> int:
    """Return the open folder, locked until it is closed."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, kind)
    except OSError:
        os.close(handle)
        raise
    return handle


@contextmanager
def _disk(root: Path, who: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"The {who} cannot work in {root}.",
            why=str(error),
            fix="See that the disk of the knowledge base's home has room, and that it is ours.",
        ) from error
