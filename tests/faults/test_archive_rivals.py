"""Writers, readers, archivers and zombies in one month at once: each message stays one."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any

import psycopg
import pytest
from psycopg import errors

from kb_assets.archive import snapshot
from kb_assets.archive.lease import month_lease
from kb_assets.archive.relation import MESSAGES
from kb_assets.errors import (
    ArchiveBusyError,
    ArchiveStaleError,
    DatabaseUnavailableError,
    KbError,
    LeaseLostError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults.archiving import ALL_BUT_COMMITTED, MARCH, STEPS, Shelf, interrupt, key_of
from tests.faults.shim import Background, end_lease_sessions, end_other_sessions, wait_until_blocked

BEFORE_THE_COMMIT = list(STEPS)[: list(STEPS).index("being committed")]
IN_THE_COMMIT = ["being committed", ALL_BUT_COMMITTED]
TABLES = ("archive_month", "archive_segment", "conversation", "message", "message_late")


@pytest.fixture
def heir(open_settings: Callable[[Settings], KnowledgeBase], shelf: Shelf) -> KnowledgeBase:
    """The same knowledge base in another process, as it were."""
    return open_settings(shelf.kb.settings)


@pytest.fixture(params=["month", "late"])
def source(request: pytest.FixtureRequest, shelf: Shelf) -> str:
    """What there is to archive: a month, or what came late for it, some of it repeated."""
    if request.param == "late":
        shelf.archive()
        shelf.append(*range(6, 12))
    return str(request.param)


def contents(shelf: Shelf) -> dict[str, list[str]]:
    return {
        table: sorted(map(repr, shelf.oracle.execute(f"select * from kb.{table}")))
        for table in TABLES
    }


@pytest.mark.parametrize("step", BEFORE_THE_COMMIT)
def test_a_zombie_changes_nothing_once_its_heir_has_done_the_work(
    shelf: Shelf, source: str, heir: KnowledgeBase, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {}

    def steal() -> None:
        end_other_sessions(shelf.kb.archiver, spared=0)
        heir.archive_messages()
        before.update(contents(shelf))

    with monkeypatch.context() as changed:
        interrupt(step, steal, changed.setattr)
        with pytest.raises((LeaseLostError, DatabaseUnavailableError)):
            shelf.archive()
    assert contents(shelf) == before
    assert shelf.states().count("committed") == (1 if source == "month" else 2)
    shelf.settle()


@pytest.mark.parametrize("step", BEFORE_THE_COMMIT)
def test_a_zombie_commits_nothing_though_its_heir_has_done_nothing_yet(
    shelf: Shelf, source: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steal() -> None:
        end_lease_sessions(shelf.kb.archiver)
        with month_lease(shelf.kb.archiver, MESSAGES, MARCH, run_id="heir", wait_seconds=10):
            pass

    committed = shelf.states().count("committed")
    live = len(shelf.oracle.look().live)
    with monkeypatch.context() as changed:
        interrupt(step, steal, changed.setattr)
        with pytest.raises(LeaseLostError):
            shelf.archive()
    assert shelf.states().count("committed") == committed
    assert len(shelf.oracle.look().live) == live
    shelf.oracle.check()
    shelf.settle()


@pytest.mark.parametrize("pause", ["closed", "copied", "noted", "uploaded", "proven"])
def test_a_zombie_that_wakes_does_not_disturb_its_heir(
    shelf: Shelf, source: str, heir: KnowledgeBase, pause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_paused, go_on = threading.Event(), threading.Event()
    working: list[Background] = []

    def wait() -> None:
        is_paused.set()
        assert go_on.wait(60)

    def steal() -> None:
        end_lease_sessions(shelf.kb.archiver)
        interrupt(pause, wait, changed.setattr)
        working.append(Background(heir.archive_messages))
        assert is_paused.wait(60)

    with monkeypatch.context() as changed:
        interrupt("copied", steal, changed.setattr)
        with pytest.raises(LeaseLostError):
            shelf.archive()
        shelf.oracle.check()
        go_on.set()
        working[0].result()
    assert shelf.states()[-1] == "committed"
    shelf.settle()


@pytest.mark.parametrize("step", IN_THE_COMMIT)
def test_an_heir_waits_for_a_commit_that_has_begun(
    shelf: Shelf, source: str, heir: KnowledgeBase, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Background] = []

    def steal() -> None:
        end_lease_sessions(shelf.kb.archiver)
        waiting.append(Background(lambda: heir.archive_messages([MARCH])))
        wait_until_blocked(shelf.kb)

    with monkeypatch.context() as changed:
        interrupt(step, steal, changed.setattr)
        with suppress(LeaseLostError):
            shelf.archive()
    assert shelf.states() == ["committed"] * (1 if source == "month" else 2)
    (report,) = waiting[0].result().months
    assert report.rows == 0
    shelf.settle()


@pytest.mark.parametrize("step", IN_THE_COMMIT)
def test_nobody_takes_a_month_over_while_it_is_committed(
    shelf: Shelf, source: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking: list[Background] = []

    def take() -> list[str]:
        with month_lease(shelf.kb.archiver, MESSAGES, MARCH, run_id="heir"):
            return shelf.states()

    def steal() -> None:
        end_lease_sessions(shelf.kb.archiver)
        taking.append(Background(take))
        wait_until_blocked(shelf.kb, or_over=taking[0])

    with monkeypatch.context() as changed:
        interrupt(step, steal, changed.setattr)
        with suppress(LeaseLostError):
            shelf.archive()
    assert set(taking[0].result()) == {"committed"}
    shelf.settle()


def test_archivers_at_once_do_the_work_once(
    shelf: Shelf, open_settings: Callable[[Settings], KnowledgeBase]
) -> None:
    archivers = [open_settings(shelf.kb.settings) for _ in range(3)]
    months = [date(2024, month, 1) for month in range(1, 7)]
    start = threading.Barrier(len(archivers))

    def archive(kb: KnowledgeBase) -> int:
        start.wait(60)
        try:
            return sum(month.rows for month in kb.archive_messages().months)
        except ArchiveBusyError:
            return 0

    for month in months:
        shelf.append(*range(10), month=month)
        works = [Background(lambda kb=kb: archive(kb)) for kb in archivers]
        for work in works:
            work.result()
        shelf.oracle.check()
    shelf.settle()
    assert shelf.states() == ["committed"] * (len(months) + 1)


def test_a_month_that_is_copied_refuses_every_write_and_intake_goes_beside_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = (errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege, errors.LockNotAvailable)

    def write() -> None:
        for url in (shelf.kb.settings.database_url, shelf.url):
            for statement in (
                "update kb.message set content = 'Changed.' where id = 'm3'",
                "update kb.message_2025_03 set created_at = now()",
                "delete from kb.message where id = 'm3'",
                "delete from kb.message_2025_03",
                "insert into kb.message select * from kb.message where false union all"
                " select 'new', conversation_id, created_at, role, content, language, intent,"
                " metadata, token_count, ordinal, total_bytes, total_tokens from kb.message",
                "truncate kb.message_2025_03",
            ):
                with (
                    psycopg.connect(url, autocommit=True) as connection,
                    pytest.raises(refused),
                ):
                    connection.execute("set lock_timeout = 50")
                    connection.execute(statement)
        assert shelf.append(7, 8, 9).late == 2
        shelf.oracle.check()

    with monkeypatch.context() as changed:
        interrupt("copied", write, changed.setattr)
        (report,) = shelf.archive().months
    assert (report.rows, report.repeated) == (10, 0)
    assert shelf.states() == ["committed"] * 2
    shelf.settle()


@pytest.mark.parametrize("step", BEFORE_THE_COMMIT[BEFORE_THE_COMMIT.index("copied") :])
def test_late_rows_that_change_while_they_are_copied_are_copied_again(
    shelf: Shelf, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.archive()
    shelf.append(*range(6, 12))

    def change() -> None:
        assert shelf.oracle.update(key_of(8), "Changed.", "message_late")
        assert shelf.oracle.delete(key_of(9), "message_late")
        assert shelf.append(12).late == 1
        shelf.oracle.check()

    with monkeypatch.context() as changed:
        interrupt(step, change, changed.setattr)
        (report,) = shelf.archive().months
    assert (report.rows, report.repeated) == (4, 2)
    assert shelf.states()[0] == shelf.states()[-1] == "committed"
    reasons = "select reason from kb.archive_segment where state = 'stale'"
    assert "still the same" in str(shelf.oracle.execute(reasons))
    shelf.settle()


@pytest.mark.parametrize("changed_row", [8, 6])
def test_late_rows_that_never_rest_stay_where_they_are(
    shelf: Shelf, changed_row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 is a repeat: it is not copied, and must not be deleted either as something else."""
    shelf.archive()
    shelf.append(*range(6, 12))
    statement = "update kb.message_late set content = content || '!' where id = %s"
    times: list[int] = []

    def change() -> None:
        times.append(1)
        if changed_row == 6:
            shelf.oracle.execute(f"{statement} returning id", f"m{changed_row}")
        else:
            shelf.oracle.update(key_of(8), f"Changed {len(times)} times.", "message_late")

    with monkeypatch.context() as changed:
        interrupt("to be committed", change, changed.setattr, times=100)
        with pytest.raises(ArchiveStaleError, match="still the same"):
            shelf.archive()
    assert shelf.late() == {f"m{number}" for number in range(6, 12)}
    assert len(times) == 3
    shelf.oracle.check()
    shelf.settle()


