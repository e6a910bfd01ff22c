"""Conditions as text and as JSON."""

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_assets.errors import SettingsError
from kb_assets.retrieval.condition_sql import compile_condition
from kb_assets.retrieval.conditions import (
    And,
    Comparison,
    Condition,
    Not,
    Or,
    condition_from_json,
    to_json,
)
from kb_assets.retrieval.where import as_condition, parse_where

YEAR = Comparison("metadata.year", ">=", 2024)
API = Comparison("tags", "has", "api")
OWNED = Comparison("metadata.owner", "exists")

SCALARS = st.one_of(
    st.text(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)
ORDERED = st.text() | st.integers(-(2**40), 2**40)
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


def key(name: str) -> str:
    """Write a key in quotes."""
    return "metadata." + '"' + name.replace("\\", "\\\\").replace('"', '""') + '"'


METADATA = st.lists(st.text(), min_size=1, max_size=3).map(
    lambda names: "metadata" + "".join(key(name).removeprefix("metadata") for name in names)
)
COMPARISONS = st.one_of(
    st.builds(Comparison, st.sampled_from(["source", "path"]), st.sampled_from(["=", "!="]), PATHS),
    st.builds(Comparison, st.just("path"), st.sampled_from(["contains", "starts with"]), PATHS),
    st.builds(Comparison, st.just("source"), st.just("in"), st.lists(PATHS, max_size=3)),
    st.builds(Comparison, st.sampled_from(["title", "media_type"]), st.just("="), st.text()),
    st.builds(Comparison, st.just("tags"), st.just("has"), st.text()),
    st.builds(Comparison, st.sampled_from(["title", "tags"]) | METADATA, st.just("exists")),
    st.builds(Comparison, METADATA, st.sampled_from(["=", "!=", "contains"]), SCALARS),
    st.builds(Comparison, METADATA, st.just("in"), st.lists(SCALARS, max_size=4)),
    st.builds(Comparison, METADATA, st.sampled_from(["<", "<=", ">", ">="]), ORDERED),
    st.builds(
        Comparison,
        METADATA,
        st.just("between"),
        st.tuples(st.text(), st.text()) | st.tuples(st.integers(0, 9), st.floats(0, 9)),
    ),
)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(tuple).map(And),
        st.lists(inner, min_size=2, max_size=3).map(tuple).map(Or),
        st.builds(Not, inner),
    ),
    max_leaves=8,
)


def written(condition: Condition, chance: random.Random) -> str:
    """Write a condition as a person might: any quotes, any spaces, any case of keywords."""

    def word(text: str) -> str:
        return chance.choice([text, text.upper(), text.title()])

    def space() -> str:
        return chance.choice([" ", "  ", "\n", "\t"])

    def value(one: Any) -> str:
        if not isinstance(one, str):
            return json.dumps(one)
        quote = chance.choice("\"'")
        doubled = chance.choice([quote * 2, "\\" + quote])
        return quote + one.replace("\\", "\\\\").replace(quote, doubled) + quote

    match condition:
        case And(parts) | Or(parts):
            between = space() + word(type(condition).__name__.lower()) + space()
            return between.join(f"({written(part, chance)})" for part in parts)
        case Not(part):
            return f"{word('not')}{space()}({written(part, chance)})"
        case Comparison(field, "exists"):
            return f"{field}{space()}{word('exists')}"
        case Comparison(field, "between", (lowest, highest)):
            bounds = f"{space()}{word('and')}{space()}".join((value(lowest), value(highest)))
            return f"{field} {word('between')}{space()}{bounds}"
        case Comparison(field, "in", tuple() as values):
            listed = f"{space()},{space()}".join(map(value, values))
            return f"{field} {word('in')}{space()}({listed})"
        case Comparison(field, operator, one):
            spaced = space().join(word(part) for part in operator.split())
            return f"{field}{space()}{spaced}{space()}{value(one)}"


@given(CONDITIONS)
def test_json_says_the_same(condition: Condition) -> None:
    through = json.loads(json.dumps(to_json(condition)))
    assert condition_from_json(through) == condition
    assert as_condition(to_json(condition)) == condition
    assert as_condition(f" {json.dumps(through)}") == condition


@given(CONDITIONS, st.randoms())
def test_text_says_the_same(condition: Condition, chance: random.Random) -> None:
    assert parse_where(written(condition, chance)) == condition


