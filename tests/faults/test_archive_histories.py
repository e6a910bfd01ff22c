"""A thousand random histories: nothing is lost, nothing is there twice, nothing comes back.

In each of them writers, archivers, restorers and erasers are at work in one month at once, and
most of the archivers' runs go wrong at some call to the database or to the store. What a seed
does not say is who comes first: threads run as they may.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import adbc_driver_postgresql.dbapi as postgresql
import duckdb
import pytest
from psycopg import errors

from kb_assets.archive import segment, stage
from kb_assets.archive.plan import window_of
from kb_assets.archive.restore import restore_month
from kb_assets.database.run import Run
from kb_assets.erasure.erase import erase
from kb_assets.erasure.subject import Subject
from kb_assets.errors import KbError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.message import Message
from kb_assets.object_store import ObjectStore
from kb_assets.settings import Settings
from tests.faults.archiving import wait_until_free
from tests.faults.shim import Background
from tests.faults.trouble import troubled
from tests.message_oracle import Connections, Key, MessageOracle

BLOCKS, HISTORIES = 20, 50
MOST_PAUSE_SECONDS = 0.03
"""Between what a writer does, so that archivers are at work meanwhile."""

FIRST_SEED = int(os.environ.get("KB_FAULT_SEED", "0"))


@pytest.mark.parametrize("block", range(BLOCKS))
def test_nothing_is_lost_or_twice_or_back(histories: KnowledgeBase, block: int) -> None:
    with closing(Connections(histories.settings.migration_database_url)) as connections:
        for number in range(HISTORIES):
            seed = FIRST_SEED + block * HISTORIES + number
            month = date(1971 + number // 12, number % 12 + 1, 1)
            History(histories, connections, seed, month).run()


@pytest.fixture
def histories(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[KnowledgeBase]:
    limits = {"lease_wait_seconds": 10}
    kb = open_settings(make_settings(archive={"uri": str(tmp_path / "cold")}, limits=limits))
    with ExitStack() as kept, duckdb.connect() as duck:
        monkeypatch.setattr(segment, "snapshot", kept_snapshots(kept))
        monkeypatch.setattr(duckdb, "connect", lambda config: duck.cursor())
        yield kb


def kept_snapshots(stack: ExitStack) -> Callable[[str], AbstractContextManager[Any]]:
    """Return `copy.snapshot` on connections that are kept: opening them takes half the time."""
    idle: list[Any] = []

    @contextmanager
    def snapshot(conninfo: str) -> Iterator[Any]:
        if not idle:
            idle.append(stack.enter_context(postgresql.connect(conninfo, autocommit=True)))
        connection = idle.pop()
        with connection.cursor() as cursor:
            cursor.execute("begin isolation level repeatable read, read only")
            try:
                yield cursor
            finally:
                cursor.execute("rollback")
        idle.append(connection)

    return snapshot


class Writer:
    """A client that appends, repeats itself, and changes and deletes rows past the library."""

    def __init__(self, history: "History", name: str) -> None:
        self._oracle = history.oracle
        self._random = Random(history.random.random())
        self._start = window_of(history.month).low
        self._name = f"{history.seed}-{name}"
        self._conversations = history.conversations
        self._sent: list[Message] = []
        self._untouched: list[Key] = []

    def begin(self) -> None:
        self._append()

    def work(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            time.sleep(self._random.uniform(0, MOST_PAUSE_SECONDS))
            self._random.choice((self._append, self._append, self._repeat, self._change))()

    def _append(self) -> None:
        batch = [self._new() for _ in range(self._random.randint(1, 4))]
        self._oracle.append(batch)
        self._sent += batch
        self._untouched += [(one.id, one.created_at) for one in batch]

    def _repeat(self) -> None:
        """Send again what was sent before, as it was or otherwise: the first one counts."""
        if not self._sent:
            return
        again = self._random.sample(self._sent, min(3, len(self._sent)))
        keys = {(one.id, one.created_at) for one in again}
        self._untouched = [key for key in self._untouched if key not in keys]
        content = self._random.choice((None, "Said otherwise."))
        self._oracle.append(replace(one, content=content or one.content) for one in again)

    def _change(self) -> None:
        """Change a row, or delete it, wherever it is hot; a month that is frozen refuses."""
        if not self._untouched:
            return
        key = self._random.choice(self._untouched)
        is_gone = False
        try:
            for table in ("message", "message_late"):
                if self._random.random() < 0.5:
                    is_gone = self._oracle.delete(key, table)
                elif self._oracle.update(key, f"Changed {self._random.random()}.", table):
                    break
                if is_gone:
                    break
        except (errors.ReadOnlySqlTransaction, errors.UndefinedTable):
            return
        if is_gone:
            self._untouched.remove(key)
            self._sent = [one for one in self._sent if (one.id, one.created_at) != key]

    def _new(self) -> Message:
        number = len(self._sent) + self._random.randint(0, 10**9)
        return Message(
            f"{self._name}-{number}",
            self._random.choice(self._conversations),
            self._start + timedelta(seconds=self._random.randrange(28 * 86400)),
            self._random.choice(("user", "assistant")),
            "x" * self._random.randrange(200),
            metadata={"n": number} if number % 2 else {},
            token_count=number % 100,
        )


@dataclass
class History:
    """One history: everybody is at work at once, maybe twice; then one run goes well."""

    kb: KnowledgeBase
    connections: Connections
    seed: int
    month: date
    oracle: MessageOracle = field(init=False)

    def __post_init__(self) -> None:
        window = window_of(self.month)
        self.random = Random(self.seed)
        self.conversations = [f"{self.seed}-c{number}" for number in range(3)]
        span = (window.low, window.high)
        self.oracle = MessageOracle(self.kb.messages, self.connections, self._read, span)
        self._writers = [Writer(self, name) for name in ("ann", "ben")]

    def run(self) -> None:
        for writer in self._writers:
            writer.begin()
        works = [writer.work for writer in self._writers] + [self._keeper(1)]
        if self.random.random() < 0.15:
            works.append(self._keeper(2))
        for work in [Background(work) for work in works]:
            work.result()
        self.oracle.check()
        self.kb.resume_erasures()
        wait_until_free(self.connections)
        stage.archive_month(self.kb.run(), self.kb.archive_store, self.month)
        self.oracle.check_at_rest(self.month)

    def _keeper(self, number: int) -> Callable[[], None]:
        """Return work in the month: a run of the archive, and what comes after it."""
        random = Random(f"{self.seed} {number}")
        others = (self._archive, self._restore, self._restore, self._erase)
        steps = [self._archive, *random.choices(others, k=random.choice((0, 1, 1, 2)))]

        def keep() -> None:
            for step in steps:
                database, store = troubled(self.kb.archiver, self.kb.archive_store, random)
                with suppress(KbError):
                    step(replace(self.kb.run(), database=database, archiver=None), store, random)

        return keep

    def _archive(self, run: Run, store: ObjectStore, _: Random) -> None:
        stage.archive_month(run, store, self.month)

    def _restore(self, run: Run, store: ObjectStore, _: Random) -> None:
        restore_month(run, store, self.month, 0, window_of(self.month).high)

    def _erase(self, run: Run, store: ObjectStore, random: Random) -> None:
        name = random.choice(self.conversations)
        subject = Subject("conversation", name)
        self.oracle.erase(name, lambda: erase(run, store, subject))

    def _read(self, key: str) -> bytes:
        return Path(self.kb.archive_store.url(key)).read_bytes()
