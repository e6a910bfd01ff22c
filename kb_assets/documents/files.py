"""Documents in a folder.

What is listed is decided by names and `stat` alone; nothing is opened until it is read.

- A file that is a symbolic link is followed if it leads to a file inside the root.
  Folders that are symbolic links are never followed, so there are no loops.
- The root is resolved once; what is read lies beneath it (`beneath.py`).
- A listing is whole or it fails: a folder that cannot be read must not look as if its
  documents had been deleted.
- A version token is size, modification and change time, and inode. Within two seconds of
  a change another could leave all four as they are, so such a file has no token.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

from kb_assets.documents.beneath import Beneath, unavailable, version
from kb_assets.documents.patterns import Patterns
from kb_assets.documents.refusals import blame_sidecar, refusal
from kb_assets.documents.sidecar import MAX_METADATA_BYTES, SUFFIX, joint_token
from kb_assets.documents.source import Content, Entry
from kb_assets.errors import DocumentError, SourceError, SourceUnavailableError

MAX_PATH_BYTES = 2000
"""Paths are looked up in indexes, whose keys must be short; a longer one is listed shortened."""

_NAME = attrgetter("name")
_RACY_NS = 2_000_000_000
_PATH_TOO_LONG = "path_too_long"
_SHOWN_BYTES = 150


class LocalFolder:
    """A folder, with everything below it that its patterns mean.

    Attributes:
        root: The folder, absolute and free of symbolic links.
    """

    def __init__(
        self,
        root: Path,
        patterns: Patterns,
        *,
        max_document_bytes: int,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take a folder as a source; nothing in it is looked at yet.

        Args:
            root: The folder.
            patterns: Which paths in it are documents.
            max_document_bytes: Larger documents are refused before they are read.
            clock: The time now, in nanoseconds since 1970.
        """
        self.root = os.path.realpath(root)
        self._inside = self.root.rstrip("/") + "/"
        self._beneath = Beneath(self.root)
        self._patterns = patterns
        self._max_bytes = max_document_bytes
        self._clock = clock

    def entries(self) -> Iterator[Entry]:
        """List the documents, folder by folder; see `DocumentSource.entries`."""
        now = self._clock()
        _require_folder(self.root)
        folders = [""]
        while folders:
            above = folders.pop()
            files: dict[str, os.DirEntry[str]] = {}
            for item in self._scan(above):
                if not _is_folder(item):
                    files[item.name] = item
                elif self._patterns.enter(above + item.name):
                    folders.append(f"{above}{item.name}/")
            yield from self._documents(above, files, now)

    def read(self, entry: Entry) -> Content:
        """Read one document; see `DocumentSource.read`."""
        if entry.problem == _PATH_TOO_LONG:
            raise DocumentError(
                _PATH_TOO_LONG,
                f"{entry.path} stands for a path that is too long.",
                why=f"Below the source's folder, {MAX_PATH_BYTES:,} bytes are allowed.",
                fix="Rename the document or its folders, or exclude it.",
            )
        if entry.problem is not None:
            raise refusal(entry.problem, entry.path)
        now = self._clock()
        content, status = self._beneath.read_file(entry.path, self._max_bytes)
        token = status and _token(status, now)
        if entry.sidecar is None:
            return Content(content, None, token)
        try:
            beside, status = self._beneath.read_file(entry.sidecar, MAX_METADATA_BYTES)
        except DocumentError as error:
            if error.reason == "vanished_while_reading":
                return Content(content, None, token)
            raise blame_sidecar(error, entry.path) from error
        return Content(content, beside, joint_token(token, status and _token(status, now)))

    def _scan(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._inside + folder) as items:
                return sorted(items, key=_NAME)
        except OSError as error:
            if not folder and isinstance(error, PermissionError):
                raise _not_ours(self.root, error) from error
            where = os.fsencode(self._inside + folder).decode(errors="backslashreplace")
            raise SourceUnavailableError(
                f"The folder {where} could not be listed to the end.",
                why=f"{error.strerror}; without it, its documents would look deleted.",
                fix="Make it readable or exclude it, and try again.",
            ) from error

    def _documents(
        self, above: str, files: dict[str, os.DirEntry[str]], now: int
    ) -> Iterator[Entry]:
        want = self._patterns.want
        for name, item in files.items():
            path = above + name
            if name.endswith(SUFFIX) or not want(path):
                continue
            status = self._status(path, item)
            if status is not None:
                entry = _entry(path, status, now)
                beside = files.get(name + SUFFIX)
                yield entry if beside is None else self._with_sidecar(entry, beside, now)

    def _with_sidecar(self, entry: Entry, item: os.DirEntry[str], now: int) -> Entry:
        path = entry.path + SUFFIX
        status = None if entry.problem else self._status(path, item)
        if status is None:
            return entry
        if isinstance(status, str):
            return Entry(entry.path, None, entry.size_bytes, path, f"sidecar_{status}")
        token = joint_token(entry.token, _token(status, now))
        return Entry(entry.path, token, entry.size_bytes, path)

    def _status(self, path: str, item: os.DirEntry[str]) -> os.stat_result | str | None:
        """Return the state of a file, why it is none, or None if it is to be passed over."""
        try:
            if item.is_symlink():
                return self._status_behind_link(path)
            status = item.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        except PermissionError:
            return "unreadable"
        except OSError as error:
            raise unavailable(path, error) from error
        return status if stat.S_ISREG(status.st_mode) else "not_a_file"

    def _status_behind_link(self, path: str) -> os.stat_result | str | None:
        target = os.path.realpath(self._inside + path)
        if not target.startswith(self._inside):
            return None if os.path.isdir(target) else "outside_root"  # noqa: PTH112
        try:
            status = os.lstat(target)
        except FileNotFoundError:
            return "broken_link"
        if stat.S_ISREG(status.st_mode):
            return status
        if stat.S_ISDIR(status.st_mode):
            return None
        return "broken_link" if stat.S_ISLNK(status.st_mode) else "not_a_file"


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _entry(path: str, status: os.stat_result | str, now: int) -> Entry:
    if isinstance(status, os.stat_result) and len(path) <= MAX_PATH_BYTES and path.isascii():
        return Entry(path, _token(status, now), status.st_size)
    # No other path in a listing starts with "./", so those cannot be taken for another.
    raw = os.fsencode(path)
    escaped = raw.decode(errors="backslashreplace")
    if len(escaped.encode()) > MAX_PATH_BYTES:
        start = escaped.encode()[:_SHOWN_BYTES].decode(errors="ignore")
        digest = hashlib.sha256(raw).hexdigest()
        return Entry(f"./{start}…{digest}", None, 0, problem=_PATH_TOO_LONG)
    try:
        path.encode()
    except UnicodeEncodeError:
        return Entry(f"./{escaped}", None, 0, problem="name_not_utf8")
    if isinstance(status, str):
        return Entry(path, None, 0, problem=status)
    return Entry(path, _token(status, now), status.st_size)


def _token(status: os.stat_result, now: int) -> str | None:
    just_written = abs(now - status.st_mtime_ns) < _RACY_NS
    return None if just_written or status.st_ctime_ns > now - _RACY_NS else version(status)


def _require_folder(root: str) -> None:
    try:
        mode = os.stat(root).st_mode  # noqa: PTH116
    except FileNotFoundError as error:
        raise SourceError(
            f"The source's folder {root} does not exist.",
            why="Either `uri` in kb.toml is wrong, or a disk is not mounted.",
            fix="Correct the uri, which starts from the folder of kb.toml, or mount the disk.",
        ) from error
    except PermissionError as error:
        raise _not_ours(root, error) from error
    except OSError as error:
        raise unavailable(root, error) from error
    if not stat.S_ISDIR(mode):
        raise SourceError(
            f"The source {root} is not a folder.",
            why="A source of files is a folder and all below it.",
            fix="Name the file's folder as `uri`, and the file in `include`.",
        )


def _not_ours(root: str, error: OSError) -> SourceError:
    return SourceError(
        f"The source's folder {root} may not be read.",
        why=str(error.strerror),
        fix="Let the user that runs this read and enter it.",
    )
