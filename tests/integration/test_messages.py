"""Messages in a real PostgreSQL: stored once, counted exactly, read in windows."""

import multiprocessing
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

from kb_assets.database.connect import Database, DatabaseUrls
from kb_assets.errors import (
    DatabaseUnavailableError,
    MessageRefusedError,
    NotFoundError,
)
from kb_assets.messages import intake
from kb_assets.messages import plan as planning
from kb_assets.messages.intake import Appended, Messages
from kb_assets.messages.message import Message
from kb_assets.messages.store import Overtaken

NOON = datetime(2025, 3, 31, 12, tzinfo=UTC)
MARCH = date(2025, 3, 1)


def message(id_: str, conversation: str = "c", after: float = 0, **others: object) -> Message:
    """Return a message some seconds after noon of the last of March."""
    given = {"role": "user", "content": f"hello {id_}", "token_count": 2, **others}
    return Message(id_, conversation, NOON + timedelta(seconds=after), **given)


def rows(database: Database, query: str, **named: object) -> list[tuple[Any, ...]]:
    with database.transaction() as connection:
        return connection.execute(query, named).fetchall()


def close(owner: Database, month: date) -> None:
    rows(
        owner,
        "update kb.archive_month set closed_at = now() where month = %(month)s returning id",
        month=month,
    )


def erase(connection: psycopg.Connection, conversation: str) -> None:
    """Leave a tombstone, as an erasure does, whoever holds the conversation already."""
    connection.execute("select from kb.conversation where id = %s for update", (conversation,))
    connection.execute(
        "with e as (insert into kb.erasure (scope, subject_hash, run_id)"
        " values ('conversation', '', 'test') returning id)"
        " insert into kb.erased_conversation select %s, id from e",
        (conversation,),
    )
    for table in ("message", "message_late"):
        connection.execute(f"delete from kb.{table} where conversation_id = %s", (conversation,))
    connection.execute("delete from kb.conversation where id = %s", (conversation,))


