"""Opening files beneath a folder, and nowhere else, whatever is swapped while we look.

Every part of a path is opened from the one before it, without following a link. A link in
the last place is resolved, and what it leads to is opened in the same manner.
"""

import errno
import os
import stat

from kb_assets.documents.refusals import refusal, too_large
from kb_assets.errors import DocumentError, SourceUnavailableError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_READ_BYTES = 1024 * 1024

_NOT_THIS_FILE_ALONE = frozenset(
    (
        *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ENODEV),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    )
)


def version(status: os.stat_result) -> str:
    """Return what changes, two seconds after a change at the latest, when a file changes."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


class Beneath:
    """Reads files beneath a folder, one after the other.

    The folder of the last file stays open: what is read next mostly lies beside it. Should it be
    moved meanwhile, files are read in it where it stands then; a path is never followed there.
    """

    def __init__(self, root: str) -> None:
        """Take a folder, absolute and free of links; it is not opened yet."""
        self._root = root
        self._above: _Folder | None = None

    def read_file(self, path: str, limit: int) -> tuple[bytes, os.stat_result | None]:
        """Read a file.

        Args:
            path: The file's path beneath the folder.
            limit: The most bytes it may have; a file known to have more is not read.

        Returns:
            Its bytes, and its state; None for the state if it changed while it was read.

        Raises:
            DocumentError: It is gone, no file, too large, not ours to read, or outside the folder.
            SourceUnavailableError: The folder is gone, or cannot be reached.
        """
        try:
            file = self._open(path)
            try:
                return _read(file, path, limit)
            finally:
                os.close(file)
        except OSError as error:
            raise _cannot_open(path, error) from error

    def _open(self, path: str) -> int:
        try:
            return self._open_below(path)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            inside = self._root.rstrip("/") + "/"
            target = os.path.realpath(inside + path)
            if not target.startswith(inside):
                raise refusal("outside_root", path) from error
            return self._open_below(target.removeprefix(inside))

    def _open_below(self, path: str) -> int:
        """Open a file, following no link in any part of the path."""
        above, _, name = path.rpartition("/")
        if self._above is None or self._above.path != above:
            if not {"", ".", ".."}.isdisjoint(path.split("/")):
                raise refusal("outside_root", path)
            self._above = _Folder(self._root, above)
        elif name in ("", ".", ".."):
            raise refusal("outside_root", path)
        return os.open(name, _FILE, dir_fd=self._above.descriptor)


class _Folder:
    """A folder that is open for as long as this is referred to."""

    def __init__(self, root: str, path: str) -> None:
        self.path = path
        try:
            self.descriptor = os.open(root, _FOLDER)
        except OSError as error:
            raise unavailable(root, error) from error
        for part in path.split("/") if path else ():
            above = self.descriptor
            self.descriptor = os.open(part, _FOLDER, dir_fd=above)
            os.close(above)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _read(file: int, path: str, limit: int) -> tuple[bytes, os.stat_result | None]:
    before = os.fstat(file)
    if not stat.S_ISREG(before.st_mode):
        raise refusal("not_a_file", path)
    if before.st_size > limit:
        raise too_large(path, before.st_size, limit)
    content = _read_to_end(file, before.st_size, limit + 1)
    after = os.fstat(file)
    if max(len(content), after.st_size) > limit:
        raise too_large(path, max(len(content), after.st_size), limit)
    same = version(before) == version(after) and len(content) == after.st_size
    return content, after if same else None


def unavailable(path: str, error: OSError) -> SourceUnavailableError:
    """Return the error for a place that may be reached later."""
    return SourceUnavailableError(
        f"{path} cannot be reached.", why=str(error.strerror), fix="Try again."
    )


def _read_to_end(file: int, size: int, most: int) -> bytes:
    """Read a file that had so many bytes a moment ago: in one call, if it still has."""
    content = os.read(file, min(size + 1, most))
    if len(content) == size:
        return content
    parts = [content]
    most -= len(content)
    while most > 0 and (part := os.read(file, min(most, _READ_BYTES))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _cannot_open(path: str, error: OSError) -> DocumentError | SourceUnavailableError:
    if error.errno in _NOT_THIS_FILE_ALONE:
        return unavailable(path, error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return refusal("vanished_while_reading", path)
    reason = "not_a_file" if error.errno == errno.ENXIO else "unreadable"
    return refusal(reason, path, str(error.strerror))
