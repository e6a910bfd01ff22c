"""Conversations that are erased: hidden at once, gone from hot and cold, and never back."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as parquet
import pytest

from kb_assets.archive import segment as archiving
from kb_assets.archive.clean import KEPT, remove_leftovers
from kb_assets.archive.lease import MONTH_LOCK_CLASS
from kb_assets.database.connect import DatabaseUrls
from kb_assets.erasure import conversations, rewrite
from kb_assets.erasure.erase import finish_erasures, hide_again
from kb_assets.erasure.ledger import Request, read_requests
from kb_assets.erasure.subject import Subject
from kb_assets.errors import (
    ArchiveBusyError,
    ArchiveCorruptError,
    LeaseLostError,
    NotFoundError,
    SettingsError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.message import Message
from kb_assets.settings import Settings
from tests.oracle import rows_as, rows_of

JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
USERS = {"a": "ann", "b": "ann", "c": "carl", "d": None}
SHARED_MONTH = ("a", "b", "c", "d")
ROWS = 4
RAISE_FENCES = "update kb.archive_month set fence = fence + 1 returning fence"

Open = Callable[..., KnowledgeBase]


@pytest.fixture
def open_kb(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Open]:
    opened: list[KnowledgeBase] = []

    def open_(**overrides: Any) -> KnowledgeBase:
        given = {"archive": {"uri": str(tmp_path / "archive")}, "limits": {"lease_wait_seconds": 0}}
        opened.append(KnowledgeBase(make_settings(**(given | overrides))))
        return opened[-1]

    yield open_
    for kb in opened:
        kb.close()


@pytest.fixture
def kb(open_kb: Open) -> KnowledgeBase:
    """Four conversations of two users in January; two of them alone in February."""
    kb = open_kb()
    kb.messages.append(messages(JANUARY, *SHARED_MONTH))
    kb.messages.append(messages(FEBRUARY, "a", "b"))
    return kb


def messages(month: date, *names: str, first: int = 0) -> list[Message]:
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    return [
        Message(
            f"{name}-{month:%m}-{number}",
            name,
            start + timedelta(minutes=number, seconds=place),
            "user",
            f"What {name} says, {number}",
            user_id=USERS[name],
        )
        for number in range(first, first + ROWS)
        for place, name in enumerate(names)
    ]


def seen(kb: KnowledgeBase) -> dict[str, tuple[Any, ...]]:
    """Every message as readers see it, hot or cold; each of them once."""
    rows = kb.query_messages("select * from messages").rows
    found = {row[0]: row for row in rows}
    assert len(found) == len(rows)
    return found


def of(found: dict[str, tuple[Any, ...]], *names: str) -> dict[str, tuple[Any, ...]]:
    return {id_: row for id_, row in found.items() if row[1] in names}


def segments(kb: KnowledgeBase, *states: str) -> list[tuple[Any, ...]]:
    return rows_of(
        kb,
        "select id, source, state, object_key, rows from kb.archive_segment"
        " where state = any(%s) order by id",
        list(states),
    )


def in_objects(kb: KnowledgeBase, *states: str) -> set[str]:
    """Whose messages are in the archive's objects, whatever the database thinks."""
    found: set[str] = set()
    for _, _, _, key, _ in segments(kb, *(states or ("committed", "restored"))):
        table = parquet.ParquetFile(kb.archive_store.url(key)).read(["conversation_id"])
        found |= set(table.column(0).to_pylist())
    return found


def hot(kb: KnowledgeBase) -> set[str]:
    query = "select conversation_id from kb.message union select conversation_id from %s"
    return {name for (name,) in rows_of(kb, query.replace("%s", "kb.message_late"))}


def assert_erased(kb: KnowledgeBase, before: dict[str, tuple[Any, ...]], *names: str) -> None:
    """Written = hot and cold and erased: none of the others is touched, nothing is left."""
    others = of(before, *(set(USERS) - set(names)))
    assert seen(kb) == others
    assert not hot(kb) & set(names)
    assert not in_objects(kb) & set(names)
    assert kb.verify_archive().damaged == ()
    assert all(one.finished_at for one in kb.erasures())
    for name in names:
        with pytest.raises(NotFoundError):
            kb.messages.window(name, max_tokens=100)


