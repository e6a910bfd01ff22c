"""A database that is restored to an older state: erasures stay, and so does what was archived.

The backup is a copy of the database; what comes after it happens in the first one, which is lost.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from kb_assets.archive.clean import KEPT, remove_leftovers
from kb_assets.archive.reconcile import ReconcileReport
from kb_assets.backup.replay import ReplayReport, replay_erasures
from kb_assets.database.connect import Database
from kb_assets.database.embedded import Major
from kb_assets.database.run import Run
from kb_assets.errors import BackupCorruptError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.message import Message
from kb_assets.settings import Settings
from tests.conftest import Server
from tests.oracle import rows_as, rows_of

JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
LATER = KEPT + timedelta(days=1)

Open = Callable[..., KnowledgeBase]
BackUp = Callable[[KnowledgeBase], Open]
"""Makes a backup; what it returns restores it, with other settings if some are given."""


@pytest.fixture
def open_kb(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Open]:
    opened: list[KnowledgeBase] = []

    def open_(update: dict[str, Any] | None = None, **overrides: Any) -> KnowledgeBase:
        given = {"archive": {"uri": str(tmp_path / "archive")}} | overrides
        settings = make_settings(**given).model_copy(update=update or {})
        opened.append(KnowledgeBase(settings))
        return opened[-1]

    yield open_
    for kb in opened:
        kb.close()


@pytest.fixture
def back_up(servers: Callable[[Major], Server], open_kb: Open) -> Iterator[BackUp]:
    server = servers(16)
    with ExitStack() as stack:

        def copy(name: str) -> str:
            return stack.enter_context(server.new_database(name))

        def back_up_(kb: KnowledgeBase) -> Open:
            kb.close()
            backup = copy(str(conninfo_to_dict(kb.settings.database_url)["dbname"]))

            def restore(**overrides: Any) -> KnowledgeBase:
                urls = server.urls(copy(backup))
                kb.close()
                update = {
                    "database_url": urls.writer,
                    "read_database_url": urls.reader,
                    "archive_database_url": urls.archiver,
                }
                return open_kb(update, **overrides)

            return restore

        yield back_up_


@pytest.fixture
def kb(open_kb: Open) -> KnowledgeBase:
    return open_kb()


def say(kb: KnowledgeBase, month: date, *names: str, number: int = 0) -> None:
    """Append a message to conversations, each of a user of the same name in capitals."""
    moment = datetime(month.year, month.month, 1, tzinfo=UTC) + timedelta(minutes=number)
    kb.messages.append(
        Message(f"{name}{number}", name, moment, "user", f"{name} {number}", user_id=name.upper())
        for name in names
    )


def replay(kb: KnowledgeBase) -> ReplayReport:
    archive = kb.archive_store if kb.settings.archive else None
    return replay_erasures(kb.run(), archive, kb.backup_store)


def replayed(kb: KnowledgeBase) -> ReconcileReport:
    report = replay(kb).archive
    assert report is not None
    return report


def seen(kb: KnowledgeBase) -> list[str]:
    return [id_ for (id_,) in kb.query_messages("select id from messages order by id").rows]


def states(kb: KnowledgeBase) -> list[tuple[str, str]]:
    return rows_of(kb, "select source, state from kb.archive_segment order by id")


def let_days_pass(kb: KnowledgeBase) -> None:
    """What is left over is removed for good."""
    remove_leftovers(kb.archiver, kb.archive_store, datetime.now(UTC) + LATER)


def objects(kb: KnowledgeBase) -> set[str]:
    root = Path(kb.archive_store.uri)
    return {str(file.relative_to(root)) for file in root.rglob("*.parquet")}


def stopped(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def archive_stopped(kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(step, stopped)
        kb.archive_messages()


def test_what_was_erased_in_the_archive_is_not_looked_for_in_what_is_gone(
    kb: KnowledgeBase, back_up: BackUp
) -> None:
    say(kb, JANUARY, "a", "b", "c")
    say(kb, FEBRUARY, "a")
    kb.archive_messages()
    restore = back_up(kb)
    kb.erase(user="A")
    kb.erase(conversation="b")
    let_days_pass(kb)

    restored = restore()
    report = replay(restored)
    assert (report.requests, report.hidden, len(report.finished)) == (2, 2, 2)
    assert report.archive == ReconcileReport(replaced=2)
    assert seen(restored) == ["c0"]
    assert restored.verify_archive().damaged == ()
    assert states(restored) == [("month", "retired")] * 2 + [("rewrite", "committed")]
    assert [one.receipt["conversations"] for one in restored.erasures()] == [1, 1]
    assert all(one.finished_at for one in restored.erasures())
    again = replay(restored)
    assert (again.hidden, again.finished, again.archive) == (0, (), ReconcileReport())


def test_an_erasure_that_the_lost_database_did_not_finish_is_finished(
    kb: KnowledgeBase, back_up: BackUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(kb, JANUARY, "a", "b")
    restore = back_up(kb)
    kb.archive_messages()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("kb_assets.erasure.erase.rewrite_archive", stopped)
        kb.erase(conversation="a")

    restored = restore()
    assert replayed(restored).months == [JANUARY]
    assert seen(restored) == ["b0"]
    restored.archive_messages()
    let_days_pass(restored)
    assert seen(restored) == ["b0"]
    [(key,)] = rows_of(
        restored, "select object_key from kb.archive_segment where state = 'committed'"
    )
    assert objects(restored) == {key}


def test_months_that_left_after_the_backup_come_back_with_what_it_did_not_have(
    kb: KnowledgeBase, back_up: BackUp
) -> None:
    say(kb, JANUARY, "a")
    restore = back_up(kb)
    say(kb, JANUARY, "a", "b", number=1)
    say(kb, FEBRUARY, "b")
    kb.archive_messages()
    kb.messages.append(
        [Message("hot", "a", datetime.now(UTC), "user", "It is in no archive, and in no backup.")]
    )

    restored = restore()
    told = replay(restored)
    report = told.archive
    assert report is not None
    assert (report.months, report.rows) == ([JANUARY, FEBRUARY], 3)
    assert "2025-01, 2025-02, 3 messages" in told.told[1]
    assert seen(restored) == ["a0", "a1", "b0", "b1"]
    window = restored.messages.window("a", max_tokens=100)
    assert ([one.id for one in window.messages], window.earlier) == (["a0", "a1"], 0)
    say(restored, JANUARY, "a", number=2)
    assert len(restored.messages.window("a", max_tokens=100).messages) == 3
    restored.archive_messages()
    let_days_pass(restored)
    assert seen(restored) == ["a0", "a1", "a2", "b0", "b1"]
    assert len(objects(restored)) == 2
    found = restored.query_messages(
        "select id from messages where conversation_id = 'b' order by 1"
    )
    assert found.rows == [("b0",), ("b1",)]
    restored.erase(conversation="b")
    assert seen(restored) == ["a0", "a1", "a2"]


def test_a_month_that_was_archived_twice_is_taken_from_the_second_time(
    kb: KnowledgeBase, back_up: BackUp
) -> None:
    say(kb, JANUARY, "a")
    kb.archive_messages()
    restore = back_up(kb)
    kb.restore_month(JANUARY, hold_days=0)
    say(kb, JANUARY, "b", number=1)
    kb.archive_messages()
    let_days_pass(kb)

    restored = restore()
    assert replayed(restored) == ReconcileReport(months=[JANUARY], rows=2)
    assert seen(restored) == ["a0", "b1"]
    restored.archive_messages()
    let_days_pass(restored)
    restored.erase(conversation="b")
    assert seen(restored) == ["a0"]


def test_of_two_attempts_nothing_is_lost(
    kb: KnowledgeBase, back_up: BackUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(kb, JANUARY, "a")
    kb.archive_messages()
    restore = back_up(kb)
    kb.restore_month(JANUARY, hold_days=0)
    archive_stopped(kb, monkeypatch, "kb_assets.archive.stage.commit_month")
    kb.restore_month(JANUARY, hold_days=0)
    say(kb, JANUARY, "a", number=1)
    kb.archive_messages()

    restored = restore()
    assert replayed(restored) == ReconcileReport(months=[JANUARY], rows=2)
    assert seen(restored) == ["a0", "a1"]


def test_what_came_after_a_month_was_erased_as_a_whole_is_kept(
    kb: KnowledgeBase, back_up: BackUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(kb, JANUARY, "a")
    kb.archive_messages()
    restore = back_up(kb)
    kb.restore_month(JANUARY, hold_days=0)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("kb_assets.erasure.rewrite._retire", stopped)
        kb.erase(conversation="a")
    say(kb, JANUARY, "b")
    kb.archive_messages()

    restored = restore()
    replay(restored)
    assert seen(restored) == ["b0"]


def test_no_number_is_given_to_two_objects(
    kb: KnowledgeBase, back_up: BackUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(kb, JANUARY, "a")
    restore = back_up(kb)
    archive_stopped(kb, monkeypatch, "kb_assets.archive.segment.fetch_verified")
    kb.archive_messages()
    let_days_pass(kb)

    restored = restore()
    replay(restored)
    restored.archive_messages()
    let_days_pass(restored)
    assert seen(restored) == ["a0"]
    assert [key.split("/")[-1][:10] for key in objects(restored)] == ["0000000004"]


def test_what_was_about_to_be_replaced_is_replaced(
    kb: KnowledgeBase, back_up: BackUp, servers: Callable[[Major], Server]
) -> None:
    """The backup is of the moment before the commit: it has heard of the new object."""
    say(kb, JANUARY, "a", "b")
    kb.archive_messages()
    restore = back_up(kb)
    kb.erase(conversation="a")
    [(key,)] = rows_of(kb, "select object_key from kb.archive_segment where state = 'committed'")
    let_days_pass(kb)

    restored = restore()
    rows_as(
        "archiver",
        restored,
        "insert into kb.archive_segment (month_id, source, low, high, fence, run_id, state,"
        " object_key, sha256, bytes, rows, row_hash_sum, conversation_low, conversation_high)"
        " select month_id, 'rewrite', low, high, fence, run_id, 'copying', %s,"
        " decode(substr(split_part(%s, '-', 2), 1, 64), 'hex'), 0, 0, '', 'b', 'b'"
        " from kb.archive_segment returning id",
        key,
        key,
    )
    replay(restored)
    assert states(restored) == [("month", "retired"), ("rewrite", "committed")]
    let_days_pass(restored)
    restored.archive_messages()
    assert objects(restored) == {key}


def test_damage_keeps_its_own_month_as_it_is(kb: KnowledgeBase, back_up: BackUp) -> None:
    say(kb, JANUARY, "a", "b")
    say(kb, FEBRUARY, "a", "b", number=1)
    kb.archive_messages()
    restore = back_up(kb)
    kb.erase(conversation="a")
    [bad, _] = [
        Path(kb.archive_store.url(key))
        for (key,) in rows_of(
            kb, "select object_key from kb.archive_segment where source = 'rewrite' order by id"
        )
    ]
    content = bad.read_bytes()
    bad.write_bytes(content[:-1])

    restored = restore()
    told = replay(restored)
    report = told.archive
    assert report is not None
    assert report.replaced == 1
    [problem] = report.problems
    assert problem.startswith("2025-01: ")
    assert told.told == (
        "Erased again: 1 of 1 subjects of the ledger.",
        "Replaced in the archive since the backup: 1.",
        f"To be looked at: {problem}",
    )
    assert str(bad) in problem
    assert seen(restored) == ["b0", "b1"], "written anew from the old object, which is still there"
    assert rows_of(restored, "select id from kb.archive_segment where state = 'stale'") == []

    assert replayed(restored) == ReconcileReport(leftovers=1)
    assert replayed(restored) == ReconcileReport()

    for note in bad.parent.glob("*.replaced-*"):
        note.write_bytes(note.read_bytes()[:-1])
    another = restore()
    [problem] = replayed(another).problems
    assert ".replaced-" in problem
    assert seen(another) == ["b0", "b1"]


def test_objects_of_others_are_left_alone(kb: KnowledgeBase, back_up: BackUp) -> None:
    say(kb, JANUARY, "a")
    restore = back_up(kb)
    kb.archive_messages()
    root = Path(kb.archive_store.uri)
    others = ["message/x.parquet", "message/year=2025/month=01/0000000001.parquet", "other.json"]
    others += ["message/year=2025/month=13/0000000001-" + "ab" * 32 + ".parquet"]
    for name in others:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("another program's")
    restored = restore()
    assert replayed(restored) == ReconcileReport(months=[JANUARY])
    restored.archive_messages()
    let_days_pass(restored)
    assert all((root / name).read_text() == "another program's" for name in others)


def test_without_an_archive_the_ledger_is_beside_the_backups(
    open_kb: Open, back_up: BackUp, folder: Path, an_hour_later: None
) -> None:
    (folder / "okapi.md").write_text("The okapi lives in the rain forest.\n")
    (folder / "heron.md").write_text("The heron lives at the pond.\n")
    kb = open_kb(archive=None)
    kb.index()
    say(kb, JANUARY, "a", "b")
    restore = back_up(kb)
    erased = [kb.erase(document="notes/okapi.md"), kb.erase(conversation="a")]
    with_archive = open_kb()
    with_archive.erase(conversation="b")
    with_archive.close()

    restored = restore()
    report = replay(restored)
    assert (report.requests, report.hidden) == (3, 3)
    assert {hit.path for hit in restored.search("okapi heron")} == {"heron.md"}
    restored.index()
    assert {hit.path for hit in restored.search("okapi heron")} == {"heron.md"}
    assert rows_of(restored, "select id from kb.message") == []
    assert [one.requested_at for one in restored.erasures()][:2] == [
        one.requested_at for one in erased
    ]
    without = restore(archive=None)
    assert (replay(without).requests, replay(without).archive) == (2, None)
    assert rows_of(without, "select id from kb.message") == [("b0",)]


def test_a_damaged_entry_is_no_reason_to_forget_what_it_told_of(
    kb: KnowledgeBase, back_up: BackUp
) -> None:
    say(kb, JANUARY, "a", "b")
    restore = back_up(kb)
    entries = [
        Path(kb.archive_store.url(kb.erase(conversation=name).receipt["ledger"])) for name in "ab"
    ]
    content = entries[1].read_text()
    restored = restore()
    for damage in (content[:-1], "[]", content.replace('"conversations"', '"conversation"')):
        entries[1].write_text(damage)
        with pytest.raises(BackupCorruptError, match=str(entries[1])):
            replay(restored)
        assert restored.erasures() == (), "nothing was changed"
    entries[1].write_text(content)
    assert replay(restored).hidden == 2
    assert seen(restored) == []


def test_it_is_done_before_anybody_can_use_the_database(
    kb: KnowledgeBase, back_up: BackUp, servers: Callable[[Major], Server]
) -> None:
    """The row of the schema's revision is restored last: until then the database is nobody's."""
    say(kb, JANUARY, "a", "b")
    kb.archive_messages()
    restore = back_up(kb)
    kb.erase(conversation="a")
    settings = restore().settings
    administrator = servers(16).url(
        str(conninfo_to_dict(settings.database_url)["dbname"]), "kb_migrator"
    )
    with psycopg.connect(administrator) as connection:
        revision = connection.execute("delete from kb.alembic_version returning *").fetchone()
    with Database(settings.database_url) as database, Database(administrator) as owner:
        run = Run(database, settings, "restore", archiver=lambda: owner)
        replay_erasures(run, kb.archive_store, kb.backup_store)
    with psycopg.connect(administrator) as connection:
        connection.execute("insert into kb.alembic_version values (%s)", revision)
    with KnowledgeBase(settings) as restored:
        assert seen(restored) == ["b0"]
