"""What becomes of a batch of messages, against a model that thinks of one at a time."""

from collections import defaultdict
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_assets.messages import plan as planning
from kb_assets.messages.message import Message
from kb_assets.messages.plan import Batch, Conversation, Plan, batches, plan

START = datetime(2025, 3, 31, 23, 59, 59, 999_998, tzinfo=UTC)
MARCH, APRIL = date(2025, 3, 1), date(2025, 4, 1)


def message(id_: str = "m", conversation: str = "c", after: int = 0, **others: object) -> Message:
    """Return a message some microseconds after one before midnight at the end of March."""
    given = {"role": "user", "content": "hello", "token_count": 1, **others}
    return Message(id_, conversation, START + timedelta(microseconds=after), **given)


@dataclass
class Planned(Plan):
    """A plan, and the batch it is for."""

    batch: Batch = field(default_factory=Batch)

    def messages(self, indexes: list[int]) -> list[Message]:
        return [self.batch.messages[index] for index in indexes]

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.messages(self.rows)]

    @property
    def late_ids(self) -> list[str]:
        return [one.id for one in self.messages(self.late)]

    @property
    def counted(self) -> list[tuple[int, int, int]]:
        return list(zip(self.ordinals, self.total_bytes, self.total_tokens, strict=True))

    @property
    def reasons(self) -> list[tuple[int, str]]:
        return [(place, error.reason) for place, error in self.refused]


def planned(
    messages: list[Message],
    known: dict[str, Conversation] | None = None,
    stored: dict[int, str] | None = None,
    closed: tuple[date, ...] = (),
) -> Planned:
    (batch,) = batches(messages)
    names = {one.conversation_id for one in messages}
    conversations = {name: Conversation() for name in names} | (known or {})
    made = plan(batch, conversations, stored or {}, closed)
    return Planned(*(getattr(made, each.name) for each in fields(made)), batch)


def test_places_follow_time_and_then_the_order_of_the_batch() -> None:
    batch = [message("b", after=1), message("z"), message("a"), message("c", after=-1)]
    made = planned(batch)
    assert made.ids == ["c", "z", "a", "b"]
    assert made.ordinals == [1, 2, 3, 4]


def test_totals_go_on_from_what_the_conversation_had() -> None:
    known = {"c": Conversation("ann", messages=7, bytes=100, tokens=50)}
    made = planned([message("a", content="é", token_count=3), message("b", content="")], known)
    assert made.counted == [(8, 102, 53), (9, 102, 54)]
    assert made.conversations == {"c": Conversation("ann", messages=9, bytes=102, tokens=54)}
    assert known["c"].messages == 7, "what was given is as it was"


def test_tokens_are_counted_when_nobody_has() -> None:
    made = planned([message(content="hello world", token_count=None)])
    assert made.total_tokens == [2]
    assert planned([message(content="hello world", token_count=0)]).total_tokens == [0]


def test_the_first_of_equal_keys_wins() -> None:
    made = planned([message(content="one"), message(content="two"), message(after=1)])
    assert [one.content for one in made.messages(made.rows)] == ["one", "hello"]
    assert made.repeated == 1


def test_what_is_stored_is_a_repeat_and_changes_nothing() -> None:
    made = planned([message("a"), message("b", after=1)], stored={0: "c"})
    assert (made.ids, made.repeated) == (["b"], 1)
    assert planned([message()], stored={0: "c"}).conversations == {}


def test_what_comes_for_a_closed_month_has_no_place() -> None:
    batch = [message("march"), message("april", after=2)]
    made = planned(batch, closed=(MARCH,))
    assert made.ids == ["april"]
    assert made.late_ids == ["march"]
    assert made.conversations["c"].messages == 1
    assert planned(batch, closed=(APRIL,)).late_ids == ["april"]
    only_late = planned(batch, closed=(MARCH, APRIL))
    assert only_late.conversations == {"c": Conversation()}, "its first and last times change"


def test_nothing_is_taken_in_for_what_was_erased() -> None:
    batch = [message(user_id="ann"), message("other", "d")]
    made = planned(batch, {"c": Conversation(is_erased=True)}, stored={0: "d"})
    assert (made.ids, made.erased, made.refused) == (["other"], 1, [])
    assert list(made.conversations) == ["d"]


def test_a_conversation_has_one_user() -> None:
    known = {"c": Conversation("ann")}
    assert planned([message(user_id="bob")], known).reasons == [(0, "other_user")]
    assert planned([message(user_id="ann"), message("n")], known).reasons == []
    both = [message("b", user_id="bob", after=1), message("a", user_id="ann")]
    assert planned(both).reasons == [(0, "other_user")], "the earlier one says whose it is"
    repeat = planned([message(user_id="bob")], known, stored={0: "c"})
    assert repeat.reasons == [(0, "other_user")]