def closed(kb: KnowledgeBase) -> dict[date, bool]:
    return dict(rows_of(kb, "select month, closed_at is not null from kb.archive_month"))


def test_what_is_hot_is_gone_at_once_and_is_not_taken_in_again(kb: KnowledgeBase) -> None:
    before = seen(kb)
    erased = kb.erase(conversation="a")
    assert_erased(kb, before, "a")
    counts = {name: erased.receipt[name] for name in ("conversations", "hot_rows", "cold_rows")}
    assert counts == {"conversations": 1, "hot_rows": 2 * ROWS, "cold_rows": 0}
    assert erased.subject_hash == Subject("conversation", "a").hash

    again = kb.messages.append([*messages(JANUARY, "a"), *messages(FEBRUARY, "a", first=ROWS)])
    assert (again.added, again.erased) == (0, 2 * ROWS)
    assert_erased(kb, before, "a")
    [(user,)] = rows_of(kb, "select user_id from kb.conversation where id = 'a'")
    assert user is None


def test_a_user_is_gone_from_the_archive_and_others_are_as_they_were(kb: KnowledgeBase) -> None:
    before = seen(kb)
    kb.archive_messages()
    assert in_objects(kb) == set(USERS)
    old = {key for _, _, _, key, _ in segments(kb, "committed")}
    seen(kb)
    cache = kb.settings.home_folder / "archive-cache"
    assert len(list(cache.glob("*.parquet"))) == 2

    erased = kb.erase(user="ann")
    assert list(cache.glob("*.parquet")) == [], "the old objects are not at hand any more"
    assert_erased(kb, before, "a", "b")
    assert [row[1:3] for row in segments(kb, "committed")] == [("rewrite", "committed")]
    receipt = erased.receipt
    assert (receipt["conversations"], receipt["cold_rows"], receipt["segments"]) == (2, 16, 2)
    assert {one["key"] for one in receipt["kept_objects"]} == old
    assert in_objects(kb, "retired") == set(USERS), "readers may still be at them"
    until = max(datetime.fromisoformat(one["until"]) for one in receipt["kept_objects"])
    assert timedelta(0) < until - datetime.now(UTC) <= KEPT
    assert remove_leftovers(kb.archiver, kb.archive_store, until + timedelta(seconds=1)) == 2
    assert not any(Path(kb.archive_store.url(key)).exists() for key in old)
    assert_erased(kb, before, "a", "b")


def test_the_ledger_lies_in_the_archive_without_names(kb: KnowledgeBase) -> None:
    kb.archive_messages()
    erased = kb.erase(user="ann")
    entry = json.loads(kb.archive_store.read(erased.receipt["ledger"]))
    assert entry["conversations"] == ["a", "b"]
    receipt = json.loads(kb.archive_store.read(erased.receipt_key))
    assert receipt == erased.receipt
    assert receipt["cold_rows"] == 16
    assert entry["subject_sha256"] == Subject("user", "ann").hash.hex()
    assert "ann" not in json.dumps([entry, receipt])
    assert "ann" not in str(kb.erasures())


def test_what_came_late_goes_too(kb: KnowledgeBase) -> None:
    kb.archive_messages()
    kb.messages.append(messages(JANUARY, "a", "c", first=10))
    before = seen(kb)
    erased = kb.erase(conversation="a")
    assert erased.receipt["late_rows"] == ROWS
    assert_erased(kb, before, "a")
    kb.archive_messages()
    assert {row[1] for row in segments(kb, "committed")} == {"rewrite", "late"}
    kb.erase(conversation="c")
    assert_erased(kb, before, "a", "c")


