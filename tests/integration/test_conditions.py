"""Conditions on a real database: what is found is what plain Python says."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from kb_assets.errors import SettingsError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.condition_sql import compile_condition
from kb_assets.retrieval.conditions import And, Comparison, Condition, Not, Or
from kb_assets.retrieval.where import parse_where
from kb_assets.settings import Settings

SOURCES: dict[str, dict[str, dict[str, Any]]] = {
    "notes": {
        "number.md": {"x": 2024, "tags": ["api", "v1"], "title": "Number"},
        "float.md": {"x": 2024.5, "y": 0.1, "tags": ["draft"]},
        "same.md": {"x": 2024.0, "y": {"x": 2024, "0": True}},
        "negative.md": {"x": -3, "due date": "2024-02-01"},
        "text.md": {"x": "2024", "due date": "2024-11-30", "title": "100% sure_"},
        "word.md": {"x": "api", "y": "2024-02-01 and more", "title": "number"},
        "empty text.md": {"x": "", "y": [""], "due date": ""},
        "truth.md": {"x": True, "y": False, "tags": []},
        "null.md": {"x": None, "y": [None], "due date": None},
        "a'b\"c\\d.md": {"x": 'it\'s "so" \\ %s', "y": "\U0001f600 M\u00fcnchen"},
    },
    "people": {
        "deep/list.md": {"x": ["api", 2024, True], "y": [["api"]], "tags": "api, draft"},
        "deep/empty.md": {"x": [], "y": {}},
        "object.md": {"x": {"x": "api", "y": {"x": 2024}}, "0": "api"},
        "objects.md": {"x": [{"x": "api"}], "y": {"x": ["api", None]}},
        "large.md": {"x": 2**63 - 1, "y": 9007199254740993},
        "larger.md": {"x": 2**64, "y": 9007199254740992.0},
        "nothing.md": {},
        "plain.txt": {},
    },
}
DOCUMENTS = {(source, path): held for source, of in SOURCES.items() for path, held in of.items()}

KEYS = ["x", "y", "x.x", "x.y.x", "y.x", "x.0", "y.0", "'0'", "'due date'", "missing", "''"]
SCALARS = [
    *("api", "2024", "", "a", 'it\'s "so" \\ %s', "2024-02-01", "M\u00fcnchen", "\U0001f600"),
    *(2024, 2024.0, 2024.5, 0, -3, 0.1, True, False, None, 2**63 - 1, 2**64),
    *(9007199254740992, 9007199254740993.0, 1e300, -1e-300),
]
PARTS = ["", "md", ".", "deep/", "notes", "people", "number.md", "a'b\"c\\d.md", "\\", "%", "_"]
TEXT_FIELDS = ["source", "path", "title", "media_type", "tags"]
NAMES = [*PARTS, "text/markdown", "text/plain", "Number", "number", "100% sure_", "api", "draft"]
OPERATORS = ["=", "!=", "<", "<=", ">", ">=", "contains", "starts with", "has"]


def compared(field: str, operator: str, value: Any = None) -> Comparison | None:
    try:
        return Comparison(field, operator, value)
    except SettingsError:
        return None


SINGLE = [
    comparison
    for fields, values in (([f"metadata.{key}" for key in KEYS], SCALARS), (TEXT_FIELDS, NAMES))
    for field, operator, value in product(fields, OPERATORS, values)
    if (comparison := compared(field, operator, value))
] + [
    comparison
    for field in [*TEXT_FIELDS, *(f"metadata.{key}" for key in KEYS)]
    if (comparison := compared(field, "exists"))
]
COMPARISONS = st.one_of(
    st.sampled_from(SINGLE),
    st.builds(
        Comparison,
        st.sampled_from(KEYS).map("metadata.{}".format),
        st.just("in"),
        st.lists(st.sampled_from(SCALARS), max_size=4),
    ),
    st.builds(
        Comparison,
        st.sampled_from(["source", "path", "title", "media_type"]),
        st.just("in"),
        st.lists(st.sampled_from(NAMES), max_size=4),
    ),
    st.builds(
        Comparison,
        st.sampled_from(KEYS).map("metadata.{}".format),
        st.just("between"),
        st.tuples(*[st.sampled_from([one for one in SCALARS if isinstance(one, str)])] * 2)
        | st.tuples(*[st.integers() | st.floats(-3e3, 3e3)] * 2),
    ),
)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(tuple).map(And),
        st.lists(inner, min_size=1, max_size=3).map(tuple).map(Or),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)


def holds(condition: Condition, source: str, path: str) -> bool:
    """Say of a document what a condition says, without SQL."""
    match condition:
        case And(parts):
            return all(holds(part, source, path) for part in parts)
        case Or(parts):
            return any(holds(part, source, path) for part in parts)
        case Not(part):
            return not holds(part, source, path)
        case Comparison(field, operator, value):
            return agrees(_found(condition, field, source, path), operator, value)


_MISSING = object()


def _found(condition: Comparison, field: str, source: str, path: str) -> Any:
    held = DOCUMENTS[source, path]
    tags = held.get("tags", [])
    columns = {
        "source": source,
        "path": path,
        "title": held.get("title", _MISSING),
        "media_type": "text/plain" if path.endswith(".txt") else "text/markdown",
        "tags": (tags.split(", ") if isinstance(tags, str) else tags) or _MISSING,
    }
    if field in columns:
        return columns[field]
    found: Any = held
    for key in condition.keys:
        found = found.get(key, _MISSING) if isinstance(found, dict) else _MISSING
    return str(found) if found == 2**64 else found


def agrees(found: Any, operator: str, value: Any) -> bool:
    if found is _MISSING:
        return False
    match operator:
        case "exists":
            return True
        case "=":
            return same(found, value)
        case "!=":
            return not same(found, value)
        case "in":
            return any(same(found, one) for one in value)
        case "between":
            return agrees(found, ">=", value[0]) and agrees(found, "<=", value[1])
        case "contains" | "has" if isinstance(found, list):
            return any(same(one, value) for one in found)
        case "contains":
            return isinstance(found, str) and isinstance(value, str) and value in found
        case "starts with":
            return bool(found.startswith(value))
    (kind, left), (wanted, right) = comparable(found), comparable(value)
    order = (left > right) - (left < right) if kind == wanted else None
    return order in {"<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (1, 0)}[operator]


def same(left: Any, right: Any) -> bool:
    return bool(comparable(left) == comparable(right))


def comparable(value: Any) -> tuple[str, Any]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", Decimal(repr(value))
    return type(value).__name__, value


Find = Callable[[Any], set[tuple[str, str]]]


@pytest.fixture
def both(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[KnowledgeBase]:
    """A knowledge base with all documents."""
    sources = []
    for number, (name, held) in enumerate(SOURCES.items()):
        folder = tmp_path / f"source-{number}"
        sources.append({"name": name, "uri": str(folder)})
        for path, metadata in held.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            head = f"---\n{json.dumps(metadata, ensure_ascii=False)}\n---\n" if metadata else ""
            file.write_text(f"{head}All about {number} {file.name}.\n")
    with KnowledgeBase(make_settings(sources=sources)) as kb:
        kb.index()
        yield kb


@pytest.fixture
def find(both: KnowledgeBase) -> Find:
    """Finds sources and paths of the documents of which a condition is true."""

    def find(where: Any) -> set[tuple[str, str]]:
        hits = both.search("all about", limit=100, mode="vector", where=where)
        return {(hit.source, hit.path) for hit in hits}

    return find


def expected(condition: Condition) -> set[tuple[str, str]]:
    return {document for document in DOCUMENTS if holds(condition, *document)}


def test_any_condition_finds_what_python_finds(find: Find) -> None:
    assert find(None) == set(DOCUMENTS)

    @settings(deadline=None, max_examples=400)
    @given(CONDITIONS)
    def check(condition: Condition) -> None:
        assert find(condition) == expected(condition)

    check()


def test_each_operator_on_each_type(both: KnowledgeBase) -> None:
    """Those that searches are made of, one by one, and not a search each, for there are many."""
    assert len(SINGLE) > 1500
    true = 0
    with both.reader.transaction() as connection:
        for comparison in SINGLE:
            found = matching(connection, comparison)
            assert found == expected(comparison), comparison
            assert matching(connection, Not(comparison)) == set(DOCUMENTS) - found, comparison
            true += bool(found)
    assert true > 250


def matching(connection: psycopg.Connection[Any], condition: Condition) -> set[tuple[str, str]]:
    compiled, named = compile_condition(condition)
    statement = sql.SQL(
        "select s.name, d.path from kb.document d"
        " join kb.source s on s.id = d.source_id"
        " join kb.document_revision r on r.id = d.live_revision_id where {}"
    )
    return set(connection.execute(statement.format(compiled), named).fetchall())


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        ("metadata.x >= 2024", {"number.md", "float.md", "same.md", "large.md"}),
        ('tags has "api" and not metadata.x >= 2024', {"deep/list.md"}),
        ("not metadata.x exists", {"nothing.md", "plain.txt"}),
        ("metadata.x = null", {"null.md"}),
        ('metadata."due date" between "2024-02-01" and "2024-12"', {"negative.md", "text.md"}),
        ("metadata.x contains 'api'", {"word.md", "deep/list.md"}),
        ("metadata.x.y.x = 2024", {"object.md"}),
        (
            'path starts with "deep/" or path = "plain.txt"',
            {"deep/list.md", "deep/empty.md", "plain.txt"},
        ),
        ('source in ("people", "elsewhere") and title exists', set()),
        ('source = "elsewhere"', set()),
        ('not source = "elsewhere" and title contains "umber"', {"number.md", "word.md"}),
        ('{"field": "media_type", "operator": "=", "value": "text/plain"}', {"plain.txt"}),
        ({"not": {"field": "media_type", "operator": "!=", "value": "text/plain"}}, {"plain.txt"}),
    ],
)
def test_what_people_ask(find: Find, where: Any, paths: set[str]) -> None:
    assert {path for _, path in find(where)} == paths


def test_conditions_go_with_the_other_filters(both: KnowledgeBase) -> None:
    hits = both.search(
        "all about",
        where='tags has "draft"',
        sources=("people",),
        path_prefix="deep/",
        tags=("api",),
        metadata={"x": ["api"]},
    )
    assert [hit.path for hit in hits] == ["deep/list.md"]
    assert not both.search("all about", where='tags has "v1"', tags=("draft",))


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ("metadata.x = 'api'", "document_revision_metadata_idx"),
        ("metadata.x.y.x = 2024", "document_revision_metadata_idx"),
        ("tags has 'api'", "document_revision_tags_idx"),
        ("tags has 'api' and not metadata.x exists", "document_revision_tags_idx"),
        ("metadata.x contains 7", "document_revision_metadata_idx"),
    ],
)
def test_indexes_can_answer(both: KnowledgeBase, where: str, index: str) -> None:
    compiled, named = compile_condition(parse_where(where))
    statement = sql.SQL("explain select r.id from kb.document_revision r where {}").format(compiled)
    with both.reader.transaction() as connection:
        connection.execute("set local enable_seqscan = off")
        plan = connection.execute(statement, named).fetchall()
    assert index in str(plan)
