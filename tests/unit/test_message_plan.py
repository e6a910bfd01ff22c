"""What becomes of a batch of messages, against a model that thinks of one at a time."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_assets.messages import plan as planning
from kb_assets.messages.message import Message
from kb_assets.messages.plan import Conversation, Plan, groups, plan, prepare, spans

START = datetime(2025, 3, 31, 23, 59, 59, 999_998, tzinfo=UTC)
MARCH, APRIL = date(2025, 3, 1), date(2025, 4, 1)


def message(id_: str = "m", conversation: str = "c", after: int = 0, **others: object) -> Message:
    """Return a message some microseconds after one before midnight at the end of March."""
    given = {"role": "user", "content": "hello", "token_count": 1, **others}
    return Message(id_, conversation, START + timedelta(microseconds=after), **given)


def planned(
    batch: list[Message],
    known: dict[str, Conversation] | None = None,
    stored: dict[int, str] | None = None,
    closed: tuple[date, ...] = (),
) -> Plan:
    (group,) = groups(prepare(batch))
    names = {one.conversation_id for one in batch}
    conversations = {name: Conversation() for name in names} | (known or {})
    return plan(group, conversations, stored or {}, closed)


def ids(made: Plan) -> list[str]:
    return [row.incoming.message.id for row in made.rows]


def test_places_follow_time_and_then_the_order_of_the_batch() -> None:
    batch = [message("b", after=1), message("z"), message("a"), message("c", after=-1)]
    made = planned(batch)
    assert ids(made) == ["c", "z", "a", "b"]
    assert [row.ordinal for row in made.rows] == [1, 2, 3, 4]


def test_totals_go_on_from_what_the_conversation_had() -> None:
    known = {"c": Conversation("ann", messages=7, bytes=100, tokens=50)}
    made = planned([message("a", content="é", token_count=3), message("b", content="")], known)
    assert [row[1:] for row in made.rows] == [(8, 102, 53), (9, 102, 54)]
    assert made.conversations == {"c": Conversation("ann", messages=9, bytes=102, tokens=54)}
    assert known["c"].messages == 7, "what was given is as it was"


def test_tokens_are_counted_when_nobody_has() -> None:
    made = planned([message(content="hello world", token_count=None)])
    assert made.rows[0].total_tokens == 2
    assert planned([message(content="hello world", token_count=0)]).rows[0].total_tokens == 0


def test_the_first_of_equal_keys_wins() -> None:
    made = planned([message(content="one"), message(content="two"), message(after=1)])
    assert [row.incoming.message.content for row in made.rows] == ["one", "hello"]
    assert made.repeated == 1


def test_what_is_stored_is_a_repeat_and_changes_nothing() -> None:
    made = planned([message("a"), message("b", after=1)], stored={0: "c"})
    assert (ids(made), made.repeated) == (["b"], 1)
    assert planned([message()], stored={0: "c"}).conversations == {}


def test_what_comes_for_a_closed_month_has_no_place() -> None:
    batch = [message("march"), message("april", after=2)]
    made = planned(batch, closed=(MARCH,))
    assert ids(made) == ["april"]
    assert [one.message.id for one in made.late] == ["march"]
    assert made.conversations["c"].messages == 1
    assert [one.message.id for one in planned(batch, closed=(APRIL,)).late] == ["april"]
    only_late = planned(batch, closed=(MARCH, APRIL))
    assert only_late.conversations == {"c": Conversation()}, "its first and last times change"


def test_nothing_is_taken_in_for_what_was_erased() -> None:
    batch = [message(user_id="ann"), message("other", "d")]
    made = planned(batch, {"c": Conversation(is_erased=True)}, stored={0: "d"})
    assert (ids(made), made.erased, made.refused) == (["other"], 1, [])
    assert list(made.conversations) == ["d"]


def reasons(made: Plan) -> list[tuple[int, str]]:
    return [(place, error.reason) for place, error in made.refused]


def test_a_conversation_has_one_user() -> None:
    known = {"c": Conversation("ann")}
    assert reasons(planned([message(user_id="bob")], known)) == [(0, "other_user")]
    assert reasons(planned([message(user_id="ann"), message("n")], known)) == []
    both = [message("b", user_id="bob", after=1), message("a", user_id="ann")]
    assert reasons(planned(both)) == [(0, "other_user")], "the earlier one says whose it is"
    repeat = planned([message(user_id="bob")], known, stored={0: "c"})
    assert reasons(repeat) == [(0, "other_user")]


def test_a_user_named_later_is_filled_in() -> None:
    made = planned([message("a"), message("b", user_id="ann", after=1)])
    assert made.conversations["c"].user_id == "ann"
    made = planned([message("a", user_id="ann")], stored={0: "c"})
    assert made.conversations["c"] == Conversation("ann"), "a repeat may name it, too"


def test_a_key_of_another_conversation_is_refused() -> None:
    assert reasons(planned([message()], stored={0: "d"})) == [(0, "id_taken")]
    assert reasons(planned([message(), message("n"), message(conversation="d")])) == [
        (2, "id_taken")
    ]


def test_spans_are_from_the_first_to_the_last() -> None:
    (group,) = groups(prepare([message(after=5), message("n"), message("o", "d", after=3)]))
    start = group[0].microsecond
    assert spans(group) == {"c": (start, start + 5), "d": (start + 3, start + 3)}


def test_microseconds_are_exact() -> None:
    (one,) = prepare([message()])
    assert one.microsecond == 1_743_465_599_999_998
    (first,) = prepare([Message("m", "c", datetime(1970, 1, 1, tzinfo=UTC), "user", "")])
    assert first.microsecond == 0


def test_groups_are_bounded_by_messages_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_MESSAGES", 3)
    monkeypatch.setattr(planning, "MAX_BYTES", 20)
    batch = [message(str(n), after=-n, content="x" * n) for n in (1, 2, 3, 4, 5, 15, 30, 1)]
    made = list(groups(prepare(batch)))
    sizes = [[len(one.content) for one in group] for group in made]
    assert sizes == [[3, 2, 1], [5, 4], [15], [30], [1]]
    assert [one.place for one in made[0]] == [2, 1, 0], "sorted, with their places in the whole"
    assert list(groups([])) == []


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
    assert [row.incoming.message for row in made.rows] == rows
    assert [one.message for one in made.late] == late
    assert (made.repeated, reasons(made)) == (repeated, refused)
    for name, changed in made.conversations.items():
        assert [changed.messages, changed.bytes, changed.tokens] == totals[name]
    last = {row.incoming.message.conversation_id: list(row[1:]) for row in made.rows}
    assert last == {name: sums for name, sums in totals.items() if sums[0]}