def test_a_user_named_later_is_filled_in() -> None:
    made = planned([message("a"), message("b", user_id="ann", after=1)])
    assert made.conversations["c"].user_id == "ann"
    made = planned([message("a", user_id="ann")], stored={0: "c"})
    assert made.conversations["c"] == Conversation("ann"), "a repeat may name it, too"


def test_a_key_of_another_conversation_is_refused() -> None:
    assert planned([message()], stored={0: "d"}).reasons == [(0, "id_taken")]
    assert planned([message(), message("n"), message(conversation="d")]).reasons == [
        (2, "id_taken")
    ]


def test_spans_are_from_the_first_to_the_last() -> None:
    (batch,) = batches([message(after=5), message("n"), message("o", "d", after=3)])
    start = batch.microseconds[0]
    assert batch.spans() == {"c": (start, start + 5), "d": (start + 3, start + 3)}


def test_microseconds_are_exact() -> None:
    first = Message("m", "c", datetime(1970, 1, 1, tzinfo=UTC), "user", "")
    (batch,) = batches([message(), first])
    assert batch.microseconds == [0, 1_743_465_599_999_998]
    assert batch.months() == [date(1970, 1, 1), MARCH]


def test_batches_are_bounded_by_messages_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_MESSAGES", 3)
    monkeypatch.setattr(planning, "MAX_BYTES", 20)
    sizes = (1, 2, 3, 4, 5, 15, 30, 1)
    made = list(batches([message(str(n), after=-n, content="x" * (n - 2)) for n in sizes]))
    assert [list(map(len, batch.contents)) for batch in made] == [
        [1, 0, 0],
        [3, 2],
        [13],
        [28],
        [0],
    ]
    assert made[0].places == [2, 1, 0], "sorted, with their places in the whole"
    assert list(batches([])) == []


def test_some_are_left_out() -> None:
    (batch,) = batches([message(str(n), after=-n, token_count=n) for n in range(4)])
    batch.leave_out({1, 3})
    assert [one.id for one in batch.messages] == ["2", "0"]
    assert (batch.places, batch.tokens, len(batch.contents)) == ([2, 0], [2, 0], 2)


MESSAGES = st.lists(
    st.builds(
        message,
        st.sampled_from("abc"),
        st.sampled_from("cde"),
        st.integers(0, 4),
        content=st.sampled_from(["", "x", "é", "𝄞"]),
        token_count=st.integers(0, 3),
        user_id=st.sampled_from([None, "ann"]),
    ),
    min_size=1,
    max_size=30,
)


@given(MESSAGES, st.sets(st.sampled_from([MARCH, APRIL])), st.data())
def test_a_plan_is_what_one_after_another_would_give(
    batch: list[Message], closed: set[date], data: st.DataObject
) -> None:
    """Keys are stored beforehand at random, in the right conversation or in another."""
    order = sorted(range(len(batch)), key=lambda place: (batch[place].created_at, place))
    keys = [(batch[place].created_at, batch[place].id) for place in order]
    before = data.draw(st.dictionaries(st.sampled_from(keys), st.sampled_from("cde")))
    stored = {index: before[key] for index, key in enumerate(keys) if key in before}
    made = planned(batch, stored=stored, closed=tuple(closed))

    held, seen, totals = dict(before), set(before), defaultdict(lambda: [0, 0, 0])
    rows, late, repeated, refused = [], [], 0, []
    for place in order:
        one = batch[place]
        key = (one.created_at, one.id)
        holder = held.setdefault(key, one.conversation_id)
        is_first = key not in seen
        seen.add(key)
        if holder != one.conversation_id:
            refused.append((place, "id_taken"))
        elif not is_first:
            repeated += 1
        elif one.created_at.date().replace(day=1) in closed:
            late.append(one)
        else:
            rows.append(one)
            sums = totals[one.conversation_id]
            sums[0] += 1
            sums[1] += len(one.content.encode())
            sums[2] += one.token_count
    assert made.messages(made.rows) == rows
    assert made.messages(made.late) == late
    assert (made.repeated, made.reasons) == (repeated, refused)
    for name, changed in made.conversations.items():
        assert [changed.messages, changed.bytes, changed.tokens] == totals[name]
    names = [one.conversation_id for one in rows]
    last = {name: list(sums) for name, sums in zip(names, made.counted, strict=True)}
    assert last == {name: sums for name, sums in totals.items() if sums[0]}
