"""The PostgreSQL server that comes in a wheel, so that a first run needs nothing installed.

Several processes share one server: `kb dev` in one terminal, `kb index` in another. Each holds
a shared lock on a file for as long as it uses the server; the kernel drops the lock when the
process ends, however it ends. Who leaves cleanly and finds no other lock stops the server. Who
is killed leaves it running, and the next process joins it and later stops it.

The wheel's own `get_server` is not used: it counts process ids, which come again after a
crash, gives crash recovery ten seconds, and opens every parent folder to everybody's reading.
Everything the server needs is in `<home>/postgres`.
"""

import atexit
import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kb_assets.database.account import embedded_binaries
from kb_assets.database.cluster import Cluster, ServerAddress
from kb_assets.database.provision import provision
from kb_assets.database.successor import settle, version_of
from kb_assets.errors import DatabaseUnavailableError

__all__ = ["ServerAddress", "embedded_binaries", "leave_embedded", "only_user", "start_embedded"]

Major = Literal[16, 18]

NEW_MAJOR: Major = 16
"""The version of PostgreSQL that a new data folder is made with."""


@dataclass(slots=True)
class _Membership:
    """This process's use of one server: a shared lock that lives as long as the process."""

    cluster: Cluster
    lock: int
    owner: int
    options: dict[str, str]


_memberships: dict[Path, _Membership] = {}
_guard = threading.RLock()


def start_embedded(
    home: Path, *, major: Major | None = None, options: Mapping[str, str] | None = None
) -> ServerAddress:
    """Start the embedded server, or join it if another process has.

    Creates what is missing: the data folder, the databases `kb` and `dagster`, the roles and
    the extension. The server is stopped when the last process that uses it ends cleanly.
    Calling it again is cheap, and brings a server back that has died since.

    Args:
        home: The folder of the knowledge base's state; the server lives in `postgres` below it.
        major: The version of PostgreSQL; by default the data folder's own.
        options: Server settings on top of `embedded.conf`; they count when the server is started,
            not when it is joined.

    Raises:
        DatabaseRefusedError: The data folder is of another version, or the server cannot run here.
        DatabaseUnavailableError: The server did not come up; its log's end is in the message.
    """
    home = home.expanduser().resolve()
    with _guard:
        member = _memberships.get(home)
        if member is not None and member.owner == os.getpid():
            chosen = member.options if options is None else dict(options)
        else:
            member, chosen = None, dict(options or {})
        folder = home / "postgres"
        Cluster(folder, NEW_MAJOR).make_folder()
        with _locked(folder / "start.lock"):
            settle(folder)
            cluster = Cluster(folder, major or version_of(folder / "data") or NEW_MAJOR)
            address = cluster.ensure_running(chosen)
            provision(address)
            if member is None:
                lock = _open(cluster.folder / "users.lock")
                fcntl.flock(lock, fcntl.LOCK_SH)
                _memberships[home] = _Membership(cluster, lock, os.getpid(), chosen)
        return address


def leave_embedded(home: Path) -> None:
    """Stop using the server, and stop the server if no other process uses it.

    Called by itself when the process ends. Connections that are still open are cut when the
    server stops.
    """
    with _guard:
        member = _memberships.pop(home.expanduser().resolve(), None)
        if member is None or member.owner != os.getpid() or not member.cluster.folder.is_dir():
            return
        with _locked(member.cluster.folder / "start.lock"):
            os.close(member.lock)
            if _nobody_holds(member.cluster.folder / "users.lock"):
                member.cluster.stop()


@contextmanager
def only_user(home: Path) -> Iterator[Path]:
    """Keep everybody else from the server, and lend its folder.

    Whoever comes meanwhile waits. The server may run all the same: a process that is killed
    leaves it running.

    Raises:
        DatabaseUnavailableError: Other processes use the server.
    """
    leave_embedded(home)
    folder = home.expanduser().resolve() / "postgres"
    with _guard, _locked(folder / "start.lock"):
        if not _nobody_holds(folder / "users.lock"):
            raise DatabaseUnavailableError(
                "Other processes use the embedded server.",
                why="It must be ours alone for this.",
                fix="End `kb dev` and other commands on this knowledge base; then try again.",
            )
        settle(folder)
        yield folder


@atexit.register
def _leave_all() -> None:
    for home in list(_memberships):
        leave_embedded(home)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's lock; whoever starts or stops the server waits here for the others."""
    lock = _open(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _nobody_holds(path: Path) -> bool:
    lock = _open(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)
