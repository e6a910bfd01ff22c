"""The objects of a backup: files are cut, hashed and put; read, compared and made whole again."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, TypeVar

from kb_assets.backup.manifest import FileFacts, Piece
from kb_assets.errors import DiskError, NotFoundError
from kb_assets.object_store import ObjectStore

PIECE_BYTES = 32 * 1024 * 1024
"""How large an object is at most: two are on their way at a time, and are mapped to memory."""

Watch = Callable[[int, int], None]
"""Told how many bytes were read, and of how many."""

_AT_ONCE = 2
_READ_BYTES = 1024 * 1024
_SAFE_NAME = re.compile(r"(?!\.{1,2}(/|$))[^/\\\0]+(/(?!\.{1,2}(/|$))[^/\\\0]+)*")

Item = TypeVar("Item")
Result = TypeVar("Result")


def unwatched(_done: int, _total: int) -> None:
    """Take no note of progress."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of a file before it is put.

    Attributes:
        key: What it will be called.
        file: The file.
        start: Where in it the piece begins.
        size: How many bytes it has.
    """

    key: str
    file: Path
    start: int
    size: int


def cut_files(folder: Path, backup_id: str) -> dict[str, tuple[Cut, ...]]:
    """Return the pieces of every file below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): _cut(file, folder, backup_id) for file in files}


def _cut(file: Path, folder: Path, backup_id: str) -> tuple[Cut, ...]:
    size = file.stat().st_size
    starts = range(0, size, PIECE_BYTES) or range(1)
    keys = piece_keys(backup_id, file.relative_to(folder).as_posix(), len(starts))
    return tuple(
        Cut(key, file, start, min(PIECE_BYTES, size - start))
        for key, start in zip(keys, starts, strict=True)
    )


def piece_keys(backup_id: str, name: str, pieces: int) -> list[str]:
    """Return what a file's pieces are called."""
    if pieces == 1:
        return [f"{backup_id}/{name}"]
    return [f"{backup_id}/{name}.{number:03d}" for number in range(pieces)]


def is_sound(backup_id: str, files: Sequence[FileFacts]) -> bool:
    """Say whether files are called what `cut_files` calls them, each its own way.

    Who writes them to a folder writes nowhere else, and who deletes them deletes nothing else.
    """
    names = {file.name for file in files}
    return len(names) == len(files) and all(
        _SAFE_NAME.fullmatch(file.name)
        and [piece.key for piece in file.pieces]
        == piece_keys(backup_id, file.name, len(file.pieces))
        and all(piece.object_bytes >= 0 for piece in file.pieces)
        for file in files
    )


def put_pieces(store: ObjectStore, files: dict[str, tuple[Cut, ...]]) -> tuple[FileFacts, ...]:
    """Put the pieces of files, and return what was put.

    Raises:
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached, or broke off.
        DiskError: A file cannot be read.
    """

    def put(cut: Cut) -> Piece:
        digest = _hash(cut)
        store.put_file(cut.key, cut.file, digest, start=cut.start, size=cut.size)
        return Piece(cut.key, cut.size, digest.hex())

    put_ones = iter(list(at_once(put, [cut for cuts in files.values() for cut in cuts])))
    return tuple(
        FileFacts(name, tuple(next(put_ones) for _ in cuts)) for name, cuts in files.items()
    )


def _hash(cut: Cut) -> bytes:
    digest, left = sha256(), cut.size
    with disk(cut.file.parent), cut.file.open("rb") as source:
        source.seek(cut.start)
        while chunk := source.read(min(left, _READ_BYTES)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.digest()


def read_pieces(
    store: ObjectStore, files: Sequence[FileFacts], folder: Path | None, watch: Watch
) -> tuple[str, ...]:
    """Read every byte of files, and return how they differ from what they should be.

    Args:
        store: Where they lie.
        files: What they should be.
        folder: Where they are written to; None only looks.
        watch: Told of every piece.

    Raises:
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached, or broke off.
        DiskError: The folder cannot be written to.
    """
    work = [
        _Reading(store, file.name, piece, _target(folder, file), start)
        for file in files
        for piece, start in zip(file.pieces, _starts(file), strict=True)
    ]
    done, problems = 0, list[str]()
    total = sum(one.piece.object_bytes for one in work)
    for one, problem in zip(work, at_once(_Reading.read, work), strict=True):
        done += one.piece.object_bytes
        watch(done, total)
        if problem:
            problems.append(problem)
    return tuple(problems)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A piece that is read, and where it goes to."""

    store: ObjectStore
    name: str
    piece: Piece
    target: Path | None
    start: int

    def read(self) -> str:
        """Return what is wrong with it; nothing if it is right."""
        if self.target is None:
            return self._copy(None)
        with disk(self.target.parent), self.target.open("r+b") as target:
            target.seek(self.start)
            return self._copy(target)

    def _copy(self, target: BinaryIO | None) -> str:
        wanted, url = self.piece.object_bytes, self.store.url(self.piece.key)
        digest, size = sha256(), 0
        try:
            for chunk in self.store.stream(self.piece.key):
                size += len(chunk)
                if size > wanted:
                    return f"{self.name}: {url} has more than {wanted:,} bytes."
                digest.update(chunk)
                if target is not None:
                    target.write(chunk)
        except NotFoundError:
            return f"{self.name}: {url} is missing."
        if size != wanted:
            return f"{self.name}: {url} has {size:,} bytes, not {wanted:,}."
        if digest.hexdigest() != self.piece.sha256:
            return f"{self.name}: {url} holds other bytes; their SHA-256 is {digest.hexdigest()}."
        return ""


def _starts(file: FileFacts) -> list[int]:
    starts = [0]
    for piece in file.pieces[:-1]:
        starts.append(starts[-1] + piece.object_bytes)
    return starts


def _target(folder: Path | None, file: FileFacts) -> Path | None:
    """Make an empty file of the right size, which pieces are written to in any order."""
    if folder is None:
        return None
    target = folder / file.name
    with disk(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as made:
            made.truncate(file.file_bytes)
    return target


def at_once(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Do something with items, two at a time, and return the results in order.

    After an error nothing more is begun.
    """
    failures = list[Exception]()

    def begin(item: Item) -> Result:
        if failures:
            raise failures[0]
        try:
            return work(item)
        except Exception as error:
            failures.append(error)
            raise

    with ThreadPoolExecutor(_AT_ONCE, "backup-place") as pool:
        yield from pool.map(begin, items)


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Turn what the system says of a file into what a user can do.

    Raises:
        DiskError: Always, when the system refuses.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"The files of a backup cannot be written to or read from {folder}.",
            why=str(error),
            fix="See that the disk has room for a backup, and that the folder is ours.",
        ) from error
