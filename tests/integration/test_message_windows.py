"""Windows over conversations, against a model in plain Python; and values at the edge of types."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kb_assets.database.connect import Database, DatabaseUrls
from kb_assets.errors import NotFoundError, SettingsError
from kb_assets.messages.intake import Messages
from kb_assets.messages.message import EARLIEST, MAX_CONTENT_BYTES, Message
from kb_assets.messages.window import Window

NAMES = count()
JANUARY = datetime(2025, 1, 15, tzinfo=UTC)


@pytest.fixture
def messages(database: Database) -> Messages:
    return Messages(database)


class Model:
    """A conversation as a list, in the order in which its messages came in."""

    def __init__(self) -> None:
        self.turns: list[Message] = []
        self.gone: set[int] = set()

    def add(self, batch: list[Message]) -> None:
        self.turns += sorted(batch, key=lambda one: one.created_at)

    def window(self, size: Callable[[Message], int], limit: int) -> tuple[list[str], int]:
        held, fitting = 0, []
        for one in reversed(self.turns):
            held += size(one)
            if held > limit:
                break
            if one.created_at.month not in self.gone:
                fitting.insert(0, one.id)
        return fitting, len(self.turns) - len(fitting)


def told(window: Window) -> tuple[list[str], int]:
    return [one.id for one in window.messages], window.earlier


TURNS = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["", "a", "é", "𝄞", "ab" * 40]),
    st.integers(0, 4),
)
BATCHES = st.lists(st.lists(TURNS, max_size=12), max_size=5)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(BATCHES, st.sets(st.integers(1, 4)), st.lists(st.integers(0, 200), min_size=1, max_size=6))
def test_a_window_is_what_fits(
    owner: Database,
    messages: Messages,
    batches: list[list[tuple[int, str, int]]],
    gone: set[int],
    limits: list[int],
) -> None:
    """Months go as the archive lets them go: their rows are not there any more."""
    name, ids, model = f"c{next(NAMES)}", count(), Model()
    first = Message(name, name, JANUARY, "user", "", token_count=0)
    messages.append([first])
    model.add([first])
    for batch in batches:
        made = [
            Message(
                *(
                    f"{name}-{next(ids)}",
                    name,
                    JANUARY + timedelta(days=30 * month, seconds=tokens),
                ),
                *("user", content),
                token_count=tokens,
            )
            for month, content, tokens in batch
        ]
        messages.append(made)
        model.add(made)
    model.gone = gone
    with owner.transaction() as connection:
        connection.execute(
            "delete from kb.message where conversation_id = %s"
            " and extract(month from created_at) = any(%s)",
            (name, list(gone)),
        )
    for limit in limits:
        by_tokens = model.window(lambda one: one.token_count or 0, limit // 10)
        assert told(messages.window(name, max_tokens=limit // 10)) == by_tokens
        by_bytes = model.window(lambda one: len(one.content.encode()), limit)
        assert told(messages.window(name, max_bytes=limit)) == by_bytes


def test_what_a_window_is_asked_for(messages: Messages) -> None:
    messages.append([Message("m", "c", JANUARY, "user", "hello")])
    for limits in ({}, {"max_tokens": 1, "max_bytes": 1}, {"max_tokens": -1}):
        with pytest.raises(SettingsError):
            messages.window("c", **limits)
    for name in ("d", "", "a\0b", "\ud800", "x" * 10_000):
        with pytest.raises(NotFoundError):
            messages.window(name, max_tokens=1)
    assert told(messages.window("c", max_tokens=10**30)) == (["m"], 0)


class Reads:
    """What the server has read of the months since last asked."""

    def __init__(self, urls: DatabaseUrls) -> None:
        # One connection, so that what it read is counted when it is asked.
        self.database = Database(urls.writer, max_size=1)
        self._owner = urls.migrator
        self._before: dict[str, tuple[int, ...]] = {}

    def analyze(self) -> None:
        with psycopg.connect(self._owner) as connection:
            connection.execute("analyze kb.message")

    def __call__(self) -> dict[str, tuple[int, int]]:
        """Return rows read in whole-table scans and by indexes, of months that were read at all."""
        with self.database.transaction() as connection:
            connection.execute("select pg_stat_force_next_flush()")
        with self.database.transaction() as connection:
            now = {
                table: tuple(counts)
                for table, *counts in connection.execute(
                    "select relname, seq_tup_read, coalesce(idx_scan, 0),"
                    " coalesce(idx_tup_fetch, 0) from pg_stat_user_tables"
                    " where relname ~ '^message_2'"
                )
            }
        before, self._before = self._before, now
        nothing = (0, 0, 0)
        changed = {
            table: tuple(a - b for a, b in zip(counts, before.get(table, nothing), strict=True))
            for table, counts in now.items()
        }
        return {table: (seq, rows) for table, (seq, scans, rows) in changed.items() if seq or scans}


@pytest.fixture
def reads(database_urls: DatabaseUrls) -> Iterator[Reads]:
    found = Reads(database_urls)
    yield found
    found.database.close()


def conversation(name: str, months: Sequence[int], each: int) -> list[Message]:
    return [
        Message(
            f"{name}-{month}-{n}",
            name,
            JANUARY + timedelta(days=30 * month, seconds=n),
            "user",
            "hi",
        )
        for month in months
        for n in range(each)
    ]


def test_a_window_reads_what_it_returns_and_no_other_month(reads: Reads) -> None:
    messages = Messages(reads.database)
    messages.append(conversation("other", range(12), 300))
    messages.append(conversation("c", [5, 6], 1000))
    reads.analyze()
    reads()
    window = messages.window("c", max_tokens=25)
    assert (len(window.messages), window.earlier) == (25, 1975)
    read = reads()
    assert set(read) <= {"message_2025_06", "message_2025_07"}
    assert sum(whole for whole, _ in read.values()) == 0
    # Twice what is returned, the first that does not fit, and the planner's looks at the ends of
    # indexes: of 2,600 rows.
    assert sum(rows for _, rows in read.values()) < 100


def test_appending_looks_messages_up_one_by_one(reads: Reads) -> None:
    messages = Messages(reads.database)
    messages.append(conversation("other", range(12), 1))
    messages.append(conversation("c", [0, 1], 2000))
    reads()
    assert messages.append(conversation("c", [0, 1], 50)).repeated == 100
    read = reads()
    assert set(read) == {"message_2025_01", "message_2025_02"}
    assert sum(whole for whole, _ in read.values()) == 0
    assert 100 <= sum(rows for _, rows in read.values()) < 200


def test_plans_that_were_made_while_a_month_was_small_are_not_kept(reads: Reads) -> None:
    messages = Messages(reads.database)
    messages.append(conversation("first", [0], 1))
    reads.analyze()
    for part in range(20):
        messages.append(conversation(f"few{part}", [0], 1))
        messages.window("first", max_tokens=10)
    messages.append(conversation("c", [0], 5000))
    reads()
    assert messages.append(conversation("c", [0], 50)).repeated == 50
    assert len(messages.window("c", max_tokens=25).messages) == 25
    assert {whole for whole, _ in reads().values()} == {0}


def characters() -> list[str]:
    """Every character there is but NUL, in blocks of about 4,000."""
    codes = [code for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    return ["".join(map(chr, codes[n : n + 4000])) for n in range(0, len(codes), 4000)]


EXTREMES = {
    "empty": {"content": "", "language": "", "intent": ""},
    "large": {"content": "é" * 5_000_000, "token_count": 2**31 - 1},
    "largest": {"content": "x" * MAX_CONTENT_BYTES, "token_count": 0},
    "nested": {
        "metadata": {
            "": [None, True, False, 0, -1, 2**80, 0.1, -0.5, 1e-300, "é\u2028\\u0000\"'"],
            "deep": [[[[{"a": {"b": [{}]}}]]]],
            'quo"te': {" ": "\x01\x1f\x7f"},
        }
    },
    "first": {"created_at": EARLIEST},
    "second": {"created_at": EARLIEST + timedelta(microseconds=1)},
    "last of February": {"created_at": datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)},
    "first of March": {"created_at": datetime(2024, 3, 1, tzinfo=UTC)},
    "é" * 100: {"role": "developer"},
    **{f"characters {n}": {"content": text} for n, text in enumerate(characters())},
    **{
        f"metadata {n}": {"metadata": {"text": text, text: n}}
        for n, text in enumerate(characters())
    },
}


def test_extreme_values_come_back_as_they_were(messages: Messages) -> None:
    conversations = defaultdict(list)
    for number, (id_, fields) in enumerate(EXTREMES.items()):
        given = {"created_at": JANUARY, "role": "user", "content": "x", "token_count": 1, **fields}
        conversations[f"c{number % 3}"].append(Message(id_, f"c{number % 3}", **given))
    everything = [one for group in conversations.values() for one in group]
    assert messages.append(everything).added == len(EXTREMES)
    assert messages.append(everything).repeated == len(EXTREMES)
    for name, expected in conversations.items():
        found = messages.window(name, max_tokens=2**40)
        assert found.earlier == 0
        back = [
            Message(
                *(one.id, name, one.created_at, one.role, one.content),
                language=one.language,
                intent=one.intent,
                metadata=one.metadata,
                token_count=one.token_count,
            )
            for one in found.messages
        ]
        assert {one.id: one for one in back} == {one.id: one for one in expected}