def assert_counted(database: Database, messages: Iterable[Message]) -> None:
    """Each message is there once; places have no gap, and totals are sums of what is before."""
    stored = rows(
        database,
        "select id, created_at, conversation_id, content, token_count,"
        " ordinal, total_bytes, total_tokens"
        " from kb.message order by conversation_id, ordinal",
    )
    late = rows(database, "select id, created_at, ordinal, total_bytes from kb.message_late")
    expected = Counter({(one.id, one.created_at): 1 for one in messages})
    assert Counter((id_, at) for id_, at, *_ in (*stored, *late)) == expected
    assert {place for *_, ordinal, total in late for place in (ordinal, total)} <= {None}
    totals: dict[str, tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for _, _, name, content, tokens, *counted in stored:
        number, size, sum_ = totals[name]
        totals[name] = (number + 1, size + len(content.encode()), sum_ + tokens)
        assert tuple(counted) == totals[name]
    known = rows(database, "select id, messages, bytes, tokens, first_at, last_at"
                           " from kb.conversation")  # fmt: skip
    times = defaultdict(list)
    for one in messages:
        times[one.conversation_id].append(one.created_at)
    assert {name: tuple(counted) for name, *counted in known} == {
        name: (*totals[name], min(at), max(at)) for name, at in times.items()
    }


@pytest.fixture
def messages(database: Database) -> Messages:
    return Messages(database)


def test_what_was_stored_is_not_stored_again(database: Database, messages: Messages) -> None:
    batch = [message(str(n), f"c{n % 3}", n * 20_000) for n in range(50)]
    assert messages.append(batch[:30]) == Appended(added=30)
    assert messages.append(batch[20:]) == Appended(added=20, repeated=10)
    assert Messages(database).append(reversed(batch)) == Appended(repeated=50)
    changed = message("0", "c0", content="something else")
    assert messages.append([changed, changed]) == Appended(repeated=2)
    assert_counted(database, batch)
    assert rows(database, "select content from kb.message where id = '0'") == [("hello 0",)]


def test_a_time_is_part_of_what_a_message_is_known_by(
    database: Database, messages: Messages
) -> None:
    batch = [message("m", after=after) for after in (0, 0.000001, 40 * 86_400)]
    assert messages.append(batch) == Appended(added=3)
    assert messages.append(batch) == Appended(repeated=3)
    assert_counted(database, batch)


def test_nothing_is_no_error(database: Database, messages: Messages) -> None:
    assert messages.append([]) == Appended()
    assert rows(database, "select from kb.archive_month") == []


def test_more_than_a_transaction_holds(
    database: Database, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "MAX_MESSAGES", 7)
    batch = [message(str(n), f"c{n % 2}", -n) for n in range(30)]
    assert messages.append(iter(batch)) == Appended(added=30)
    assert_counted(database, batch)


def test_months_are_those_of_utc(database: Database, messages: Messages) -> None:
    end = datetime(2025, 3, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    messages.append(
        Message(str(n), "c", end + timedelta(microseconds=n), "user", "") for n in range(2)
    )
    assert rows(database, "select id, tableoid::regclass::text from kb.message order by id") == [
        ("0", "kb.message_2025_03"),
        ("1", "kb.message_2025_04"),
    ]


class TestClosedMonths:
    """What comes for a month that takes nothing in any more."""

    def test_it_is_kept_apart(
        self, database: Database, owner: Database, messages: Messages
    ) -> None:
        first = [message("a"), message("b", after=86_400)]
        messages.append(first)
        close(owner, MARCH)
        second = [
            message("late", after=-9 * 86_400),
            message("a"),
            message("new", "d"),
            message("april", after=86_400),
        ]
        assert messages.append(second) == Appended(added=3, repeated=1, late=2)
        assert messages.append(second) == Appended(repeated=4)
        assert_counted(database, [*first, *second])
        late = rows(database, "select id from kb.message_late order by id")
        assert late == [("late",), ("new",)]
        assert messages.window("d", max_tokens=9).messages == ()
        assert messages.window("c", max_tokens=99).earlier == 0

    def test_its_users_and_keys_are_looked_at_all_the_same(
        self, database: Database, owner: Database, messages: Messages
    ) -> None:
        messages.append([message("a", user_id="ann")])
        close(owner, MARCH)
        messages.append([message("late")])
        for refused in (message("x", user_id="bob"), message("a", "d"), message("late", "d")):
            with pytest.raises(MessageRefusedError):
                messages.append([refused])
        assert rows(database, "select count(*) from kb.message_late") == [(1,)]

    def test_a_month_that_has_left_gets_no_partition_again(
        self, database: Database, owner: Database, messages: Messages
    ) -> None:
        messages.append([message("a")])
        with owner.transaction() as connection:
            connection.execute("update kb.archive_month set closed_at = now()")
            connection.execute("select kb.freeze_month('message', %s)", (MARCH,))
            connection.execute("select kb.drop_month('message', %s)", (MARCH,))
        assert Messages(database).append([message("b")]) == Appended(added=1, late=1)
        assert rows(database, "select to_regclass('kb.message_2025_03')") == [(None,)]

    def test_it_may_be_closed_while_messages_come_in(
        self, database: Database, owner: Database
    ) -> None:
        batch = [message(str(n), f"c{n % 5}", n * 600) for n in range(400)]
        Messages(database).append(batch[:1])
        with ThreadPoolExecutor() as pool:
            writers = [pool.submit(write, database, batch, seed) for seed in range(4)]
            close(owner, MARCH)
        late = sum(writer.result().late for writer in writers)
        assert sum(writer.result().added for writer in writers) == len(batch) - 1
        assert rows(database, "select count(*) from kb.message_late") == [(late,)]
        assert_counted(database, batch)

    def test_it_is_not_closed_under_a_writer(
        self, database: Database, owner: Database, messages: Messages
    ) -> None:
        messages.append([message("a")])
        with database.session() as connection, connection.transaction():
            connection.execute("select from kb.conversation for update")
            appended = started(messages.append, [message("b")])
            waits_for_a_lock(database)
            with pytest.raises(DatabaseUnavailableError), owner.transaction() as archiver:
                archiver.execute("set local lock_timeout = '100ms'")
                archiver.execute("update kb.archive_month set closed_at = now()")
        assert appended.result() == Appended(added=1)

    def test_a_month_that_nobody_knows_any_more_is_made_again(
        self, owner: Database, messages: Messages
    ) -> None:
        messages.append([message("a")])
        with owner.transaction() as connection:
            connection.execute("select kb.freeze_month('message', %s)", (MARCH,))
            connection.execute("select kb.drop_month('message', %s)", (MARCH,))
            connection.execute("delete from kb.archive_month")
        assert messages.append([message("b")]) == Appended(added=1)


class TestRefusals:
    """What cannot be taken in leaves no trace."""

    @pytest.fixture
    def before(self, database: Database, messages: Messages) -> Callable[[], list[Any]]:
        messages.append([message("a", user_id="ann"), message("b", "d")])
        return lambda: (
            rows(database, "select * from kb.message order by id")
            + rows(database, "select * from kb.conversation order by id")
        )

    @pytest.mark.parametrize(
        ("reason", "refused"),
        [
            ("other_user", message("x", user_id="bob")),
            ("id_taken", message("a", "e")),
            ("id_taken", message("fine", "e")),
        ],
    )
    def test_nothing_of_its_batch_is_stored(
        self,
        messages: Messages,
        before: Callable[[], list[Any]],
        reason: str,
        refused: Message,
    ) -> None:
        known = before()
        with pytest.raises(MessageRefusedError) as caught:
            messages.append([message("fine", "f"), refused])
        assert caught.value.reason == reason
        assert before() == known

    def test_the_rest_is_stored_if_somebody_hears_of_it(
        self, database: Database, messages: Messages, before: Callable[[], list[Any]]
    ) -> None:
        told = []
        batch = [message("x", user_id="bob"), message("fine", "f"), message("a", "e")]
        appended = messages.append(batch, on_refused=lambda place, why: told.append((place, why)))
        assert appended == Appended(added=1)
        assert sorted((place, why.reason) for place, why in told) == [
            (0, "other_user"),
            (2, "id_taken"),
        ]
        assert rows(database, "select id from kb.conversation order by id") == [
            *(("c",), ("d",), ("f",)),
        ]

    def test_a_user_is_filled_in(self, database: Database, messages: Messages) -> None:
        messages.append([message("a")])
        messages.append([message("b", user_id="ann")])
        messages.append([message("c")])
        assert rows(database, "select user_id from kb.conversation") == [("ann",)]


def test_nothing_comes_in_for_what_was_erased(
    database: Database, owner: Database, messages: Messages
) -> None:
    messages.append([message("a"), message("b", "d")])
    with owner.transaction() as connection:
        erase(connection, "c")
    assert messages.append([message("a"), message("c"), message("e", "d")]) == Appended(
        added=1, erased=2
    )
    assert_counted(database, [message("b", "d"), message("e", "d")])
    with pytest.raises(NotFoundError):
        messages.window("c", max_tokens=1)


class TestWriters:
    """Many at once, in one process or in several."""

    def test_threads_and_processes(self, database: Database, database_urls: DatabaseUrls) -> None:
        batch = [
            message(f"{n}", f"c{n % 11}", n * 9_999, content="é" * (n % 7), token_count=n % 5)
            for n in range(600)
        ]
        spawn = multiprocessing.get_context("spawn")
        with (
            ThreadPoolExecutor(4) as threads,
            ProcessPoolExecutor(3, mp_context=spawn) as processes,
        ):
            writers = [
                *(processes.submit(write, database_urls.writer, batch, seed) for seed in range(3)),
                *(threads.submit(write, database, batch, seed) for seed in range(3, 7)),
            ]
        appended = [writer.result() for writer in writers]
        assert sum(one.added for one in appended) == len(batch)
        assert sum(one.repeated for one in appended) == len(batch) * 6
        assert_counted(database, batch)

    def test_the_same_key_at_the_same_moment(self, database: Database, messages: Messages) -> None:
        messages.append([message("old")])
        with meanwhile(database, "insert into kb.message values ('m', 'other', %s, 'user', '',"
                                 " null, null, '{}', 0)", NOON) as commit:  # fmt: skip
            refused = started(messages.append, [message("m")])
            waits_for_a_lock(database)
            commit()
        with pytest.raises(MessageRefusedError, match="'other'"):
            refused.result()

    def test_the_same_late_key_at_the_same_moment(
        self, database: Database, owner: Database, messages: Messages
    ) -> None:
        messages.append([message("old")])
        close(owner, MARCH)
        with meanwhile(database, "insert into kb.message_late values ('m', 'other', %s, 'user',"
                                 " '', null, null, '{}', 0)", NOON) as commit:  # fmt: skip
            refused = started(messages.append, [message("m")])
            waits_for_a_lock(database)
            commit()
        with pytest.raises(MessageRefusedError, match="'other'"):
            refused.result()

    def test_a_conversation_is_erased_at_the_same_moment(
        self, database: Database, owner: Database, messages: Messages
    ) -> None:
        messages.append([message("a")])
        with owner.session() as connection, connection.transaction():
            erase(connection, "c")
            appended = started(messages.append, [message("b"), message("c", "d")])
            waits_for_a_lock(database)
        assert appended.result() == Appended(added=1, erased=1)
        assert_counted(database, [message("c", "d")])

    def test_a_deadlock_is_tried_again(self, database: Database, messages: Messages) -> None:
        messages.append([message("a")])
        with database.session() as connection, connection.transaction():
            connection.execute("select from kb.conversation for update")
            appended = started(messages.append, [message("b")])
            waits_for_a_lock(database)
            # The wrong way round: who waited first is sacrificed, and tries again.
            connection.execute("select from kb.archive_month for update")
        assert appended.result() == Appended(added=1)
        assert_counted(database, [message("a"), message("b")])

    def test_it_is_not_tried_for_ever(
        self, messages: Messages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries = count()

        def overtaken(*_: object) -> None:
            next(tries)
            raise Overtaken("Somebody was faster.")

        monkeypatch.setattr(intake, "hold_conversations", overtaken)
        with pytest.raises(DatabaseUnavailableError, match="Somebody was faster"):
            messages.append([message("a")])
        assert next(tries) == 4


def write(where: Database | str, batch: list[Message], seed: int) -> Appended:
    """Append all messages, in an order and in pieces of one's own."""
    order = random.Random(seed)
    left = order.sample(batch, len(batch))
    appended = Appended()
    with Database(where) if isinstance(where, str) else nullcontext(where) as database:
        writer = Messages(database)
        while left:
            size = order.randint(1, 60)
            appended += writer.append(left[:size])
            left = left[size:]
    return appended


def started(work: Callable[..., Any], *arguments: object) -> "Future[Any]":
    """Let a thread do something."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextmanager
def meanwhile(database: Database, statement: str, *values: object) -> Iterator[Callable[[], None]]:
    """Hold a transaction open that has run a statement."""
    with database.session() as connection:
        connection.execute("begin")
        connection.execute(statement, values)
        yield lambda: connection.execute("commit")


def waits_for_a_lock(database: Database) -> None:
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    give_up = time.monotonic() + 30
    while rows(database, waiting + " and datname = current_database()") != [(1,)]:
        assert time.monotonic() < give_up
        time.sleep(0.01)
