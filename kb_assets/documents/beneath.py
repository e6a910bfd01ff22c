"""Opening files beneath a folder, and nowhere else, whatever is swapped while we look.

Every part of a path is opened from the one before it, without following a link. A link in
the last place is resolved, and what it leads to is opened in the same manner.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

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


def read_file(root: str, path: str, limit: int) -> tuple[bytes, os.stat_result | None]:
    """Read a file beneath a folder.

    Args:
        root: The folder, absolute and free of links.
        path: The file's path beneath it.
        limit: The most bytes it may have; a file known to have more is not read.

    Returns:
        Its bytes, and its state; None for the state if it changed while it was read.

    Raises:
        DocumentError: It is gone, no file, too large, not ours to read, or outside the folder.
        SourceUnavailableError: The folder is gone, or cannot be reached.
    """
    with _opened(root, path) as file:
        before = os.fstat(file)
        if not stat.S_ISREG(before.st_mode):
            raise refusal("not_a_file", path)
        if before.st_size > limit:
            raise too_large(path, before.st_size, limit)
        content = _read_to_end(file, limit + 1)
        after = os.fstat(file)
    if len(content) > limit:
        raise too_large(path, len(content), limit)
    same = version(before) == version(after) and len(content) == after.st_size
    return content, after if same else None


def unavailable(path: str, error: OSError) -> SourceUnavailableError:
    """Return the error for a place that may be reached later."""
    return SourceUnavailableError(
        f"{path} cannot be reached.", why=str(error.strerror), fix="Try again."
    )


@contextmanager
def _opened(root: str, path: str) -> Iterator[int]:
    try:
        file = _open(root, path)
    except OSError as error:
        raise _cannot_open(path, error) from error
    try:
        yield file
    except OSError as error:
        raise _cannot_open(path, error) from error
    finally:
        os.close(file)


def _open(root: str, path: str) -> int:
    try:
        folder = os.open(root, _FOLDER)
    except OSError as error:
        raise unavailable(root, error) from error
    try:
        return _open_below(folder, path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        inside = root.rstrip("/") + "/"
        target = os.path.realpath(inside + path)
        if not target.startswith(inside):
            raise refusal("outside_root", path) from error
        return _open_below(folder, target.removeprefix(inside))
    finally:
        os.close(folder)


def _open_below(root: int, path: str) -> int:
    """Open a file below a folder, following no link in any part of the path."""
    *folders, name = parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        raise refusal("outside_root", path)
    opened: list[int] = []
    try:
        for folder in folders:
            above = opened[-1] if opened else root
            opened.append(os.open(folder, _FOLDER, dir_fd=above))
        return os.open(name, _FILE, dir_fd=opened[-1] if opened else root)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _read_to_end(file: int, most: int) -> bytes:
    parts: list[bytes] = []
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
