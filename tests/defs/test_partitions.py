"""How shards become partitions, and runs are cut."""

from pathlib import Path

import pytest

from kb_assets.defs.partitions import range_tags, runs_of, shards_of_run
from kb_assets.settings import Settings
from tests.defs.conftest import write_config


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(write_config(tmp_path, handbook=1, wiki=4))


def cut(settings: Settings, *places: int) -> list[list[str]]:
    shards = [settings.shards[place] for place in places]
    return [[shard.key for shard in run] for run in runs_of(settings, shards)]


def test_neighbours_of_one_source_share_a_run(settings: Settings) -> None:
    assert cut(settings, 1, 2, 3, 4) == [[f"wiki-{n:02}-of-04" for n in range(1, 5)]]


def test_sources_share_no_run(settings: Settings) -> None:
    assert [run[0] for run in cut(settings, 0, 1, 2, 3, 4)] == ["handbook", "wiki-01-of-04"]


def test_a_gap_cuts_a_run(settings: Settings) -> None:
    assert cut(settings, 1, 2, 4) == [["wiki-01-of-04", "wiki-02-of-04"], ["wiki-04-of-04"]]


def test_order_and_repetition_do_not_matter(settings: Settings) -> None:
    assert cut(settings, 3, 2, 2) == [["wiki-02-of-04", "wiki-03-of-04"]]


def test_no_shards_make_no_runs(settings: Settings) -> None:
    assert cut(settings) == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 2), (1, 5), (2, 4)])
def test_a_run_knows_its_shards_by_its_tags(settings: Settings, low: int, high: int) -> None:
    shards = settings.shards[low:high]

    assert shards_of_run(settings, range_tags(shards)) == shards


def test_a_run_without_partitions_has_no_shards_of_its_own(settings: Settings) -> None:
    assert shards_of_run(settings, {}) == ()


def test_shards_that_are_no_more_are_ignored(settings: Settings) -> None:
    assert shards_of_run(settings, {"dagster/partition": "wiki-01-of-09"}) == ()
