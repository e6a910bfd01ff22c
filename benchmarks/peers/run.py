"""Rounds: in each, every operation is done to one folder, and every contestant follows in turn.

The order of the contestants moves on by one each round. The server writes everything out before
each turn, so that nobody pays for another's pages. What is stored is compared with the folder
after each turn, outside the time.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.peers import corpus
from benchmarks.peers.environments import CACHE
from benchmarks.peers.protocol import ContestantFailedError, Remote
from kb_assets.database.cluster import ADMINISTRATOR, ServerAddress
from kb_assets.database.embedded import leave_embedded, start_embedded
from kb_assets.database.provision import MIGRATOR, create_extension

RACY_SECONDS = 2.1
"""Files written this recently are read again by who is careful; nobody is measured so soon."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who takes part.

    Attributes:
        name: As it is printed.
        command: Starts its process.
        versions: Of its packages.
    """

    name: str
    command: tuple[str, ...]
    versions: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done to the folder before contestants follow."""

    name: str
    change: Callable[[Path, Path, Path], object]


OPERATIONS = (
    Operation("first load", lambda folder, before, after: corpus.become(folder, before)),
    Operation("nothing changed", lambda folder, before, after: None),
    Operation("every file touched", lambda folder, before, after: corpus.touch(folder)),
    Operation("2% of the files edited", lambda folder, before, after: corpus.edit_a_little(folder)),
    Operation("real edit", lambda folder, before, after: corpus.become(folder, after)),
    Operation("10% of the files deleted", lambda folder, before, after: corpus.delete_some(folder)),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One turn of one contestant.

    Attributes:
        operation: What had been done to the folder.
        contestant: Whose turn it was.
        seconds: How long the library call took.
        cpu_seconds: Of its process, and those it started.
        server_cpu_seconds: Of the database server meanwhile.
        texts_embedded: Texts it sent to the embedder.
        texts_new: The distinct ones among them that it had not sent before.
        chunk_texts: Texts it stores, each counted once for each document.
        distinct_texts: Texts it stores, each counted once.
        parts: Seconds of its parts, where it says.
        flaw: What is wrong with what it stored; empty if it is right.
    """

    operation: str
    contestant: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    texts_embedded: int = 0
    texts_new: int = 0
    chunk_texts: int = 0
    distinct_texts: int = 0
    parts: dict[str, float] | None = None
    flaw: str = ""


def measure(
    server: "Server", before: Path, after: Path, contestants: Sequence[Contestant], rounds: int
) -> Iterator[Measurement]:
    """Measure all there is to be measured."""
    for number in range(rounds):
        first = number % len(contestants)
        order = [*contestants[first:], *contestants[:first]]
        print(f"Round {number + 1} of {rounds}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="kb-peers-round-") as home:
            yield from _round(server, Path(home), before, after, order)


def _round(
    server: "Server", home: Path, before: Path, after: Path, order: Sequence[Contestant]
) -> Iterator[Measurement]:
    (folder := home / "folder").mkdir()
    remotes: dict[str, Remote] = {}
    failed: dict[str, str] = {}
    try:
        for number, contestant in enumerate(order):
            (own := home / f"contestant-{number}").mkdir()
            url = server.new_database(f"contestant_{number}")
            remotes[contestant.name] = remote = Remote(contestant.command, CACHE / "log")
            with _noting(failed, contestant):
                remote.ask("open", folder=str(folder), home=str(own), url=url)
        for operation in OPERATIONS:
            operation.change(folder, before, after)
            time.sleep(RACY_SECONDS)
            for contestant in order:
                found: dict[str, Any] = {}
                if contestant.name not in failed:
                    with _noting(failed, contestant):
                        found = _turn(server, remotes[contestant.name])
                if contestant.name in failed:
                    found = {"flaw": failed[contestant.name]}
                measured = Measurement(operation.name, contestant.name, **found)
                print(f"  {describe(measured)}", file=sys.stderr)
                yield measured
    finally:
        for remote in remotes.values():
            remote.close()
        for number in range(len(order)):
            server.drop_database(f"contestant_{number}")


@contextmanager
def _noting(failed: dict[str, str], contestant: Contestant) -> Iterator[None]:
    """Leave a contestant that failed out of the rest of the round."""
    try:
        yield
    except ContestantFailedError as failure:
        failed[contestant.name] = str(failure)


def _turn(server: "Server", remote: Remote) -> dict[str, Any]:
    server.settle()
    cpu = server.cpu_seconds()
    found = remote.ask("index")
    found["server_cpu_seconds"] = server.cpu_seconds() - cpu
    return found | remote.ask("check")


def describe(measured: Measurement) -> str:
    """Say in one line what was measured."""
    return (
        f"{measured.operation:26} {measured.contestant:31} {measured.seconds:8.3f} s"
        f"  cpu {measured.cpu_seconds:6.2f} + {measured.server_cpu_seconds:6.2f} s"
        f"  {measured.texts_embedded:6} texts  {measured.flaw and 'FAILED: ' + measured.flaw}"
    )


@contextmanager
def running_server() -> Iterator["Server"]:
    """A server of the benchmark's own, gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="kb-peers-server-"))
    home.chmod(0o711)  # the server may run as another account
    try:
        yield Server(start_embedded(home / "server"))
    finally:
        leave_embedded(home / "server")
        shutil.rmtree(home, ignore_errors=True)


class Server:
    """The embedded server, as users of the project have it, with a database for each contestant."""

    def __init__(self, address: ServerAddress) -> None:
        self.address = address
        self._connection = psycopg.connect(address.url("postgres", ADMINISTRATOR), autocommit=True)
        row = self._connection.execute("select pg_backend_pid()").fetchone()
        assert row is not None
        self._process = psutil.Process(row[0]).parent()

    def versions(self) -> str:
        """Return those of PostgreSQL and pgvector."""
        row = self._connection.execute(
            "select current_setting('server_version'), default_version"
            " from pg_available_extensions where name = 'vector'"
        ).fetchone()
        assert row is not None
        return f"PostgreSQL {row[0]}, pgvector {row[1]}"

    def new_database(self, name: str) -> str:
        """Return the URL of a new database for its owner."""
        create = SQL("create database {} owner {}").format(Identifier(name), Identifier(MIGRATOR))
        self._connection.execute(create)
        create_extension(self.address, name)
        return self.address.url(name, MIGRATOR)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever uses it."""
        drop = SQL("drop database if exists {} with (force)").format(Identifier(name))
        self._connection.execute(drop)

    def settle(self) -> None:
        """Write out what was changed."""
        self._connection.execute("checkpoint")

    def cpu_seconds(self) -> float:
        """Return what all of its processes have used, those that ended included."""
        assert self._process is not None
        used = list(self._process.cpu_times())[:4]
        for child in self._process.children():
            try:
                used += list(child.cpu_times())[:2]
            except psutil.NoSuchProcess:
                continue
        return sum(used)
