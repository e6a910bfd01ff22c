"""The capacity model: its arithmetic, and that docs/scale.md shows what it says."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.capacity import (
    Corpus,
    bytes_of,
    graph_bytes,
    graph_fits,
    load_cost,
    search_milliseconds,
    seconds_of,
    usd_of,
)
from benchmarks.capacity_tables import LIMITS, Limit, reached, tables
from benchmarks.fleet import ChunkCost, Fleet, bounds, least_seconds, simulated_seconds

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
COST = ChunkCost(3e-4, 2e-5, 1e-4, 5e-5)


def test_the_page_shows_what_the_model_says():
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name, table in tables().items() if f"\n\n{table}\n\n" not in page] == []


@pytest.mark.parametrize(
    ("dimensions", "in_a_page"), [(384, 7), (768, 4), (1024, 3), (1536, 2), (3072, 1)]
)
def test_a_page_of_the_graph_has_whole_vectors_only(dimensions, in_a_page):
    assert graph_bytes(dimensions) == pytest.approx(8192 / in_a_page)


def test_sizes_follow_the_number_of_chunks_but_words_recur():
    small, large = bytes_of(Corpus(1_000_000)), bytes_of(Corpus(100_000_000))
    grown = {part: large[part] / small[part] for part in small}
    assert 90 < grown.pop("postings") < 99
    assert list(grown.values()) == pytest.approx([100] * len(grown), rel=0.01)


def test_the_model_says_what_was_measured_of_eighty_thousand_chunks():
    """Only what is a layout, or comes from smaller sizes: by `benchmarks.scale`."""
    measured = {"documents": 12.7, "text of documents": 95.2, "chunks": 119.1}
    measured |= {"indexes of chunks": 8.87, "vectors": 73.6, "index of texts": 6.49}
    measured |= {"HNSW index": 94.6, "postings": 77.8}
    found = bytes_of(Corpus(80_816, 9.29, 1205, 339, 384))
    assert {part: size / 1e6 for part, size in found.items()} == pytest.approx(measured, rel=0.12)


def test_times_grow_faster_than_the_corpus_and_never_shrink():
    before = seconds_of(Corpus(10_000))
    for size in (10**5, 10**6, 10**7, 10**8, 10**9):
        after = seconds_of(Corpus(size))
        assert all(after[name] >= 9.99 * before[name] for name in before), size
        before = after


def test_a_graph_that_does_not_fit_takes_longer():
    limit = next(one for one in LIMITS if one.part == "HNSW build in memory")
    at = reached(limit)
    assert graph_fits(Corpus(at - 1))
    assert not graph_fits(Corpus(at))
    before, after = (seconds_of(Corpus(size))["HNSW index"] for size in (at - 1, at))
    assert after / before == pytest.approx(2.6, rel=1e-3)


def test_a_limit_is_the_least_size_beyond_it():
    assert reached(Limit("", lambda corpus: corpus.chunks >= 12_345, "", "")) == 12_345
    for limit in LIMITS:
        at = reached(limit)
        assert limit.is_beyond(Corpus(at))
        assert not limit.is_beyond(Corpus(at - 1))


def test_prices_are_by_the_token():
    assert usd_of(Corpus(1_000_000, tokens=300), 0.02) == pytest.approx(6.0)


def test_the_model_says_what_its_constants_were_taken_from():
    searched = search_milliseconds(Corpus(1_000_000, dimensions=384))
    assert searched["vector"] == pytest.approx(23, rel=0.1)
    assert searched["lexical"] == pytest.approx(12, rel=0.1)
    assert 1e6 * graph_bytes(384) == pytest.approx(1.17e9, rel=0.01)
    # results/components-hnsw.json and backup-drill.json
    for vectors, seconds in ((30_000, 5.3), (1_000_000, 278.5)):
        built = seconds_of(Corpus(vectors, dimensions=384))["HNSW index"]
        assert built == pytest.approx(seconds, rel=0.15)
    # results/growth-large.json
    large = seconds_of(Corpus(786_610, 786_610 / 9_400, 1_180, 300, 384))
    assert large["splitting"] == pytest.approx(217, rel=0.2)
    assert large["analysing words"] + large["publishing"] == pytest.approx(304, rel=0.2)


def test_one_worker_that_waits_for_nobody_takes_what_the_arithmetic_says():
    fleet = Fleet(1, 1)
    assert simulated_seconds(40_960, COST, fleet) == pytest.approx(
        least_seconds(40_960, COST, fleet), rel=0.05
    )


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("cores", [0, 2])
@pytest.mark.parametrize("limit", [0, 1e6, 1e8])
def test_waiting_for_one_another_adds_to_the_arithmetic_but_never_twice_as_much(
    workers, cores, limit
):
    fleet = Fleet(workers, 16, cores, tokens_per_minute=limit)
    found, least = simulated_seconds(40_960, COST, fleet), least_seconds(40_960, COST, fleet)
    assert 0.99 * least <= found < 2.5 * least


def test_more_workers_are_no_slower_and_the_provider_bounds_them_all():
    times = [simulated_seconds(40_960, COST, Fleet(workers, 16)) for workers in (1, 2, 4, 8, 16)]
    assert times == sorted(times, reverse=True)
    assert times[0] / times[1] > 1.5
    limited = Fleet(16, 16, tokens_per_minute=1e6)
    provider = 60 * 40_960 * COST.tokens / 1e6
    assert bounds(40_960, COST, limited)["provider"] == pytest.approx(provider)
    assert simulated_seconds(40_960, COST, limited) == pytest.approx(provider, rel=0.02)


def test_the_publish_lock_bounds_workers_with_cores_of_their_own():
    cost = replace(COST, locked_seconds=2e-4)
    assert simulated_seconds(40_960, cost, Fleet(16, 16)) >= 40_960 * cost.locked_seconds
    assert bounds(40_960, cost, Fleet(16, 16))["publish lock"] == pytest.approx(8.192)


def test_what_a_chunk_costs_a_fleet_is_what_stages_take():
    corpus = Corpus(100_000)
    stages = seconds_of(corpus)
    own = sum(stages[name] for name in stages if name not in ("HNSW index", "merging postings"))
    assert math.isclose(load_cost(corpus).own_seconds * corpus.chunks, own)
