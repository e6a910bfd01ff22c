"""One data folder of the embedded server: make it, start it, see whether it runs, stop it.

Nothing here guards against other processes: `embedded` calls it under a lock.
"""

import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psutil

from kb_assets.database.account import ServerAccount, embedded_binaries, shared_memory_type
from kb_assets.errors import DatabaseRefusedError, DatabaseUnavailableError

PORT = 5432
"""Only part of the socket's name; nothing listens on the network."""

ADMINISTRATOR = "postgres"
"""The superuser; used to provision databases and roles, and for nothing else."""

RECOVERY_SECONDS = 24 * 3600
"""How long a start may take: recovery after a crash is bounded by the WAL, not by a clock."""

_SOCKET_PATH_BYTES = 103
_SETTINGS = Path(__file__).with_name("embedded.conf")
_log = logging.getLogger(__name__)

State = Literal["ready", "starting", "stopping"]
_STATES: dict[str, State] = {"ready": "ready", "stopping": "stopping"}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server's socket is."""

    socket_folder: Path

    def url(self, database: str, user: str) -> str:
        """Return the URL of one of the server's databases for one of its roles."""
        host = quote(str(self.socket_folder), safe="/")
        return f"postgresql://{quote(user)}@/{quote(database)}?host={host}&port={PORT}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data folder and what belongs to it.

    Attributes:
        folder: Holds `data`, `log`, the socket and the lock files.
        major: The version of PostgreSQL.
    """

    folder: Path
    major: int

    @property
    def data(self) -> Path:
        """The data folder proper."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self.folder / "log" / "server.log"

    def make_folder(self) -> None:
        """Create the folder that holds everything, closed to other accounts.

        Raises:
            DatabaseRefusedError: It cannot be created, or is another account's.
        """
        # As root, the server's own account must pass through it.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=mode)
        except OSError as error:
            raise DatabaseRefusedError(
                f"{self.folder} cannot be created.", why=str(error), fix="Set KB_HOME elsewhere."
            ) from error
        ours = self.folder.stat().st_uid == os.geteuid()
        if not ours or not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise DatabaseRefusedError(
                f"{self.folder} belongs to another account.",
                why="A server's files stay with the account that created them.",
                fix="Work as that account, or set KB_HOME to a folder of your own.",
            )

    def ensure_running(self, options: Mapping[str, str]) -> ServerAddress:
        """Bring the server up unless it is up, and return its address once it answers.

        Raises:
            DatabaseRefusedError: The data folder is another version's.
            DatabaseUnavailableError: The server did not come up.
        """
        if self._settled() == "ready":
            folder = self._socket_folder_in_use()
            if (folder / f".s.PGSQL.{PORT}").exists():
                return ServerAddress(folder)
            _log.warning("The embedded server's socket was removed; restarting the server.")
            self.stop()
        account = ServerAccount.choose(embedded_binaries(self.major))
        self._initialise(account, options)
        self._start(account, options)
        return ServerAddress(self._socket_folder_in_use())

    def stop(self) -> None:
        """Stop the server; open connections are cut, what was committed is kept."""
        if self._settled() is None:
            return
        account = ServerAccount.choose(embedded_binaries(self.major))
        arguments = ("-D", str(self.data), "-m", "fast", "-w", "-t", "120", "stop")
        if account.run("pg_ctl", *arguments).returncode != 0:
            _log.warning("The embedded server did not stop; see %s.", self.log)

    def state(self) -> State | None:
        """Return what the server is doing; None if it does not run.

        A number in `postmaster.pid` proves nothing: after a crash it may belong to anybody. The
        process must be a PostgreSQL server on this very folder.
        """
        lines = self._pid_file()
        if len(lines) < 1 or not self._is_ours(lines[0]):
            return None
        status = lines[7].strip() if len(lines) > 7 else ""
        return _STATES.get(status, "starting")

    def _settled(self) -> State | None:
        """Return the state once it is neither starting nor stopping."""
        give_up = time.monotonic() + RECOVERY_SECONDS
        while (state := self.state()) in ("starting", "stopping"):
            if time.monotonic() > give_up:
                raise self._did_not_start(f"It has been {state} for a day.")
            time.sleep(0.05)
        return state

    def _initialise(self, account: ServerAccount, options: Mapping[str, str]) -> None:
        """Create the data folder, whole or not at all."""
        found = self._version()
        if found is not None:
            self._require_version(found)
            return
        self._end_orphans()
        account.own(self.log.parent)
        # A name of its own: an initdb whose parent was killed may still write to the last one.
        for left in self.folder.glob("data.unfinished-*"):
            shutil.rmtree(left, ignore_errors=True)
        unfinished = self.folder / f"data.unfinished-{secrets.token_hex(4)}"
        account.own(unfinished)
        locale = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
        result = account.run(
            "initdb",
            *("-D", str(unfinished), "-U", ADMINISTRATOR, "--auth=trust", "--data-checksums"),
            *("--encoding=UTF8", f"--locale={locale}"),
            *(("--no-sync",) if options.get("fsync") == "off" else ()),
        )
        if result.returncode != 0:
            raise DatabaseUnavailableError(
                f"The database's folder {self.data} cannot be created.", why=result.stdout.strip()
            )
        unfinished.rename(self.data)

    def _version(self) -> str | None:
        try:
            return (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return None

    def _require_version(self, found: str) -> None:
        if found != str(self.major):
            raise DatabaseRefusedError(
                f"{self.data} is a database of PostgreSQL {found}, not {self.major}.",
                why="A data folder can only be served by the version that made it.",
                fix=f"Restore a backup into a new folder, or use version {found}.",
            )

    def _start(self, account: ServerAccount, options: Mapping[str, str]) -> None:
        """Start the server and wait until it answers, through crash recovery if need be."""
        socket = self._choose_socket_folder(account)
        self._drop_stale(self.data / "postmaster.pid")
        self._drop_stale(socket / f".s.PGSQL.{PORT}.lock")
        account.own(self.log.parent)
        if self.log.exists() and self.log.stat().st_size > 16 * 1024 * 1024:
            self.log.replace(self.log.with_suffix(".old.log"))
        self._write_settings(account, {"unix_socket_directories": str(socket), **options})
        arguments = ("-D", str(self.data), "-l", str(self.log), "-w", "-t", str(RECOVERY_SECONDS))
        for pause in (0.2, 0.5, 1, 2, 4, 8, 16, None):
            account.run("pg_ctl", *arguments, "start")
            if self._settled() == "ready":
                return
            # Processes of a server that was killed may live for a moment, and hold its memory.
            if pause is None or "shared memory block" not in self._log_tail():
                raise self._did_not_start(self._log_tail())
            time.sleep(pause)

    def _write_settings(self, account: ServerAccount, options: Mapping[str, str]) -> None:
        """Write `kb.conf`, which `postgresql.conf` ends by including."""
        chosen = {
            "dynamic_shared_memory_type": shared_memory_type(),
            **options,
        }
        lines = [f"{key} = {_quoted(value)}\n" for key, value in chosen.items()]
        target = self.data / "kb.conf"
        target.write_text(_SETTINGS.read_text(encoding="utf-8") + "".join(lines))
        account.own(target)
        main = self.data / "postgresql.conf"
        include = "include_if_exists = 'kb.conf'\n"
        if not main.read_text(encoding="utf-8").endswith(include):
            with main.open("a", encoding="utf-8") as file:
                file.write("\n" + include)

    def _choose_socket_folder(self, account: ServerAccount) -> Path:
        """Return a private folder whose path is short enough for a socket, the same every time.

        A long home gets a folder of an unpredictable name in /tmp, noted beside the data, and is
        used again only while it is still a real folder of the server's account.
        """
        near = self.folder / "socket"
        if len(os.fsencode(near / f".s.PGSQL.{PORT}")) <= _SOCKET_PATH_BYTES:
            account.own(near)
            return near
        note = self.folder / "socket-folder"
        if note.exists() and account.owns_privately(Path(note.read_text())):
            return Path(note.read_text())
        far = Path(tempfile.mkdtemp(prefix="kb-", dir="/tmp"))
        account.own(far)
        note.write_text(str(far))
        return far

    def _socket_folder_in_use(self) -> Path:
        return Path(self._pid_file()[4])

    def _pid_file(self) -> list[str]:
        return _lines(self.data / "postmaster.pid")

    def _is_ours(self, pid: str) -> bool:
        return pid.strip().isdigit() and _serves(int(pid), self.data)

    def _drop_stale(self, lock_file: Path) -> None:
        """Remove a lock file of a server that is gone.

        PostgreSQL itself takes any living process of that number for the server, and in a
        container whose first process reaps nothing, the dead server as well.
        """
        lines = _lines(lock_file)
        if lines and not self._is_ours(lines[0]):
            lock_file.unlink(missing_ok=True)

    def _end_orphans(self) -> None:
        """End servers of a data folder that was deleted under them: they would take our socket."""
        for process in psutil.process_iter():
            if _serves(process.pid, self.data):
                _log.warning("Ending a server whose data folder was deleted: %s", process.pid)
                process.kill()
                process.wait(30)

    def _log_tail(self) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
        except OSError as error:
            return str(error)

    def _did_not_start(self, why: str) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(
            "The embedded database did not start.", why=why, fix=f"Its log is {self.log}."
        )


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except FileNotFoundError:
        return []


def _serves(pid: int, data: Path) -> bool:
    """Say whether a process is a PostgreSQL server on a data folder."""
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        return (
            len(words) >= 3
            and Path(words[0]).name == "postgres"
            and words[1:3] == ["-D", str(data)]
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