def test_a_restored_month_loses_its_rows_and_its_object(kb: KnowledgeBase) -> None:
    before = seen(kb)
    kb.archive_messages()
    kb.restore_month(JANUARY, hold_days=0)
    erased = kb.erase(conversation="a")
    assert erased.receipt["hot_rows"] == erased.receipt["cold_rows"] / 2 == ROWS
    assert_erased(kb, before, "a")
    assert [row[1:3] for row in segments(kb, "restored")] == [("rewrite", "restored")]
    kb.archive_messages()
    assert_erased(kb, before, "a")
    kb.restore_month(JANUARY)
    kb.restore_month(FEBRUARY)
    assert_erased(kb, before, "a")


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_month_whose_archiver_was_killed_is_opened_for_the_erasure_only(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(kb)
    monkeypatch.setattr("kb_assets.archive.stage.commit_month", killed)
    with pytest.raises(KeyboardInterrupt):
        kb.archive_messages()
    monkeypatch.undo()
    [(_, _, _, key, _)] = segments(kb, "copying", "stale")
    assert closed(kb) == {JANUARY: True, FEBRUARY: False}
    left = kb.settings.home_folder / "archive-work" / "message-2025-01-killed"
    left.mkdir(parents=True)

    erased = kb.erase(conversation="a")
    assert not left.exists(), "it may hold what was erased"
    assert_erased(kb, before, "a")
    assert [one["key"] for one in erased.receipt["kept_objects"]] == [key]
    assert closed(kb) == {JANUARY: True, FEBRUARY: False}
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        rows_as("migrator", kb, "delete from kb.message where conversation_id = 'c' returning id")
    kb.archive_messages()
    assert hot(kb) == set()
    assert_erased(kb, before, "a")


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[KnowledgeBase], Any]]:
    """Start an archiver that stops before its commit; what is returned lets it go on."""
    reached, go_on = threading.Event(), threading.Event()
    commit = archiving.prove
    failures: list[BaseException] = []

    def wait(*arguments: Any) -> Any:
        proven = commit(*arguments)
        reached.set()
        assert go_on.wait(60)
        return proven

    def archive(kb: KnowledgeBase) -> None:
        try:
            kb.archive_messages([JANUARY])
        except BaseException as error:
            failures.append(error)

    threads: list[threading.Thread] = []

    def start(kb: KnowledgeBase) -> Callable[[], list[BaseException]]:
        monkeypatch.setattr("kb_assets.archive.stage.prove", wait)
        threads.append(threading.Thread(target=archive, args=(kb,)))
        threads[0].start()
        assert reached.wait(60)

        def finish() -> list[BaseException]:
            go_on.set()
            threads[0].join(60)
            return failures

        return finish

    yield start
    go_on.set()
    for thread in threads:
        thread.join(60)


def test_an_archiver_at_work_is_waited_for(kb: KnowledgeBase, open_kb: Open, paused: Any) -> None:
    before = seen(kb)
    finish = paused(kb)
    with pytest.raises(ArchiveBusyError):
        kb.erase(conversation="a")
    assert seen(kb) == before, "nothing was changed"
    assert kb.erasures() == ()
    patient = open_kb(limits={"lease_wait_seconds": 60})
    erasing_ = threading.Thread(target=lambda: patient.erase(conversation="a"))
    erasing_.start()
    assert finish() == []
    erasing_.join(60)
    assert_erased(kb, before, "a")


def test_an_archiver_that_lost_its_lease_commits_nothing(kb: KnowledgeBase, paused: Any) -> None:
    before = seen(kb)
    finish = paused(kb)
    lost = rows_as(
        "archiver",
        kb,
        "select pg_terminate_backend(pid, 10000) from pg_locks"
        " where locktype = 'advisory' and classid = %s::int::oid and granted",
        MONTH_LOCK_CLASS,
    )
    assert lost == [(True,)]
    kb.erase(conversation="a")
    assert [type(error) for error in finish()] == [LeaseLostError]
    assert_erased(kb, before, "a")
    kb.archive_messages()
    assert_erased(kb, before, "a")


