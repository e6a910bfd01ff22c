"""What a query may touch, as its plan says: never less than what it does touch."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kb_assets.archive.guarded import PLANNED_TABLE, declared, plan_of
from kb_assets.archive.needs import EVERYTHING, Need, hull_of, narrowed
from kb_assets.archive.pruning import needs_of
from kb_assets.archive.relation import MESSAGES
from kb_assets.archive.store import Segment

NAMES = (
    *("a", "b", "ab", "abc", "c1", "c2", "C1", "Z", "z"),
    *("", " ", "é", "ê", "ß", "\U0001f642", "\U0010ffff", "\ufffd"),
    *("it's", "''", "'", '"', "a' OR 'b", "x AND (y", "(conversation_id = 'c1')", ") OR (", "a%_"),
    *("a\nb", "\n", "a\n(conversation_id = '')\nb", "'\n(conversation_id = 'c1')\n'", "\r\n", "\t"),
    *("optional: x", "NULL", "\\", "a\\'b", "2025-01-01", "IN ('a')"),
)
"""Ids of conversations, the worst that can be thought of."""

JANUARY = datetime(2025, 1, 1, tzinfo=UTC)


def needs_of_query(sql: str) -> tuple[Need, ...]:
    return needs_of(plan_of(sql, MESSAGES), PLANNED_TABLE, MESSAGES)


def needs(where: str) -> tuple[Need, ...]:
    return needs_of_query(f"select * from messages where {where}")


def day(number: int) -> datetime:
    return JANUARY + timedelta(days=number - 1)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("conversation_id = 'c1'", [Need(frozenset({"c1"}), "c1", "c1")]),
        ("'c1' = conversation_id", [Need(frozenset({"c1"}), "c1", "c1")]),
        ("conversation_id in ('c1', 'it''s AND (x')", [Need(frozenset({"c1", "it's AND (x"}))]),
        ("conversation_id like 'ab%'", [Need(group_low="ab", group_high="ac")]),
        (
            "conversation_id > 'a' and conversation_id <= 'b'",
            [Need(group_low="a", group_high="b")],
        ),
        (
            "created_at >= '2025-01-02' and created_at < '2025-01-03'",
            [Need(low=day(2), high=day(3) - timedelta(microseconds=1))],
        ),
        (
            "created_at between '2025-01-02' and '2025-01-03 00:00:00.5+00'",
            [Need(low=day(2), high=day(3) + timedelta(seconds=0.5))],
        ),
        ("created_at = '2025-01-02 01:00:00+01'", [Need(low=day(2), high=day(2))]),
        (
            "date_trunc('month', created_at) = '2025-01-01' and conversation_id = 'c1'",
            [Need(frozenset({"c1"}), "c1", "c1", day(1), day(32) - timedelta(microseconds=1))],
        ),
        (
            "conversation_id = 'a' or conversation_id between 'b' and 'c'",
            [Need(frozenset({"a"}), "a", "a"), Need(group_low="b", group_high="c")],
        ),
        ("conversation_id = 'a' and conversation_id = 'b'", []),
        ("false", []),
        ("conversation_id = 'a' and lower(content) = 'x' and length(content) > 3",
         [Need(frozenset({"a"}), "a", "a")]),
    ],
)  # fmt: skip
def test_what_is_understood(where: str, expected: list[Need]) -> None:
    assert list(needs(where)) == expected


@pytest.mark.parametrize(
    "where",
    [
        "true",
        "conversation_id <> 'a'",
        "not conversation_id = 'a'",
        "conversation_id not in ('a', 'b')",
        "not (conversation_id = 'a' and role = 'x')",
        "conversation_id = 'a' or role = 'x'",
        "conversation_id = 'a' or conversation_id is null",
        "conversation_id is distinct from 'a'",
        "(conversation_id = 'a') is not true",
        "(conversation_id = 'a') = (role = 'b')",
        "coalesce(conversation_id = 'a', true)",
        "case when conversation_id = 'a' and role = 'b' then id = 'x' else true end",
        "conversation_id collate nocase = 'a'",
        "conversation_id = 'a\nb'",
        "content = 'a\n(conversation_id = '''')\nb'",
        "conversation_id = 'a' || chr(0)",
        "created_at > 'infinity'",
        "created_at < '294247-01-01'",
        "created_at > '0044-03-15 (BC) 00:00:00+00'",
        "epoch(created_at) > 1",
    ],
)
def test_what_is_not_understood_narrows_nothing(where: str) -> None:
    assert needs(where) == (EVERYTHING,)


@pytest.mark.parametrize(
    "filters",
    [
        "(CASE WHEN (role = 'x') AND (conversation_id = 'a') AND (id = 'b') THEN (true) END)",
        "(conversation_id BETWEEN 'a' AND 'b')",
        "(id = 'x') AND (conversation_id = 'a') BEFORE (true)",
        "(conversation_id = 'a'",
        "conversation_id = 'a')",
        "(content = 'x)\n(conversation_id = 'a')",
        ["(content = '", "')", "(conversation_id = 'a')"],
        "(conversation_id = 'a' COLLATE NOCASE)",
        "(conversation_id = 'a'::BLOB)",
        "(created_at > '2025-01-01 00:00:00'::TIMESTAMP)",
        "(created_at > '2025-01-01')",
        "(conversation_id ~= 'a')",
        "(conversation_id IN ('a', ...))",
        "...",
    ],
)
def test_what_duckdb_may_print_one_day_narrows_nothing(filters: str | list[str]) -> None:
    plan = [{"children": [{"extra_info": {"Table": PLANNED_TABLE, "Filters": filters}}]}]
    assert needs_of(plan, PLANNED_TABLE, MESSAGES) == (EVERYTHING,)


@pytest.mark.parametrize(
    ("sql", "scans"),
    [
        ("select 1", 0),
        ("select * from messages limit 0", 0),
        ("select * from messages where conversation_id = 'a' order by created_at limit 3", 1),
        ("select id from messages m join messages n using (id) where m.conversation_id = 'a'", 2),
    ],
)
def test_every_scan_is_seen(sql: str, scans: int) -> None:
    found = needs_of_query(sql)
    assert len(found) == (1 if EVERYTHING in found else scans)


def test_spans_of_conversations_narrow_what_names_them() -> None:
    spans = {"a": (day(3), day(4))}
    found = needs("conversation_id in ('a', 'b') and created_at < '2025-01-20'")
    known, unknown = narrowed(found, spans)
    assert (known.low, known.high) == (day(3), day(4))
    assert (unknown.low, unknown.high) == (None, day(20) - timedelta(microseconds=1))
    assert hull_of([known, unknown]).groups == ("a", "b")
    assert hull_of([known, unknown]).low is None
    assert narrowed([EVERYTHING], spans) == (EVERYTHING,)


def test_a_segment_is_touched_up_to_its_very_edges() -> None:
    one = segment(1, "b", "d")
    for touching in (
        Need(low=day(2) - timedelta(microseconds=1)),
        Need(high=day(1)),
        Need(group_low="d"),
        Need(group_high="b"),
        Need(frozenset({"a", "c"})),
    ):
        assert touching.touches(one), touching
    for missing in (
        Need(low=day(2)),
        Need(high=day(1) - timedelta(microseconds=1)),
        Need(group_low="da"),
        Need(group_high="azzz"),
        Need(frozenset({"a", "e"})),
        Need(frozenset()),
    ):
        assert not missing.touches(one), missing


def segment(number: int, low: str, high: str) -> Segment:
    return Segment(
        id=number,
        month=date(2025, 1, 1),
        source="month",
        low=day(number),
        high=day(number + 1),
        state="committed",
        object_key="",
        sha256=b"",
        object_bytes=0,
        rows=0,
        row_hash_sum=b"",
        conversation_low=low,
        conversation_high=high,
        manifest={},
    )


DAYS = 8
LIKE_A_FILTER = "'a\n(conversation_id = '''')\nb'"
LITERALS = st.sampled_from(NAMES).map(lambda text: "'" + text.replace("'", "''") + "'")
MOMENTS = st.builds(
    lambda number, zone: f"'{day(number):%F} 00:00:00{zone}'",
    st.integers(0, DAYS + 1),
    st.sampled_from(["+00", "+02", "-11:30", ".000001+00"]),
)
COMPARISONS = st.sampled_from(["=", "<", "<=", ">", ">=", "<>", "is distinct from"])
CONDITIONS = st.recursive(
    st.one_of(
        st.builds("conversation_id {} {}".format, COMPARISONS, LITERALS),
        st.builds("{} {} conversation_id".format, LITERALS, st.sampled_from(["=", "<", ">="])),
        st.builds("conversation_id {} ({})".format, st.sampled_from(["in", "not in"]),
                  st.lists(LITERALS, min_size=1, max_size=6).map(", ".join)),
        st.builds("conversation_id between {} and {}".format, LITERALS, LITERALS),
        st.builds("{}(conversation_id, {})".format,
                  st.sampled_from(["prefix", "starts_with", "contains", "suffix"]), LITERALS),
        st.builds("conversation_id {} {}".format,
                  st.sampled_from(["like", "ilike", "not like", "similar to"]),
                  st.sampled_from(["'a%'", "'%b'", "'A_'", "'é%'", "'%'", "'\U0010ffff%'"])),
        st.builds("created_at {} {}".format, COMPARISONS, MOMENTS),
        st.builds("created_at in ({}, {})".format, MOMENTS, MOMENTS),
        st.builds("created_at::date {} date {}".format, COMPARISONS, MOMENTS),
        st.builds("date_trunc('day', created_at) {} {}".format, COMPARISONS, MOMENTS),
        st.builds("content = {}".format, LITERALS),
        st.builds("coalesce(conversation_id = {}, ordinal is null)".format, LITERALS),
        st.builds("(case when conversation_id = {} then ordinal < 4 else role = 'x' end)".format,
                  LITERALS),
        st.builds("conversation_id in (select conversation_id from messages where content = {})"
                  .format, LITERALS),
        st.sampled_from(["role = 'user'", "ordinal > 5", "ordinal is null", "token_count < 3"]),
    ),
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("(not {})".format, inner),
        st.builds("(({}) = ({}))".format, inner, inner),
    ),
    max_leaves=6,
)  # fmt: skip
QUERIES = st.one_of(
    st.builds("select id from messages where {}".format, CONDITIONS),
    st.builds("select count(*), min(created_at), max(id) from messages where {}".format,
              CONDITIONS),
    st.builds("select id from messages where {} order by created_at, id limit 3".format,
              CONDITIONS),
    st.builds("select m.id, n.id from messages m left join (from messages where {}) n"
              " on m.role = n.role and m.ordinal = n.ordinal + 1 where m.conversation_id = {}"
              .format, CONDITIONS, LITERALS),
    st.builds("with part as (from messages where {}) select id from part where {}"
              " union all select id from part where {}".format,
              CONDITIONS, CONDITIONS, CONDITIONS),
    st.builds("select conversation_id, count(*) n from messages where {} group by all"
              " having conversation_id >= {}".format, CONDITIONS, LITERALS),
    st.builds("select * from (select id, conversation_id, row_number() over"
              " (partition by conversation_id order by created_at, id) r from messages)"
              " where r = 1 and conversation_id <= {}".format, LITERALS),
)  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> Iterator[Any]:
    """Messages of some days; some columns are ambiguous without a table's name."""
    chance = random.Random(5)
    with duckdb.connect(config={"python_enable_replacements": False}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"create table everything ({declared(MESSAGES)})")
        made = []
        for number in range(300):
            moment = day(chance.randint(1, DAYS)) + timedelta(
                microseconds=chance.choice([0, 0, 1, 43_200_000_000, 86_399_999_999])
            )
            made.append(
                (
                    *(f"m{number}", chance.choice(NAMES), moment, chance.choice(["user", "tool"])),
                    *(chance.choice(NAMES), None, None, "{}", chance.randint(0, 5)),
                    *(chance.choice([None, *range(10)]), None, None),
                )
            )
        connection.executemany(f"insert into everything values ({', '.join('?' * 12)})", made)
        yield connection


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(sql=QUERIES, is_hot=st.booleans())
@example(sql=f"select id from messages where content = {LIKE_A_FILTER}", is_hot=True)
@example(sql="select id from messages where created_at <= '2025-01-03'", is_hot=False)
@example(sql="select id from messages where created_at > '2025-01-03'", is_hot=True)
def test_a_pruned_query_finds_what_the_whole_one_finds(rows: Any, sql: str, is_hot: bool) -> None:
    rows.execute("create or replace view messages as from everything")
    expected = rows.execute(sql).fetchall()
    found = narrowed(needs_of_query(sql), spans(rows))
    kept = hot(found) if is_hot else cold(rows, found)
    rows.execute(f"create or replace view messages as from everything where {kept}")
    assert sorted(rows.execute(sql).fetchall(), key=repr) == sorted(expected, key=repr)


