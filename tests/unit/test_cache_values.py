"""What cached values are found by, and whether they come back as they were."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb_assets.retrieval.cache.keys import cache_key, filters_json
from kb_assets.retrieval.cache.values import bytes_of_results, results_of_bytes
from kb_assets.retrieval.hits import Hit, Results
from kb_assets.retrieval.query import Caller, Filters, Query
from kb_assets.retrieval.where import parse_where
from kb_assets.settings import RerankSettings, SearchSettings

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scores = st.none() | numbers
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=10,
)
hits = st.builds(
    Hit,
    source=words,
    path=words,
    heading_path=st.lists(words, max_size=3).map(tuple),
    byte_start=st.integers(0, 2**40),
    byte_end=st.integers(0, 2**40),
    score=numbers,
    text=words,
    title=st.none() | words,
    tags=st.lists(words, max_size=3).map(tuple),
    metadata=st.dictionaries(words, json_values, max_size=3),
    revision_id=st.integers(0, 2**63),
    ordinal=st.integers(0, 2**31),
    last_ordinal=st.integers(0, 2**31),
    vector_score=scores,
    lexical_score=scores,
    fused_score=scores,
    rerank_score=scores,
)
answers = st.builds(
    Results,
    hits=st.lists(hits, max_size=4).map(tuple),
    mode=st.sampled_from(["hybrid", "vector", "lexical"]),
    space=words,
    provider=words,
    notes=st.lists(words, max_size=2).map(tuple),
    seconds=st.dictionaries(words, numbers, max_size=3),
    generation=st.integers(0, 2**63),
    cached=st.booleans(),
)

A_HIT = Hit("s", "p", ("h",), 0, 4, 0.5, "text", None, metadata={"a": 1})


@settings(deadline=None)
@given(answers)
def test_an_answer_comes_back_as_it_was(results: Results) -> None:
    back = results_of_bytes(bytes_of_results(results))
    assert back == results
    assert repr(back) == repr(results)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_what_is_no_answer_counts_as_not_there(value: bytes) -> None:
    assert results_of_bytes(value) is None


@pytest.mark.parametrize(
    "value",
    [
        b"null",
        b"[" * 100_000,
        b'{"hits": []}',
        b'{"hits": [], "mode": 1}',
        b'{"hits": [{}], "mode": "vector"}',
        b'{"hits": [], "mode": "vector", "generation": "1"}',
        bytes_of_results(Results((A_HIT,), "vector"))[:-1],
        bytes_of_results(Results((A_HIT,), "vector")).replace(b"0.5", b'"0.5"'),
    ],
)
def test_what_is_nearly_an_answer_counts_as_not_there(value: bytes) -> None:
    assert results_of_bytes(value) is None


QUERY = Query("how to roll back")
GIVEN = {
    "generation": 7,
    "space_id": 1,
    "search": SearchSettings(),
    "rerank": RerankSettings(),
}


def key(query: Query = QUERY, **changed: object) -> bytes:
    return cache_key(query, **{**GIVEN, **changed})


OTHERS = {
    "another text": key(replace(QUERY, text="How to roll back")),
    "another limit": key(replace(QUERY, limit=11)),
    "another mode": key(replace(QUERY, mode="vector")),
    "a source": key(replace(QUERY, filters=Filters(sources=("a",)))),
    "a tag of that name": key(replace(QUERY, filters=Filters(tags=("a",)))),
    "a path of that name": key(replace(QUERY, filters=Filters(path_prefix="a"))),
    "metadata": key(replace(QUERY, filters=Filters(metadata={"a": 1}))),
    "metadata of another type": key(replace(QUERY, filters=Filters(metadata={"a": True}))),
    "metadata as text": key(replace(QUERY, filters=Filters(metadata={"a": "1"}))),
    "a condition": key(replace(QUERY, filters=Filters(where=parse_where("metadata.year = 1")))),
    "another condition": key(
        replace(QUERY, filters=Filters(where=parse_where("metadata.year > 1")))
    ),
    "hits per document": key(replace(QUERY, per_document=1)),
    "a least score": key(replace(QUERY, min_score=0.0)),
    "no merging": key(replace(QUERY, merge=False)),
    "no reranking": key(replace(QUERY, rerank=False)),
    "a caller": key(replace(QUERY, caller=Caller())),
    "a caller of a source": key(replace(QUERY, caller=Caller(sources=("a",)))),
    "a caller of a tag": key(replace(QUERY, caller=Caller(tags=("a",)))),
    "another generation": key(generation=8),
    "another space": key(space_id=2),
    "no space": key(space_id=None),
    "another language": key(search=SearchSettings(language="german")),
    "another fusion": key(search=SearchSettings(fusion="rrf")),
    "another weight": key(search=SearchSettings(vector_weight=0.6)),
    "a reranker": key(rerank=RerankSettings(url="http://one")),
    "another reranker": key(rerank=RerankSettings(url="http://two")),
    "its model": key(rerank=RerankSettings(url="http://two", model="m")),
    "its candidates": key(rerank=RerankSettings(url="http://two", candidates=9)),
}


def test_whatever_decides_an_answer_is_in_its_key() -> None:
    assert len({key(), *OTHERS.values()}) == 1 + len(OTHERS)


def test_whatever_does_not_is_not() -> None:
    assert key() == key(Query("how to roll back"))
    assert key(replace(QUERY, caller=Caller(tags=("a",), name="ann"))) == key(
        replace(QUERY, caller=Caller(tags=("a",), name="bob"))
    )
    assert key(search=SearchSettings(timeout_seconds=1, log_days=0)) == key()
    assert key(rerank=RerankSettings(timeout_seconds=1)) == key()
    unranked = replace(QUERY, rerank=False)
    assert key(unranked, rerank=RerankSettings(url="http://one")) == key(unranked)
    one = replace(QUERY, filters=Filters(metadata={"a": 1, "b": 2}))
    assert key(one) == key(replace(QUERY, filters=Filters(metadata={"b": 2, "a": 1})))


def test_every_field_of_a_query_was_thought_of() -> None:
    """A field that is new belongs into the key, and into `OTHERS`."""
    assert set(Query.__dataclass_fields__) == {
        *("text", "limit", "filters", "mode", "per_document", "min_score", "merge", "rerank"),
        "caller",
    }
    assert set(Filters.__dataclass_fields__) == {
        *("sources", "path_prefix", "tags", "metadata", "where")
    }
    assert set(SearchSettings.model_fields) == {
        *("language", "mode", "fusion", "vector_weight", "timeout_seconds", "log_days")
    }


def test_filters_that_are_not_set_are_left_out() -> None:
    assert filters_json(Filters()) == {}
    assert filters_json(Filters(("a",), metadata={"b": [1]})) == {
        "sources": ["a"],
        "metadata": {"b": [1]},
    }
