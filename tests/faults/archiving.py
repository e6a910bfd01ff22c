"""Archiving that is interrupted at a step of its protocol: here, or in a process that is killed."""

import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import psycopg

from kb_assets.archive import copy, segment, stage, store
from kb_assets.archive.plan import window_of
from kb_assets.database.connect import Database
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.intake import Appended
from kb_assets.messages.message import Message
from kb_assets.settings import Settings
from tests.message_oracle import ALL_TIME, Connections, Key, MessageOracle, ReadObject

MARCH = date(2025, 3, 1)

Place = tuple[Any, str, Literal["before", "after"]]

ALL_BUT_COMMITTED = "all but committed"
STEPS: dict[str, list[Place]] = {
    "leased": [(stage, "_prepare", "before")],
    "to be closed": [(stage, "_close", "before")],
    "closed": [(stage, "_close", "after")],
    "being copied": [(copy, "hash_column", "after")],
    "copied": [(segment, "_copied", "after")],
    "noted": [(stage, "enter", "after")],
    "uploaded": [(segment, "fetch_verified", "before")],
    "verified": [(segment, "fetch_verified", "after")],
    "proven": [(stage, "prove", "after")],
    "to be committed": [(stage, "commit_month", "before"), (stage, "commit_late", "before")],
    "being committed": [(store, "commit_segments", "after")],
    ALL_BUT_COMMITTED: [],
    "committed": [(stage, "commit_month", "after"), (stage, "commit_late", "after")],
}
"""Where in the code each step is, in the order in which they come."""


def interrupt(
    step: str,
    action: Callable[[], object],
    replace: Callable[[Any, str, Any], None] = setattr,
    *,
    times: int = 1,
) -> None:
    """Have something happen at a step, the first time that any run comes to it.

    Args:
        step: One of `STEPS`.
        action: What happens.
        replace: Replaces an attribute, for a while or for good.
        times: How often it happens.
    """
    waiting = [action] * times

    def happen() -> None:
        if waiting:
            waiting.pop()()

    for place in STEPS[step]:
        _wrap(place, happen, replace)
    if step == ALL_BUT_COMMITTED:
        _wrap_transactions(happen, replace)


def _wrap(place: Place, action: Callable[[], object], replace: Callable[..., None]) -> None:
    module, name, when = place
    original = getattr(module, name)

    def wrapped(*values: Any, **named: Any) -> Any:
        if when == "before":
            action()
        result = original(*values, **named)
        if when == "after":
            action()
        return result

    replace(module, name, wrapped)


def _wrap_transactions(action: Callable[[], object], replace: Callable[..., None]) -> None:
    """Have it happen when nothing but COMMIT is left of the transaction that commits segments."""
    committing: list[bool] = []
    _wrap((store, "commit_segments", "after"), lambda: committing.append(True), replace)
    original = Database.transaction

    @contextmanager
    def transaction(database: Database, **options: float) -> Iterator[psycopg.Connection]:
        with original(database, **options) as connection:
            yield connection
            if committing:
                action()

    replace(Database, "transaction", transaction)


