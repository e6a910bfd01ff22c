"""Files that are written whole or not at all, and outlast the machine's going down."""

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Slice:
    """Some bytes of a file.

    Attributes:
        file: The file.
        start: Where they begin.
        size: How many there are.
    """

    file: Path
    start: int
    size: int


def write(folder: Path, key: str, content: Slice | bytes) -> None:
    """Write a file that is there whole or not at all, even if the machine goes down."""
    target = folder / key
    make(target.parent)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                _copy(content, file)
            file.flush()
            os.fsync(file.fileno())
        target.hardlink_to(part)
    finally:
        part.unlink(missing_ok=True)
    _sync(target.parent)


def _copy(content: Slice, target: BinaryIO) -> None:
    left = content.size
    with content.file.open("rb") as source:
        source.seek(content.start)
        while chunk := source.read(min(left, CHUNK_BYTES)):
            target.write(chunk)
            left -= len(chunk)


def is_part(key: str) -> bool:
    """Say whether it is what `write` has not finished."""
    name = key.rpartition("/")[2]
    return name.startswith(".") and name.endswith(".part")


def remove_parts(target: Path) -> None:
    """Remove what killed processes left of a file that they were writing."""
    for part in target.parent.glob(f".{target.name}.*.part"):
        part.unlink(missing_ok=True)


def remove_empty(folder: Path) -> None:
    """Remove a folder and those below it, as far as they hold nothing."""
    for name, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(name).rmdir()


def make(folder: Path) -> None:
    """Make a folder and those above it, so that they outlast the machine's going down."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
