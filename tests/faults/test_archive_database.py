"""The archive's database fails at every moment: outcomes are read again, never guessed."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest

from kb_assets.archive import copy, stage
from kb_assets.errors import (
    DatabaseUnavailableError,
    SchemaError,
    TransientError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.message import Message
from kb_assets.settings import Settings
from tests.faults.archiving import MARCH, Shelf
from tests.faults.shim import (
    Background,
    FaultyDatabase,
    Loss,
    end_other_sessions,
    wait_until_blocked,
    with_database,
)
from tests.servers.postgres_proxy import Fault, PostgresProxy

MARKERS = {"month": b"drop_month", "late": b"archived_key"}
MOST_TRANSACTIONS = 40


def months() -> Iterator[date]:
    for number in count():
        yield date(1990 + number // 12, number % 12 + 1, 1)


@pytest.mark.parametrize("loss", ["before", "during", "after", "beside"])
@pytest.mark.parametrize("source", ["month", "late"])
def test_the_database_is_lost_at_every_transaction(shelf: Shelf, source: str, loss: Loss) -> None:
    for at, month in zip(range(1, MOST_TRANSACTIONS), months(), strict=False):
        alone = shelf.only(month)
        alone.append(1, 2)
        if source == "late":
            alone.archive()
            alone.append(2, 3)
        with FaultyDatabase(shelf.url, loss, at) as faulty:
            run = with_database(shelf.kb.run(), faulty)
            with suppress(TransientError):
                stage.archive_month(run, shelf.kb.archive_store, month)
        alone.oracle.check()
        alone.settle()
        if faulty.transactions < at:
            break
    else:
        raise AssertionError("a run never ends")
    assert at > 5


@pytest.mark.parametrize("source", ["month", "late"])
def test_the_database_is_lost_while_rows_arrive(
    shelf: Shelf, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "late":
        shelf.archive()
    for number in range(10, 14):
        shelf.append(number, content=f"{number}" * 4_000_000)
    live = len(shelf.oracle.look().live)
    original = copy._arriving

    def lost(rows: Any) -> Iterator[Any]:
        end_other_sessions(shelf.kb.archiver, spared=0)
        return original(rows)

    with monkeypatch.context() as changed:
        changed.setattr(copy, "_arriving", lost)
        with pytest.raises(DatabaseUnavailableError):
            shelf.archive()
    assert len(shelf.oracle.look().live) == live
    shelf.oracle.check()
    shelf.settle()


@pytest.fixture
def proxy(shelf: Shelf) -> Iterator[PostgresProxy]:
    with (
        TemporaryDirectory(prefix="kb") as folder,
        PostgresProxy(shelf.url, Path(folder)) as proxy,
    ):
        yield proxy


@pytest.fixture
def beyond(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    shelf: Shelf,
    proxy: PostgresProxy,
) -> KnowledgeBase:
    """The same knowledge base, its database behind the proxy."""
    names = ("database_url", "read_database_url", "archive_database_url")
    moved = dict.fromkeys(names, proxy.url)
    return open_settings(shelf.kb.settings.model_copy(update=moved))


@pytest.mark.parametrize("fault", ["lose", "overtake", "refuse"])
@pytest.mark.parametrize("source", ["month", "late"])
def test_a_commit_whose_answer_is_lost_is_looked_up(
    shelf: Shelf, proxy: PostgresProxy, beyond: KnowledgeBase, source: str, fault: Fault
) -> None:
    if source == "late":
        shelf.archive()
        shelf.append(*range(6, 12))
    proxy.arm(MARKERS[source], fault)
    if fault == "refuse":
        with pytest.raises(DatabaseUnavailableError):
            beyond.archive_messages()
        assert shelf.states()[-1] == "stale"
    else:
        (report,) = beyond.archive_messages().months
        assert report.rows == (8 if source == "month" else 4)
        assert shelf.states()[-1] == "committed"
    assert not proxy.is_armed
    shelf.oracle.check()
    shelf.settle()


def test_repeats_whose_deletion_may_have_been_lost_are_deleted(
    shelf: Shelf, proxy: PostgresProxy, beyond: KnowledgeBase
) -> None:
    shelf.archive()
    shelf.append(1, 2)
    for fault in ("refuse", "lose"):
        proxy.arm(MARKERS["late"], fault)
        with pytest.raises(DatabaseUnavailableError):
            beyond.archive_messages()
        shelf.oracle.check()
    assert shelf.late() == set()
    shelf.settle()


def test_a_transaction_that_is_still_open_is_waited_for(shelf: Shelf) -> None:
    with psycopg.connect(shelf.url) as writer, psycopg.connect(shelf.url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select 1 from kb.conversation")
        writer.execute("update kb.message set content = 'Changed.' where id = 'm3'")
        archiving = Background(shelf.archive)
        wait_until_blocked(shelf.kb)
        shelf.oracle.check()
        writer.rollback()
        archiving.result()
    shelf.settle()


def test_what_an_open_transaction_wrote_is_archived_as_it_wrote_it(shelf: Shelf) -> None:
    key = next(key for key in shelf.oracle.written if key[0] == "m3")
    with psycopg.connect(shelf.url) as writer:
        writer.execute("update kb.message set content = 'Changed.' where id = 'm3'")
        archiving = Background(shelf.archive)
        wait_until_blocked(shelf.kb)
        writer.execute("update kb.message set content = 'Changed again.' where id = 'm3'")
        writer.commit()
    archiving.result()
    with pytest.raises(AssertionError, match="m3"):
        shelf.oracle.check()
    rows = {row.key: row for row in shelf.oracle.look().archived}
    assert rows[key].content == "Changed again."
    shelf.oracle.note_changed(key, rows[key])
    shelf.settle()


def test_messages_that_come_in_while_a_month_is_closed_wait_and_come_late(shelf: Shelf) -> None:
    with psycopg.connect(shelf.url) as closing:
        closing.execute("select from kb.archive_month for update")
        appending = Background(lambda: shelf.append(8, 9))
        wait_until_blocked(shelf.kb)
        closing.execute("update kb.archive_month set closed_at = now()")
        closing.execute("select kb.freeze_month('message', %s)", [MARCH])
    assert appending.result().late == 2
    shelf.oracle.check()
    shelf.settle()


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Auckland", "Asia/Kathmandu"])
def test_months_are_those_of_utc_whatever_the_zone(
    shelf: Shelf, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrator = shelf.kb.settings.migration_database_url
    with psycopg.connect(migrator, autocommit=True) as connection:
        (name,) = connection.execute("select current_database()").fetchone()
        connection.execute(f"alter database {name} set timezone = '{zone}'")
        connection.execute(f"alter database {name} set extra_float_digits = -15")
    shelf.kb.archiver.close()
    monkeypatch.setenv("TZ", zone)
    monkeypatch.setenv("PGTZ", zone)
    edges = [
        datetime(2025, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2025, 3, 1, tzinfo=UTC),
        *(datetime(2025, 3, 9, hour, 30, tzinfo=UTC) for hour in range(5, 9)),
        datetime(2025, 3, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2025, 4, 1, tzinfo=UTC),
    ]
    shelf.oracle.append(
        Message(f"e{place}", "edges", edge, "user", "x", metadata={"n": 0.1}, token_count=1)
        for place, edge in enumerate(edges)
    )
    shelf.archive()
    shelf.oracle.check()
    assert {row.id for row in shelf.oracle.look().live} == {"e0", f"e{len(edges) - 1}"}
    shelf.months |= {date(2025, 2, 1), date(2025, 4, 1)}
    shelf.settle()


DRIFT = {
    "a new column": "alter table kb.{table} add column mood text default 'kept'",
    "a column's type": "alter table kb.{table} alter column token_count type bigint",
    "a column's name": "alter table kb.{table} rename column intent to purpose",
}


@pytest.mark.parametrize("drift", DRIFT)
@pytest.mark.parametrize("table", ["message", "message_late"])
def test_a_table_that_is_not_what_it_was_stays_where_it_is(
    shelf: Shelf, table: str, drift: str
) -> None:
    if table == "message_late":
        shelf.archive()
        shelf.append(8)
    count_rows = f"select count(*) from kb.{table}"
    before = shelf.oracle.execute(count_rows)
    with psycopg.connect(shelf.kb.settings.migration_database_url) as connection:
        connection.execute(DRIFT[drift].format(table=table))
    with pytest.raises(SchemaError, match=f"kb.{table}"):
        shelf.archive()
    assert shelf.oracle.execute(count_rows) == before