@given(CONDITIONS)
def test_parameters_are_named_apart_from_others_and_statements_hold_no_value(
    condition: Condition,
) -> None:
    statement, named = compile_condition(condition)
    assert list(named) == [f"where_{number}" for number in range(len(named))]
    text = statement.as_string(None)
    assert all(f"%({name})s" in text for name in named)
    allowed = set("abcdefghijklmnopqrstuvwxyzC_0123456789 ().,%@<>=-#[]:'\"{}")
    assert set(text) <= allowed
    literals = text.replace("'{}'", "").replace("'number'", "").replace("'string'", "")
    assert "'" not in literals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('tags has "api" and metadata.year >= 2024', And((API, YEAR))),
        ("tags HAS 'api'", API),
        ("metadata.year>=2024", YEAR),
        ("metadata.owner exists", OWNED),
        ("not metadata.owner exists", Not(OWNED)),
        # Not before and, and before or.
        (
            'metadata.owner exists or not tags has "api" and metadata.year >= 2024',
            Or((OWNED, And((Not(API), YEAR)))),
        ),
        (
            'not (path starts with "people/" or source in ("a", "b"))',
            Not(
                Or(
                    (
                        Comparison("path", "starts with", "people/"),
                        Comparison("source", "in", ("a", "b")),
                    )
                )
            ),
        ),
        (
            "metadata.year between 2020 and 2024 and metadata.owner exists",
            And((Comparison("metadata.year", "between", (2020, 2024)), OWNED)),
        ),
        ("metadata.x = -1.5e-3", Comparison("metadata.x", "=", -0.0015)),
        ("metadata.x in (True, FALSE, null)", Comparison("metadata.x", "in", (True, False, None))),
        ("metadata.x in ()", Comparison("metadata.x", "in", ())),
        ('metadata."due date" = "x"', Comparison("metadata.'due date'", "=", "x")),
        ("metadata.due-date = 'x'", Comparison('metadata."due-date"', "=", "x")),
        ("metadata.and = 'x'", Comparison("metadata.and", "=", "x")),
        ("metadata.owner.'a.b'.2 = 1", Comparison('metadata.owner."a.b"."2"', "=", 1)),
        (r"path = 'it''s \'so\' \\ \d'", Comparison("path", "=", r"it's 'so' \ \d")),
        (r'''path = "a'b""c"''', Comparison("path", "=", "a'b\"c")),
    ],
)
def test_what_a_text_means(text: str, expected: Condition) -> None:
    assert parse_where(text) == expected


def test_values_become_what_documents_have() -> None:
    decomposed = "Mu\u0308nchen"
    assert Comparison("tags", "has", f" {decomposed}\x00 ").value == "M\u00fcnchen"
    assert parse_where(f"metadata.{decomposed} = '{decomposed}'") == Comparison(
        "metadata.M\u00fcnchen", "=", "M\u00fcnchen"
    )
    assert Comparison("path", "=", decomposed).value == decomposed
    assert Comparison("metadata.x", "=", "\ud800").value == "\ufffd"
    assert Comparison("metadata.x", "=", 2**70).value == str(2**70)


