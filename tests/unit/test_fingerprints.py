"""Stored values must never change: each function has a literal result."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_assets.errors import SettingsError
from kb_assets.fingerprints import (
    SLOTS,
    Shard,
    content_hash,
    input_hash,
    input_text,
    settings_fingerprint,
    shards_of,
    slot,
)


def test_literal_values_stay() -> None:
    assert slot("guides/install.md") == 1652
    assert content_hash(b"one").hex()[:16] == "7692c3ad3540bb80"
    assert content_hash(b"one", b"two").hex()[:16] == "7a5dd38916204077"
    assert input_hash("Grüße").hex()[:16] == "f83e039796c6453a"
    assert settings_fingerprint({"b": 1, "a": [True, "ü"]}).hex()[:16] == "b2ee99ac39531576"


def test_a_sidecar_is_not_the_same_as_longer_content() -> None:
    assert content_hash(b"a", b"") != content_hash(b"a")
    assert content_hash(b"a", b"b") != content_hash(b"ab")


def test_the_input_text_says_a_title_once() -> None:
    assert input_text("Guide", ("Guide", "Install"), "Run it.") == "Guide > Install\n\nRun it."
    assert input_text("Guide", ("Install",), "Run it.") == "Guide > Install\n\nRun it."
    assert input_text(None, (), "Run it.") == "Run it."


def test_white_space_around_a_chunk_makes_no_other_text() -> None:
    assert input_text("Guide", (), "Run it.\n\n") == input_text("Guide", (), "\nRun it.")
    assert input_text(None, (), " Run it.\n") == "Run it."


def test_settings_in_another_order_are_the_same() -> None:
    assert settings_fingerprint({"a": 1, "b": 2}) == settings_fingerprint({"b": 2, "a": 1})


@given(st.text(), st.integers(1, 1024))
def test_each_path_belongs_to_exactly_one_shard(path: str, count: int) -> None:
    path = path.encode(errors="replace").decode()
    assert sum(shard.owns(path) for shard in shards_of("wiki", count)) == 1


@given(st.integers(1, SLOTS))
def test_shards_cover_all_slots_without_overlap(count: int) -> None:
    shards = shards_of("wiki", count)
    assert shards[0].slot_low == 0
    assert shards[-1].slot_high == SLOTS
    for one, next_ in pairwise(shards):
        assert one.slot_high == next_.slot_low


@given(st.integers(1, 1024))
def test_each_shard_has_a_key_of_its_own(count: int) -> None:
    shards = shards_of("team-wiki", count)
    assert len({shard.key for shard in shards}) == count


def test_keys_read_as_designed() -> None:
    assert Shard("handbook").key == "handbook"
    assert Shard("wiki", 3, 16).key == "wiki-03-of-16"


@pytest.mark.parametrize(("number", "of"), [(0, 1), (2, 1), (1, SLOTS + 1)])
def test_an_impossible_shard_cannot_be_made(number: int, of: int) -> None:
    with pytest.raises(SettingsError):
        Shard("wiki", number, of)
