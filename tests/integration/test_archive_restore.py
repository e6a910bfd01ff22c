"""Months come back: every row as it was, once, and nothing at all if something is wrong."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from kb_assets.archive import restore
from kb_assets.archive.lease import month_lease
from kb_assets.archive.relation import MESSAGES
from kb_assets.archive.stage import months_due
from kb_assets.archive.store import Segment, find_segments
from kb_assets.errors import (
    ArchiveBusyError,
    ArchiveCorruptError,
    LeaseLostError,
    NotFoundError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.message import Message
from kb_assets.settings import Settings

JANUARY = date(2023, 1, 1)
START = datetime(2023, 1, 1, tzinfo=UTC)
HARD = ["", "it's \\ \t\n\r\x7f", "🙂\u202e\U0010ffff", "x" * 3_000_000]


def talk(conversation: str, count: int = 10, after: int = 0, **fields: object) -> list[Message]:
    """Return some messages of January, a minute apart."""
    return [
        Message(
            f"{conversation}-{number}",
            conversation,
            START + timedelta(minutes=after + number),
            **{"role": "user", "content": f"This is {number}.", "token_count": 4, **fields},
        )
        for number in range(count)
    ]


@pytest.fixture
def kb(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[KnowledgeBase]:
    with KnowledgeBase(make_settings(archive={"uri": str(tmp_path / "cold")})) as opened:
        yield opened


def rows(kb: KnowledgeBase, statement: str, **named: object) -> list[tuple[Any, ...]]:
    with kb.archiver.transaction() as connection:
        return connection.execute(statement, named or None).fetchall()


def hashes(kb: KnowledgeBase, table: str = "message") -> dict[str, bytes]:
    expression = MESSAGES.row_hash().as_string()
    return dict(rows(kb, f"select id, {expression} from kb.{table} hot"))


def segments(kb: KnowledgeBase, *states: str) -> list[Segment]:
    with kb.archiver.transaction() as connection:
        return find_segments(connection, states=states or ("committed",))


def state(kb: KnowledgeBase) -> list[tuple[Any, ...]]:
    """Return all that a restore may change, except who held the month last."""
    return [
        *sorted(hashes(kb).items()),
        *sorted(hashes(kb, "message_late").items()),
        *rows(kb, "select month, closed_at, hold_until from kb.archive_month order by month"),
        *rows(kb, "select id, state from kb.archive_segment order by id"),
        *rows(kb, "select relname from pg_class where relname like 'message_20%' order by 1"),
    ]


def test_a_month_comes_back_as_it_was(kb: KnowledgeBase) -> None:
    for number, content in enumerate(HARD):
        kb.messages.append(
            talk(f"c{number}", content=content, metadata={"a": [1.5, None, content[:10]]})
        )
    before = hashes(kb)
    kb.archive_messages()
    assert hashes(kb) == {}
    (segment,) = segments(kb)
    report = kb.restore_month(JANUARY, hold_days=7)
    assert (report.segments, report.rows, report.present) == (1, 40, 0)
    assert (report.erased, report.late) == (0, 0)
    assert report.held_until - datetime.now(UTC) > timedelta(days=6)
    assert hashes(kb) == before
    assert [one.id for one in segments(kb, "restored")] == [segment.id]
    assert Path(kb.archive_store.url(segment.object_key)).exists()
    assert kb.query_messages("select count(*) from messages").rows == [(40,)]
    assert not list((kb.settings.home_folder / "archive-work").glob("*restored*"))


def test_twice_changes_nothing_but_how_long_it_is_held(kb: KnowledgeBase) -> None:
    kb.messages.append(talk("c"))
    kb.archive_messages()
    first = kb.restore_month(JANUARY, hold_days=7)
    before = state(kb)
    again = kb.restore_month(JANUARY, hold_days=3)
    assert (again.segments, again.rows, again.present, again.late) == (0, 0, 0, 0)
    assert again.held_until == first.held_until
    assert state(kb) == before
    longer = kb.restore_month(JANUARY, hold_days=30)
    assert longer.held_until > first.held_until
    assert rows(kb, "select hold_until from kb.archive_month where month = '2023-01-01'") == [
        (longer.held_until,)
    ]


def test_a_month_that_came_back_is_written_to_and_leaves_again(kb: KnowledgeBase) -> None:
    kb.messages.append(talk("c"))
    kb.archive_messages()
    kb.restore_month(JANUARY, hold_days=1)
    now = datetime.now(UTC)
    assert kb.messages.append(talk("c", 12)).late == 0
    assert kb.messages.window("c", max_tokens=8).messages[-1].id == "c-11"
    assert months_due(kb.database, now, 90) == ()
    assert kb.archive_messages([JANUARY]).months[0].note.startswith("It was restored")
    assert months_due(kb.database, now + timedelta(days=2), 90) == (JANUARY,)
    before = hashes(kb)
    rows(kb, "update kb.archive_month set hold_until = now() returning 1")
    assert kb.archive_messages().months[0].rows == 12
    assert len(segments(kb, "retired")) == 1
    assert kb.query_messages("select count(*), count(distinct id) from messages").rows == [(12, 12)]
    assert kb.restore_month(JANUARY).rows == 12
    assert hashes(kb) == before


def test_what_came_late_joins_and_what_was_repeated_goes(kb: KnowledgeBase) -> None:
    kb.messages.append(talk("c"))
    before = hashes(kb)
    kb.archive_messages()
    assert kb.messages.append([*talk("c", 12), *talk("d", 3)]).late == 15
    kb.archive_messages()
    assert [one.source for one in segments(kb)] == ["month", "late"]
    assert kb.messages.append([*talk("c", 14), *talk("e", 2)]).late == 16
    report = kb.restore_month(JANUARY)
    assert (report.segments, report.rows, report.late) == (2, 15, 4)
    assert hashes(kb, "message_late") == {}
    after = hashes(kb)
    assert before.items() <= after.items()
    assert len(after) == 19
    assert kb.query_messages("select count(*), count(distinct id) from messages").rows == [(19, 19)]


def test_a_month_that_never_left_is_only_held(kb: KnowledgeBase) -> None:
    kb.messages.append(talk("c"))
    before = hashes(kb)
    report = kb.restore_month(JANUARY)
    assert (report.segments, report.rows, report.late) == (0, 0, 0)
    assert hashes(kb) == before
    assert kb.archive_messages().months == ()
    with pytest.raises(NotFoundError, match="1999-01"):
        kb.restore_month(date(1999, 1, 1))


def erase(connection: psycopg.Connection, conversation: str) -> None:
    """Write an erasure into the ledger, as `kb erase` begins."""
    connection.execute("select from kb.conversation where id = %s for update", (conversation,))
    connection.execute(
        "with e as (insert into kb.erasure (scope, subject_hash, run_id)"
        " values ('conversation', '', 'test') returning id)"
        " insert into kb.erased_conversation select %s, id from e",
        (conversation,),
    )
    connection.execute("delete from kb.message where conversation_id = %s", (conversation,))


def test_what_was_erased_does_not_come_back(kb: KnowledgeBase) -> None:
    kb.messages.append([*talk("gone"), *talk("kept")])
    kb.archive_messages()
    with kb.archiver.transaction() as connection:
        erase(connection, "gone")
    report = kb.restore_month(JANUARY)
    assert (report.rows, report.erased) == (10, 10)
    assert {id_.partition("-")[0] for id_ in hashes(kb)} == {"kept"}


def waits_for(kb: KnowledgeBase, others: psycopg.Connection, work: Callable[[], object]) -> None:
    """Start work while another transaction is open; it must wait for that to end."""
    working = threading.Thread(target=work)
    working.start()
    working.join(2)
    assert working.is_alive()
    others.commit()
    working.join(30)
    assert not working.is_alive()


def test_an_erasure_under_way_is_waited_for(kb: KnowledgeBase) -> None:
    kb.messages.append([*talk("gone"), *talk("kept")])
    kb.archive_messages()
    with psycopg.connect(kb.urls.archiver) as other:
        erase(other, "gone")
        waits_for(kb, other, lambda: kb.restore_month(JANUARY))
    assert {id_.partition("-")[0] for id_ in hashes(kb)} == {"kept"}


def test_a_late_message_under_way_is_waited_for(kb: KnowledgeBase) -> None:
    kb.messages.append(talk("c"))
    kb.archive_messages()
    with psycopg.connect(kb.urls.archiver) as other:
        other.execute("select from kb.archive_month where month = '2023-01-01' for share")
        names = ", ".join(MESSAGES.names)
        other.execute(
            f"insert into kb.message_late ({names}) values"
            " ('late', 'c', '2023-01-05', 'user', 'x', null, null, '{}', 1, null, null, null)"
        )
        waits_for(kb, other, lambda: kb.restore_month(JANUARY))
    assert "late" in hashes(kb)
    assert hashes(kb, "message_late") == {}


def test_rows_that_are_not_those_of_the_archive_stop_it(kb: KnowledgeBase) -> None:
    kb.messages.append(talk("c", 12))
    kb.archive_messages()
    rows(kb, "select kb.add_month('message', '2023-01-01')")
    names = ", ".join(MESSAGES.names)
    for number in range(11):
        rows(
            kb,
            f"insert into kb.message ({names}) values (%(id)s, 'c', %(at)s, 'user', 'other',"
            " null, null, '{}', 4, null, null, null) returning 1",
            id=f"c-{number}",
            at=START + timedelta(minutes=number),
        )
    before = state(kb)
    with pytest.raises(ArchiveCorruptError) as caught:
        kb.restore_month(JANUARY)
    assert "c-0, c-1, c-10, c-2" in caught.value.why
    assert "and more" in caught.value.why
    assert "c-11" not in caught.value.why
    assert state(kb) == before
    rows(kb, "delete from kb.message where content = 'other' returning 1")
    assert kb.restore_month(JANUARY).rows == 12


def test_rows_that_are_there_already_are_left_alone(kb: KnowledgeBase) -> None:
    """As after a restore of the database from a copy that is older than the archive."""
    kb.messages.append(talk("c"))
    kept = rows(kb, "select * from kb.message order by id limit 4")
    before = hashes(kb)
    kb.archive_messages()
    rows(kb, "select kb.add_month('message', '2023-01-01')")
    with kb.archiver.transaction() as connection:
        for row in kept:
            values = [Jsonb(one) if isinstance(one, dict) else one for one in row]
            connection.execute(f"insert into kb.message values ({', '.join(['%s'] * 12)})", values)
    report = kb.restore_month(JANUARY)
    assert (report.rows, report.present) == (6, 4)
    assert hashes(kb) == before


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_object_brings_nothing_back(kb: KnowledgeBase, damage: str) -> None:
    kb.messages.append(talk("c"))
    kb.archive_messages()
    kb.messages.append(talk("d"))
    kb.archive_messages()
    before = state(kb)
    file = Path(kb.archive_store.url(segments(kb)[1].object_key))
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        half = len(whole) // 2
        middle = b"" if damage == "cut" else bytes([whole[half] ^ 1])
        file.write_bytes(whole[:half] + middle + whole[half + 1 :])
    with pytest.raises(ArchiveCorruptError) as caught:
        kb.restore_month(JANUARY)
    assert str(file) in caught.value.what
    assert state(kb) == before
    file.write_bytes(whole)
    assert kb.restore_month(JANUARY).rows == 20


def test_two_runs_do_not_meet_in_a_month(kb: KnowledgeBase) -> None:
    kb.messages.append(talk("c"))
    kb.archive_messages()
    with (
        month_lease(kb.archiver, MESSAGES, JANUARY, run_id="other"),
        pytest.raises(ArchiveBusyError, match="other"),
    ):
        kb.restore_month(JANUARY)
    assert kb.restore_month(JANUARY).rows == 10


def test_a_run_that_lost_the_month_changes_nothing(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb.messages.append(talk("c"))
    kb.archive_messages()
    before = state(kb)
    fetch_verified = restore.fetch_verified

    def fetch_slowly(*arguments: Any) -> Path:
        rows(kb, "update kb.archive_month set fence = fence + 1 returning 1")
        return fetch_verified(*arguments)

    monkeypatch.setattr(restore, "fetch_verified", fetch_slowly)
    with pytest.raises(LeaseLostError):
        kb.restore_month(JANUARY)
    assert state(kb) == before
