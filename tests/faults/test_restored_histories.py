"""Random histories with backups and disasters: what was archived or erased stays so.

A backup is a copy of the database; a disaster is that the database is gone and a copy takes its
place, while the store is as it was left. Runs break off at any step, that of the restore as well.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as parquet
import pytest
from psycopg.conninfo import conninfo_to_dict

from kb_assets.archive.clean import remove_leftovers
from kb_assets.archive.plan import manifest_key
from kb_assets.archive.reconcile import ReconcileReport
from kb_assets.backup.replay import ReplayReport, replay_erasures
from kb_assets.database.connect import DatabaseUrls
from kb_assets.database.embedded import Major
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.message import Message
from kb_assets.settings import Settings
from tests.conftest import Server
from tests.message_oracle import Connections, Difference, Key, MessageOracle, content_hash

BLOCKS, HISTORIES = 8, 5
FIRST_SEED = int(os.environ.get("KB_FAULT_SEED", "0"))
MONTHS = [date(2025, month, 1) for month in (1, 2)]
NAMES = [f"c{number}" for number in range(6)]
WEEK = "interval '7 days'"

BREAKS = [
    "kb_assets.archive.stage.commit_month",
    "kb_assets.archive.stage.commit_late",
    "kb_assets.archive.segment.fetch_verified",
    "kb_assets.erasure.rewrite.note_replaced",
    "kb_assets.erasure.rewrite._retire",
    "kb_assets.erasure.rewrite.fetch_verified",
    "kb_assets.erasure.erase._last_facts",
    "kb_assets.archive.reconcile._swap",
    "kb_assets.archive.reconcile._take_in",
    "kb_assets.archive.reconcile._bring_back",
    "kb_assets.archive.reconcile.fill_month",
    "kb_assets.archive.reconcile._note_leftovers",
    "kb_assets.backup.replay.finish_erasures",
]
"""Where runs break off, once each."""


class Broken(BaseException):
    """A run that was killed."""


@dataclass(frozen=True)
class Backup:
    """A copy of the database, and what was in it."""

    database: str
    written: dict[Key, bytes]
    conversations: dict[Key, str]


class Life:
    """A knowledge base whose database is lost now and then."""

    def __init__(self, server: Server, settings: Settings, seed: int, stack: ExitStack) -> None:
        self.random = Random(seed)
        self._server, self._stack = server, stack
        self._numbers = iter(range(10**6))
        self.ever: dict[Key, bytes] = {}
        self._conversations: dict[Key, str] = {}
        self.backups: list[Backup] = []
        self._open(settings)

    def _open(self, settings: Settings) -> None:
        self.kb = KnowledgeBase(settings)
        self.connections = Connections(settings.migration_database_url)
        self.oracle = MessageOracle(self.kb.messages, self.connections, self._read)

    def close(self) -> None:
        self.connections.close()
        self.kb.close()

    def live(self, most: int = 8) -> None:
        """Do this and that; some of it breaks off."""
        steps = [self.append, self.append, self.archive, self.erase, self.bring_back, self.wait]
        for _ in range(self.random.randint(2, most)):
            step = self.random.choice(steps)
            if self.random.random() < 0.3:
                self._breaking(step)
            else:
                step()
            self.oracle.check()

    def append(self) -> None:
        month = self.random.choice(MONTHS)
        start = datetime(month.year, month.month, 1, tzinfo=UTC)
        batch = [
            Message(
                f"m{number}",
                self.random.choice(NAMES),
                start + timedelta(hours=self.random.randrange(600), microseconds=number),
                "user",
                f"What was said as number {number}.",
                metadata={"n": number},
                token_count=number,
            )
            for number in (next(self._numbers) for _ in range(self.random.randint(1, 6)))
        ]
        self.oracle.append(batch)
        self.ever |= {(one.id, one.created_at): content_hash(one) for one in batch}
        self._conversations |= {(one.id, one.created_at): one.conversation_id for one in batch}

    def archive(self) -> None:
        self.kb.archive_messages()

    def erase(self) -> None:
        known = {self.oracle.conversations[key] for key in self.oracle.written}
        left = sorted(known - self.erased())
        if left:
            name = self.random.choice(left)
            self.oracle.erase(name, lambda: self.kb.erase(conversation=name))

    def bring_back(self) -> None:
        months = [month for (month,) in self.oracle.execute("select month from kb.archive_month")]
        if months:
            self.kb.restore_month(self.random.choice(sorted(months)), hold_days=0)

    def wait(self) -> None:
        """Let a week pass: what is left over goes for good."""
        self.oracle.execute(
            f"update kb.archive_segment set started_at = started_at - {WEEK},"
            f" retired_at = retired_at - {WEEK}"
        )
        remove_leftovers(self.kb.archiver, self.kb.archive_store, datetime.now(UTC))

    def erased(self) -> set[str]:
        rows = self.oracle.execute("select conversation_id from kb.erased_conversation")
        return {name for (name,) in rows}

    def back_up(self) -> None:
        self.close()
        name = self._stack.enter_context(self._server.new_database(self._database()))
        oracle = self.oracle
        self.backups.append(Backup(name, dict(oracle.written), dict(oracle.conversations)))

    def lose(self) -> ReplayReport:
        """Lose the database, and go on with a copy of a backup."""
        erased = self.erased()
        archived = {row.key: row.content_hash for row in self.oracle.look().archived}
        self.close()
        backup = self.random.choice(self.backups)
        copy = self._stack.enter_context(self._server.new_database(backup.database))
        urls = self._server.urls(copy)
        self._open(
            self.kb.settings.model_copy(
                update={
                    "database_url": urls.writer,
                    "read_database_url": urls.reader,
                    "archive_database_url": urls.archiver,
                    "migration_database_url": urls.migrator,
                }
            )
        )
        for _ in range(self.random.randint(0, 2)):
            self._breaking(self._replay)
        report = self._replay()
        assert report.archive is not None
        assert report.archive.problems == []
        self._check(backup.written | archived, erased)
        again = self._replay()
        assert (again.hidden, again.finished) == (0, ())
        assert again.archive == ReconcileReport(), "nothing is left to be done"
        return report

    def settle(self) -> None:
        """At rest the store holds what is archived, and nothing else."""
        self.kb.resume_erasures()
        self.archive()
        for _ in range(2):
            self.wait()
            self.archive()
        self.oracle.check_at_rest(*MONTHS)
        assert self.kb.verify_archive().damaged == ()
        rows = self.oracle.execute(
            "select object_key from kb.archive_segment where state in ('committed', 'restored')"
        )
        used = {key for (key,) in rows}
        root = Path(self.kb.archive_store.uri)
        objects = {str(file.relative_to(root)) for file in root.rglob("*.parquet")}
        assert objects == used
        names = {str(file.relative_to(root)) for file in root.rglob("message/**/*.json")}
        notes = {name for name in names if ".replaced-" in name}
        assert names - notes == {manifest_key(key) for key in used}
        for key in used:
            found = parquet.ParquetFile(root / key).read(["conversation_id"]).column(0)
            assert set(found.to_pylist()).isdisjoint(self.erased())

    def _check(self, least: dict[Key, bytes], erased: set[str]) -> None:
        """The backup's messages and the archive's are there, but for erased ones; no others."""
        assert erased <= self.erased()
        seen = self.oracle.look()
        found = {row.key: row.content_hash for row in seen.rows}
        assert len(found) == len(seen.rows)
        erased = self.erased()
        least = {key: value for key, value in least.items() if self._of(key) not in erased}
        assert least.items() <= found.items(), f"lost: {sorted(least.keys() - found.keys())}"
        assert found.items() <= self.ever.items()
        self.oracle.written = {key: self.ever[key] for key in self.ever if key in found}
        self.oracle.written |= {key: self.ever[key] for key in self.ever if self._of(key) in erased}
        self.oracle.conversations = dict(self._conversations)
        self.oracle.erased = set(erased)
        self.oracle.asked_to_erase = set(NAMES)
        assert self.oracle.difference() == Difference()
        self.oracle.check_erased()

    def _of(self, key: Key) -> str:
        return self._conversations[key]

    def _replay(self) -> ReplayReport:
        return replay_erasures(self.kb.run(), self.kb.archive_store, self.kb.backup_store)

    def _breaking(self, step: Callable[[], object]) -> None:
        def breaks(*_: Any, **__: Any) -> Any:
            raise Broken

        with patch(self.random.choice(BREAKS), breaks), suppress(Broken):
            step()

    def _read(self, key: str) -> bytes:
        return Path(self.kb.archive_store.url(key)).read_bytes()

    def _database(self) -> str:
        return str(conninfo_to_dict(self.kb.settings.database_url)["dbname"])


@pytest.fixture
def lives(
    servers: Callable[[Major], Server],
    make_settings: Callable[..., Settings],
    database_urls: DatabaseUrls,
    tmp_path: Path,
) -> Iterator[Callable[[int], Life]]:
    server = servers(16)
    with ExitStack() as stack:

        def live(seed: int) -> Life:
            home = tmp_path / str(seed)
            settings = make_settings(
                archive={"uri": str(home / "cold")}, backup={"uri": str(home / "backups")}
            )
            urls = server.urls(stack.enter_context(server.new_database()))
            update = {
                "database_url": urls.writer,
                "read_database_url": urls.reader,
                "archive_database_url": urls.archiver,
                "migration_database_url": urls.migrator,
            }
            life = Life(server, settings.model_copy(update=update), seed, stack)
            stack.callback(life.close)
            return life

        yield live


@pytest.mark.parametrize("block", range(BLOCKS))
def test_what_was_archived_or_erased_outlasts_a_restore(
    lives: Callable[[int], Life], block: int
) -> None:
    for number in range(HISTORIES):
        life = lives(FIRST_SEED + block * HISTORIES + number)
        life.append()
        for _ in range(life.random.randint(1, 3)):
            life.live()
            life.back_up()
            life.live()
            life.lose()
        life.live(4)
        life.settle()