class Shelf:
    """A knowledge base with an archive, and a client that knows what must be found in it.

    Args:
        kb: The knowledge base.
        read_object: Reads objects of the archive.
        only: The only month that is looked at.
        connections: To its database.
    """

    def __init__(
        self,
        kb: KnowledgeBase,
        read_object: ReadObject | None = None,
        *,
        only: date | None = None,
        connections: Connections | None = None,
    ) -> None:
        self.kb = kb
        self.url = kb.settings.migration_database_url
        self.connections = connections or Connections(self.url)
        self.read_object = read_object or self._read
        span = ALL_TIME if only is None else (window_of(only).low, window_of(only).high)
        self.oracle = MessageOracle(kb.messages, self.connections, self.read_object, span)
        self.months: set[date] = set()
        self._month = only or MARCH

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *error: object) -> None:
        self.connections.close()

    def only(self, month: date) -> "Shelf":
        """Return the same shelf, of which only a month is looked at."""
        return Shelf(self.kb, self.read_object, only=month, connections=self.connections)

    def append(self, *numbers: int, month: date | None = None, content: str = "") -> Appended:
        """Append messages of a month, four to a conversation; a number is always the same one."""
        month = month or self._month
        self.months.add(month)
        return self.oracle.append(made(month, number, content) for number in numbers)

    def archive(self, **options: Any) -> Any:
        return self.kb.archive_messages(sorted(self.months), **options)

    def settle(self) -> None:
        """Archive until nothing is due; then everything is cold, and nothing is in the way."""
        wait_until_free(self.connections)
        self.archive()
        self.oracle.check_at_rest(*self.months)
        work = self.kb.settings.home_folder / "archive-work"
        assert not work.exists() or [*work.iterdir()] == []

    def late(self) -> set[str]:
        return {id_ for (id_,) in self.oracle.execute("select id from kb.message_late")}

    def states(self) -> list[str]:
        """The states of all segments, in their order."""
        rows = self.oracle.execute("select state from kb.archive_segment order by id")
        return [state for (state,) in rows]

    def _read(self, key: str) -> bytes:
        return Path(self.kb.archive_store.url(key)).read_bytes()


def made(month: date, number: int, content: str = "") -> Message:
    return Message(
        *key_of(number, month)[:1],
        f"c{number // 4}",
        key_of(number, month)[1],
        "user" if number % 2 else "assistant",
        content or f"What was said {number} times.",
        language=(None, "", "de")[number % 3],
        metadata={"n": [number, 1.5, "ü"]} if number % 2 else {},
        token_count=number,
    )


def key_of(number: int, month: date = MARCH) -> Key:
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    return f"m{number}", start + timedelta(hours=number, microseconds=number)


def wait_until_free(connections: Connections) -> None:
    """Wait until the server has noticed that killed processes are gone."""
    query = (
        "select count(*) from pg_locks where locktype = 'advisory' and database ="
        " (select oid from pg_database where datname = current_database())"
    )
    give_up = time.monotonic() + 60
    with connections.lend() as connection:
        while connection.execute(query).fetchone() != (0,):
            assert time.monotonic() < give_up, "somebody still holds a month"
            time.sleep(0.005)


_processes = get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class ArchivingProcess:
    """A run of the archive in a process of its own.

    Args:
        settings: The knowledge base's.
        months: What it archives.
        step: Where it stops, and waits to be killed; or goes on with a small disk.
        disk_bytes: How large a file can get from there on.
    """

    def __init__(
        self, settings: Settings, months: set[date], step: str, *, disk_bytes: int | None = None
    ) -> None:
        self._channel, theirs = _processes.Pipe()
        given = settings.model_dump_json(), sorted(months), step, disk_bytes, theirs
        self._process = _processes.Process(target=_archive, args=given, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "ArchivingProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join(30)

    def wait(self, seconds: float = 60.0) -> str:
        """Return what it says next: that it stopped, that it is done, or what went wrong."""
        assert self._channel.poll(seconds), "it said nothing in time"
        return str(self._channel.recv())

    def kill(self) -> None:
        self._process.kill()
        self._process.join(30)
        assert self._process.exitcode == -signal.SIGKILL


def _archive(
    settings: str, months: list[date], step: str, disk_bytes: int | None, channel: Connection
) -> None:
    def stop() -> None:
        channel.send("stopped")
        time.sleep(3600)

    def shrink() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk_bytes, hard))

    try:
        interrupt(step, stop if disk_bytes is None else shrink)
        with KnowledgeBase(Settings.model_validate_json(settings)) as kb:
            kb.archive_messages(months)
        channel.send("done")
    except BaseException as error:
        channel.send("".join(traceback.format_exception_only(error)))
        os._exit(1)