def spans(rows: Any) -> dict[str, tuple[datetime, datetime]]:
    """Return the spans of half the conversations: of the others nothing is known."""
    found = rows.execute(
        "select conversation_id, min(created_at), max(created_at) from everything"
        " where hash(conversation_id) % 2 = 0 group by 1"
    ).fetchall()
    return {name: (first, last) for name, first, last in found}


def cold(rows: Any, found: tuple[Need, ...]) -> str:
    """Return which rows are in segments that are touched: a segment is a day."""
    days = []
    for number in range(1, DAYS + 1):
        bounds = rows.execute(
            "select min(conversation_id), max(conversation_id) from everything"
            " where created_at::date = ?",
            [day(number).date()],
        ).fetchone()
        if any(need.touches(segment(number, *bounds)) for need in found):
            days.append(f"date '{day(number):%F}'")
    return f"created_at::date in ({', '.join(days)})" if days else "false"


def hot(found: tuple[Need, ...]) -> str:
    """Return which rows the database is asked for."""
    if not found:
        return "false"
    hull = hull_of(found)
    parts = ["true"]
    if hull.groups is not None:
        names = ", ".join("'" + name.replace("'", "''") + "'" for name in hull.groups)
        parts.append(f"conversation_id in ({names or 'null'})")
    if hull.low is not None:
        parts.append(f"created_at >= '{hull.low.isoformat()}'")
    if hull.high is not None:
        parts.append(f"created_at <= '{hull.high.isoformat()}'")
    return " and ".join(parts)