def test_rows_that_come_late_after_the_copy_wait_for_the_next_run(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.archive()
    shelf.append(8)
    with monkeypatch.context() as changed:
        interrupt("to be committed", lambda: shelf.append(9), changed.setattr)
        (report,) = shelf.archive().months
    assert report.rows == 1
    assert shelf.late() == {"m9"}
    shelf.settle()


def test_readers_see_each_message_once_at_every_moment(shelf: Shelf, heir: KnowledgeBase) -> None:
    done = threading.Event()
    looks: list[int] = []

    def read() -> None:
        while not done.is_set():
            with_lock = len(shelf.oracle.written)
            rows = heir.query_messages("select id, created_at from messages").rows
            assert len(set(rows)) == len(rows) >= with_lock
            difference = shelf.oracle.difference()
            assert (difference.lost, difference.duplicated, difference.changed) == ([], [], [])
            looks.append(len(rows))

    reader = Background(read)
    try:
        for month in [MARCH, *(date(2024, number, 1) for number in range(1, 6))]:
            shelf.append(*range(6), month=month)
            reports = shelf.archive().months
            shelf.append(*range(4, 10), month=month)
            shelf.archive()
            shelf.kb.restore_month(month, 0)
            reports += shelf.archive().months
            # No attempt to drop a partition waited for readers in vain.
            assert sum(one.seconds.get("commit", 0) for one in reports) < 5
    finally:
        done.set()
    reader.result()
    assert len(looks) > 3
    shelf.settle()


def test_a_query_does_not_wait_for_whoever_waits_for_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise neither of them goes on, and the server sees no deadlock."""
    waiting: list[Background] = []
    original = snapshot._held

    def take_the_table() -> None:
        with psycopg.connect(shelf.url) as connection:
            connection.execute("set lock_timeout = '5s'")
            connection.execute("lock table kb.message in access exclusive mode")

    def held(*values: Any) -> str:
        named = original(*values)
        waiting.append(Background(take_the_table))
        wait_until_blocked(shelf.kb)
        return named

    monkeypatch.setattr(snapshot, "_held", held)
    assert shelf.kb.query_messages("select count(*) from messages").rows == [(8,)]
    waiting[0].result()


def test_a_run_that_fails_at_any_step_can_be_repeated(
    shelf: Shelf, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokeError(KbError):
        pass

    def fail() -> None:
        raise BrokeError("It broke.")

    for number, step in enumerate(STEPS):
        with monkeypatch.context() as changed:
            interrupt(step, fail, changed.setattr)
            with pytest.raises(BrokeError):
                shelf.archive()
        shelf.oracle.check()
        shelf.append(20 + number, 6)
    shelf.settle()
