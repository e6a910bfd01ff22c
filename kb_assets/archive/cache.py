"""Objects of the archive on this machine: proven each time they are handed out, and bounded.

Several processes may use the folder at once. A file in use is locked, and what is locked is not
removed; who takes, adds or removes a file holds the folder's own lock for that moment.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import file_digest
from io import BufferedReader
from pathlib import Path

from kb_assets.archive.manifest import ObjectFacts
from kb_assets.errors import ArchiveCorruptError, DiskError, NotFoundError
from kb_assets.object_store import ObjectStore

_ABANDONED_SECONDS = 3600
"""A file that nothing was written to for so long will not be finished."""


class ObjectCache:
    """A folder of objects, named by their SHA-256."""

    def __init__(self, folder: Path, store: ObjectStore, most_bytes: int) -> None:
        """Remember where it is; nothing is made yet.

        Args:
            folder: The folder.
            store: Where the objects come from.
            most_bytes: How much is kept when nobody uses it.
        """
        self._folder = folder
        self._store = store
        self._most_bytes = most_bytes

    @contextmanager
    def borrow(self) -> Iterator["Borrowed"]:
        """Lend files for as long as the context lasts; then the cache is cut to its size.

        Raises:
            DiskError: The folder cannot be written.
        """
        with self._disk():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with ExitStack() as held:
                yield Borrowed(self, held)
        finally:
            with self._disk():
                self._make_room(0)

    def take(self, facts: ObjectFacts) -> BufferedReader | None:
        """Return an object's file, open and locked, if it is here and what it must be."""
        with self._disk():
            try:
                with self._locked():
                    held = self.path(facts).open("rb")
                    fcntl.flock(held, fcntl.LOCK_SH)
            except FileNotFoundError:
                return None
            os.utime(held.fileno())
            return _proven(held, facts)

    def fetch(self, facts: ObjectFacts) -> BufferedReader:
        """Return an object's file, open and locked, after it was fetched and proven.

        Raises:
            ArchiveCorruptError: The object is gone, or not what it must be.
            DiskError: The file cannot be written, or reads as something else.
        """
        part = self._folder / f"{uuid.uuid4().hex}.part"
        try:
            with self._disk():
                self._make_room(facts.object_bytes)
                self._download(facts, part)
                held = part.open("rb")
                with self._locked():
                    fcntl.flock(held, fcntl.LOCK_SH)
                    part.replace(self.path(facts))
                if _proven(held, facts) is None:
                    raise OSError(f"{self.path(facts)} does not hold what was written to it.")
                return held
        finally:
            part.unlink(missing_ok=True)

    def remove(self, facts: ObjectFacts) -> None:
        """Remove an object's file, if it is here and nobody is using it.

        Raises:
            DiskError: The file cannot be removed.
        """
        self._remove(lambda file: file == self.path(facts))

    def keep_only(self, archived: Iterable[ObjectFacts]) -> None:
        """Remove the files of all other objects: of what was replaced, maybe by an erasure.

        Raises:
            DiskError: A file cannot be removed.
        """
        kept = {self.path(facts) for facts in archived}
        self._remove(lambda file: file not in kept)

    def _remove(self, is_unwanted: Callable[[Path], bool]) -> None:
        with self._disk():
            if self._folder.exists():
                with self._locked():
                    for file in self._folder.glob("*.parquet"):
                        if is_unwanted(file) and _is_free(file):
                            file.unlink()

    def path(self, facts: ObjectFacts) -> Path:
        """Return where an object's file is, if it is here."""
        return self._folder / f"{facts.sha256.hex()}.parquet"

    def _download(self, facts: ObjectFacts, part: Path) -> None:
        try:
            found = self._store.fetch(facts.object_key, part)
        except NotFoundError as error:
            raise self._corrupt(facts, "It is not there.") from error
        if found != (facts.object_bytes, facts.sha256):
            raise self._corrupt(facts, f"It has {found[0]:,} bytes, SHA-256 {found[1].hex()}.")

    def _make_room(self, needed: int) -> None:
        """Remove what was used least recently, until there is room; nothing that is in use."""
        with self._locked():
            for part in self._folder.glob("*.part"):
                with suppress(FileNotFoundError):
                    if part.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                        part.unlink()
            files = [(file.stat(), file) for file in self._folder.glob("*.parquet")]
            held = needed + sum(about.st_size for about, _ in files)
            for about, file in sorted(files, key=lambda one: one[0].st_mtime_ns):
                if held <= self._most_bytes:
                    break
                if _is_free(file):
                    file.unlink()
                    held -= about.st_size

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DiskError(
                f"The archive's cache {self._folder} cannot be used.",
                why=str(error),
                fix="See that the disk has room, and that the folder is ours.",
            ) from error

    def _corrupt(self, facts: ObjectFacts, why: str) -> ArchiveCorruptError:
        return ArchiveCorruptError(
            f"{self._store.url(facts.object_key)} is not what its manifest says.",
            why=f"{why} It must have {facts.object_bytes:,} bytes, SHA-256 {facts.sha256.hex()}.",
            fix="Bring the object back from a copy of the store; `kb archive verify` looks at all.",
        )


class Borrowed:
    """Files of a cache, in use by one query.

    Attributes:
        fetched: How many objects had to be fetched.
    """

    def __init__(self, cache: ObjectCache, held: ExitStack) -> None:
        self._cache = cache
        self._held = held
        self._used: set[bytes] = set()
        self.fetched = 0

    @property
    def used(self) -> int:
        """How many objects there are in all."""
        return len(self._used)

    def files(self, wanted: Iterable[ObjectFacts]) -> list[Path]:
        """Return the files of objects, which are proven, and stay until they are given back.

        Raises:
            ArchiveCorruptError: An object is gone, or not what it must be.
            ObjectStoreUnavailableError: The store cannot be reached.
            DiskError: A file cannot be written here.
        """
        facts = list(wanted)
        # First all that are here, so that none of them makes room for another.
        missing = [one for one in facts if not self._keep(one, self._cache.take)]
        for one in missing:
            self._keep(one, self._cache.fetch)
        self.fetched += len(missing)
        return [self._cache.path(one) for one in facts]

    def _keep(
        self, facts: ObjectFacts, get: Callable[[ObjectFacts], BufferedReader | None]
    ) -> bool:
        if facts.sha256 in self._used:
            return True
        held = get(facts)
        if held is None:
            return False
        self._held.enter_context(held)
        self._used.add(facts.sha256)
        return True


def _proven(held: BufferedReader, facts: ObjectFacts) -> BufferedReader | None:
    """Return the file if it is what it must be, else close it."""
    if file_digest(held, "sha256").digest() == facts.sha256:
        return held
    held.close()
    return None


def _is_free(file: Path) -> bool:
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