STEPS = {
    "before the archive is looked at": "kb_assets.erasure.erase.rewrite_archive",
    "before a file is written": "kb_assets.erasure.rewrite.write_sorted",
    "before it is uploaded": "kb_assets.erasure.rewrite.prove",
    "before it is noted": "kb_assets.erasure.rewrite.note_replaced",
    "before it takes the old one's place": "kb_assets.erasure.rewrite._one",
    "before the old one is gone from here": "kb_assets.archive.cache.ObjectCache.remove",
    "before the receipt": "kb_assets.erasure.erase._last_facts",
    "before the receipt's file": "kb_assets.erasure.erase.receipt_of",
    "before the ledger's file": "kb_assets.object_store.ObjectStore.put_bytes",
    "before the ledger's file is noted": "kb_assets.erasure.erase.add_to_receipt",
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_it_is_hidden_and_is_finished_later(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = seen(kb)
    kb.archive_messages()
    monkeypatch.setattr(STEPS[step], killed)
    with pytest.raises(KeyboardInterrupt):
        kb.erase(user="ann")
    monkeypatch.undo()
    assert seen(kb) == of(before, "c", "d")
    assert [one.finished_at for one in kb.erasures()] == [None]
    [finished] = kb.resume_erasures()
    assert finished.receipt["cold_rows"] == 16
    assert_erased(kb, before, "a", "b")
    assert kb.resume_erasures() == ()
    assert kb.erase(user="ann") == finished, "asked for once more, it is the same"


def test_the_next_erasure_finishes_the_last(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(kb)
    kb.archive_messages()
    monkeypatch.setattr("kb_assets.erasure.erase.rewrite_archive", killed)
    with pytest.raises(KeyboardInterrupt):
        kb.erase(conversation="a")
    monkeypatch.undo()
    kb.erase(conversation="c")
    assert_erased(kb, before, "a", "c")


def test_the_next_run_of_the_archive_finishes_it(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(kb)
    kb.archive_messages()
    monkeypatch.setattr("kb_assets.erasure.erase.rewrite_archive", killed)
    with pytest.raises(KeyboardInterrupt):
        kb.erase(conversation="a")
    monkeypatch.undo()
    kb.archive_messages()
    assert [one.finished_at is not None for one in kb.erasures()] == [True]
    assert_erased(kb, before, "a")


def test_what_is_hidden_is_in_the_ledger_before_anything_else_can_fail(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb.archive_messages()
    monkeypatch.setattr("kb_assets.erasure.erase.rewrite_archive", killed)
    with pytest.raises(KeyboardInterrupt):
        kb.erase(user="ann")
    [request] = read_requests(kb.archive_store)
    assert (request.scope, request.conversations) == ("user", ("a", "b"))


def test_two_erasures_in_one_segment_lose_neither(
    kb: KnowledgeBase, open_kb: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(kb)
    kb.archive_messages()
    patient = open_kb(limits={"lease_wait_seconds": 60})
    other = threading.Thread(target=lambda: patient.erase(conversation="c"))
    fetch = rewrite.fetch_verified

    def another_comes_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(rewrite, "fetch_verified", fetch)
        other.start()
        while len(kb.erasures()) < 2:
            time.sleep(0.05)
        time.sleep(1)  # it waits for the month now
        return fetch(*arguments)

    monkeypatch.setattr(rewrite, "fetch_verified", another_comes_meanwhile)
    rewrite.rewrite_archive(kb.run(), kb.archive_store, hide(kb, "a"))
    other.join(60)
    assert_erased(kb, before, "a", "c")


def hide(kb: KnowledgeBase, name: str) -> int:
    request = Request.of(Subject("conversation", name))
    return conversations.hide_conversations(kb.run(), request, [name])


def test_an_erasure_that_lost_its_lease_changes_nothing(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(kb)
    rows_as("archiver", kb, "select kb.freeze_month('message', %s)", JANUARY)
    take = conversations.month_lease

    @contextmanager
    def overtaken(*arguments: Any, **others: Any) -> Iterator[Any]:
        with take(*arguments, **others) as lease:
            rows_as("archiver", kb, RAISE_FENCES)
            yield lease

    monkeypatch.setattr(conversations, "month_lease", overtaken)
    with pytest.raises(LeaseLostError):
        kb.erase(conversation="a")
    assert seen(kb) == before
    monkeypatch.undo()
    rows_as("archiver", kb, "select kb.thaw_month('message', %s)", JANUARY)
    kb.archive_messages()
    prove = rewrite.prove

    def overtaken_last(*arguments: Any) -> Any:
        proven = prove(*arguments)
        rows_as("archiver", kb, RAISE_FENCES)
        return proven

    monkeypatch.setattr(rewrite, "prove", overtaken_last)
    with pytest.raises(LeaseLostError):
        kb.erase(conversation="a")
    assert [row[1:3] for row in segments(kb, "committed")] == [("month", "committed")] * 2
    monkeypatch.undo()
    kb.resume_erasures()
    assert_erased(kb, before, "a")


def test_a_reader_of_a_frozen_month_is_waited_for_and_holds_nobody_up(
    kb: KnowledgeBase, database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "_PAUSE_SECONDS", 0.1)
    before = seen(kb)
    rows_as("archiver", kb, "select kb.freeze_month('message', %s)", JANUARY)
    with psycopg.connect(database_urls.reader) as reader:
        reader.execute("select count(*) from kb.message")
        erasing_ = threading.Thread(target=lambda: kb.erase(conversation="a"))
        erasing_.start()
        time.sleep(0.5)
        assert len(rows_of(kb, "select id from kb.message")) == len(before)
        reader.rollback()
        erasing_.join(60)
    assert_erased(kb, before, "a")


def test_a_restored_backup_is_told_again(kb: KnowledgeBase) -> None:
    before = seen(kb)
    kb.archive_messages([FEBRUARY])
    ledger = [kb.erase(user="ann"), kb.erase(conversation="c")]
    entries = [json.loads(kb.archive_store.read(one.receipt["ledger"])) for one in ledger]
    for table in ("erased_conversation", "erasure", "archive_segment", "message", "conversation"):
        rows_as("migrator", kb, f"delete from kb.{table} returning 1")
    rows_as("migrator", kb, "update kb.archive_month set closed_at = null returning 1")
    kb.messages.append(messages(JANUARY, *SHARED_MONTH))
    kb.archive_messages()
    rows_as("migrator", kb, "delete from kb.conversation where id = 'b' returning 1")

    for _ in range(2):
        hide_again(kb.run(), [Request.from_entry(entry) for entry in reversed(entries)])
        finish_erasures(kb.run(), kb.archive_store)
        assert_erased(kb, of(before, "d"), "a", "b", "c")
    assert kb.messages.append(messages(FEBRUARY, "b")).erased == ROWS
    assert [one.requested_at for one in kb.erasures()] == [one.requested_at for one in ledger]
    assert [one.receipt["ledger"] for one in kb.erasures()] == [one["key"] for one in entries]


def test_without_an_archive_only_the_database_is_asked(kb: KnowledgeBase, open_kb: Open) -> None:
    before = seen(kb)
    alone = open_kb(archive=None)
    hot_only = alone.erase(conversation="d")
    assert hot_only.finished_at is not None
    assert alone.backup_store.size(hot_only.receipt["ledger"]) is not None
    kb.archive_messages()
    with pytest.raises(SettingsError, match=r"2025-01 is archived"):
        alone.erase(conversation="a")
    assert len(kb.resume_erasures()) == 1
    assert all("ledger" in one.receipt for one in kb.erasures())
    assert_erased(kb, before, "a", "d")


def test_what_is_not_known_is_told_and_nothing_happens(kb: KnowledgeBase) -> None:
    before = seen(kb)
    first = kb.erase(user="ann")
    for unknown in ({"user": "anne"}, {"conversation": "aa"}, {"user": ""}, {"user": "\0"}):
        with pytest.raises((NotFoundError, SettingsError)):
            kb.erase(**unknown)
    assert kb.erase(conversation="a") == first, "erased as one of the user's"
    assert kb.erasures() == (first,)
    assert_erased(kb, before, "a", "b")


def test_a_plan_changes_nothing(kb: KnowledgeBase) -> None:
    before = seen(kb)
    kb.archive_messages([JANUARY])
    plan = kb.plan_erasure(user="ann")
    assert plan.counts == {"conversations": 2, "hot_rows": 2 * ROWS, "late_rows": 0}
    assert plan.segments == 1
    assert plan.segment_bytes > 0
    assert seen(kb) == before
    assert kb.erasures() == ()


def test_a_damaged_object_leaves_the_erasure_unfinished(kb: KnowledgeBase) -> None:
    before = seen(kb)
    kb.archive_messages()
    file = Path(kb.archive_store.url(segments(kb, "committed")[0][3]))
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ArchiveCorruptError):
        kb.erase(conversation="a")
    assert segments(kb, "retired") == [], "nothing is replaced by what cannot be read"
    file.write_bytes(content)
    kb.resume_erasures()
    assert_erased(kb, before, "a")