@given(st.text() | st.text("()\"'\\=<>!., \n1e-" + "ntaghsor{}[]:"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        condition = as_condition(text)
    except SettingsError as error:
        assert error.what
        assert error.why
        assert error.fix
    else:
        assert condition_from_json(to_json(condition)) == condition


@given(
    st.recursive(
        SCALARS | st.sampled_from(["path", "tags", "metadata.x", "=", "has", "in"]),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["and", "or", "not", "field", "operator", "value"]) | st.text(),
                inner,
            )
        ),
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        assert to_json(condition_from_json(value))
    except SettingsError as error:
        assert error.what
        assert error.why
        assert error.fix


@pytest.mark.parametrize(
    ("text", "character", "expected"),
    [
        ("", 1, "a field"),
        ("metadata.year > > 3", 17, "text in quotes, a number"),
        ("metadata.year = 2026-01-31", 17, "text in quotes"),
        ("metadata.year", 14, "between"),
        ("metadata.year = 1 metadata.x = 2", 19, "`and`, `or` or the end"),
        ("metadata.year between 1 or 2", 25, "`and`"),
        ("(tags exists", 13, "`)`"),
        ("source in 'a'", 11, "`(`"),
        ("source in ('a',)", 16, "text in quotes"),
        ("title starts 'a'", 14, "`with`"),
        ("tags exists and", 16, "a field"),
        ("path = 'abc", 8, "a second '"),
        ("tags exists; drop table kb.chunk", 12, "`and`, `or` or the end"),
        ("year = 1", 1, "Fields are"),
        ("tags = 'x'", 1, "Its operators are has, exists."),
        ("metadata.x < true", 1, "It takes text or a number."),
        ("metadata.x between 1 and 'a'", 1, "both text or both numbers"),
        ("tags has 1", 1, "It takes text."),
        ("metadata.x = 1e999", 1, "finite"),
    ],
)
def test_an_error_shows_the_place(text: str, character: int, expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_where(text)
    assert expected in refused.value.why
    assert f"at character {character}: " in refused.value.why
    assert refused.value.why.endswith(text[: character - 1] + "\u25b6" + text[character - 1 :])
    assert refused.value.fix
    assert refused.value.exit_code == 3


ENDLESS: dict[str, Any] = {}
ENDLESS["not"] = ENDLESS
LARGE_LIST = Comparison("metadata.x", "in", tuple(range(600)))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        "text",
        {"and": []},
        {"or": [], "and": []},
        {"or": {"field": "tags", "operator": "exists"}},
        {"not": [{"field": "tags", "operator": "exists"}]},
        {"xor": [{"field": "tags", "operator": "exists"}]},
        {"and": [{"field": "tags", "operator": "exists"}], "more": 1},
        {"field": "tags", "operator": "exists", "value": True},
        {"field": "metadata.x", "operator": "="},
        {"field": "metadata.x", "operator": "=", "value": 1, "more": 1},
        {"field": "metadata.x", "operator": "=", "value": [1]},
        {"field": "metadata.x", "operator": "=", "value": {}},
        {"field": "metadata.x", "operator": "in", "value": "ab"},
        {"field": "metadata.x", "operator": "in", "value": [[1]]},
        {"field": "metadata.x", "operator": "in", "value": list(range(1001))},
        {"field": "metadata.x", "operator": "between", "value": [1]},
        {"field": "metadata.x", "operator": "between", "value": [None, None]},
        {"field": "metadata.x", "operator": "<", "value": None},
        {"field": "metadata.x", "operator": "=", "value": float("nan")},
        {"field": "metadata.x", "operator": ["="], "value": 1},
        {"field": "metadata", "operator": "exists"},
        {"field": "metadata.", "operator": "exists"},
        {"field": "metadata.a b", "operator": "exists"},
        {"field": "metadata" + ".a" * 33, "operator": "exists"},
        {"field": "source.a", "operator": "=", "value": "a"},
        {"field": ["tags"], "operator": "exists"},
        {"field": "source", "operator": "=", "value": None},
        {"field": "source", "operator": "=", "value": "\x00"},
        {"field": "path", "operator": "starts with", "value": "\ud800"},
        {"field": "path", "operator": "exists"},
        {"field": "title", "operator": "<", "value": "a"},
        {"or": [to_json(LARGE_LIST), to_json(LARGE_LIST)]},
        {"or": [to_json(API)] * 1001},
        ENDLESS,
    ],
)
def test_what_cannot_be_used_is_refused(value: object) -> None:
    with pytest.raises(SettingsError) as refused:
        condition_from_json(value)
    assert refused.value.why
    assert refused.value.fix


def test_depth_is_bounded() -> None:
    deep: Condition = API
    for _ in range(31):
        deep = Not(deep)
    assert parse_where("not " * 31 + "tags has 'api'") == deep
    assert condition_from_json(to_json(deep)) == deep
    for refused in (
        lambda: Not(deep),
        lambda: And((deep,)),
        lambda: parse_where("not " * 32 + "tags has 'api'"),
        lambda: parse_where("(" * 100_000),
        lambda: as_condition('{"not":' * 100_000),
        lambda: condition_from_json({"not": to_json(deep)}),
    ):
        with pytest.raises(SettingsError):
            refused()


def test_what_is_no_condition_is_refused_as_a_part() -> None:
    for build in (lambda: And(("tags exists",)), lambda: Or(()), lambda: Not(None)):
        with pytest.raises(SettingsError):
            build()  # type: ignore[no-untyped-call]


def test_and_is_not_or() -> None:
    assert And((API,)) != Or((API,))


def test_texts_are_in_the_same_order_in_every_database() -> None:
    """No other collation than C is in the embedded server, so that only the statement shows it."""
    for where in ("metadata.x < 'a'", "metadata.x between 'a' and 'b'"):
        statement, _ = compile_condition(parse_where(where))
        assert re.search(r"""#>> '{}'\) collate "C"  ?[<>]""", statement.as_string(None))


def test_numbers_of_any_size_are_in_order() -> None:
    assert Comparison("metadata.x", "between", (0, 2**70)).value == (0, 2**70)
    assert Comparison("metadata.x", "<", 2**70).value == 2**70
    with pytest.raises(SettingsError):
        Comparison("metadata.x", "<", 10**5000)
