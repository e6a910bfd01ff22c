"""Packed postings against what a dictionary of dictionaries says."""

from collections import defaultdict
from collections.abc import Iterable

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb_assets.index.analysis import Occurrences, occurrences, read
from kb_assets.index.postings import (
    COUNT_TYPE,
    LENGTH_TYPE,
    ORDINAL_TYPE,
    Posting,
    merged,
    postings_of,
)

Model = dict[str, dict[int, tuple[int, int]]]
"""Of each term, by ordinal, how often it occurs there and how long the chunk is."""

BLOCK = 65_536


def unpacked(rows: Iterable[Posting]) -> Model:
    """Read rows as a reader does, and see that each is as its docstring says."""
    found: Model = defaultdict(dict)
    keys = []
    for row in rows:
        keys.append((row.term, row.block))
        ordinals = numpy.frombuffer(row.ordinals, ORDINAL_TYPE).tolist()
        counts = numpy.frombuffer(row.counts, COUNT_TYPE).tolist()
        lengths = numpy.frombuffer(row.lengths, LENGTH_TYPE).tolist()
        assert ordinals, "an empty row"
        assert ordinals == sorted(set(ordinals))
        for ordinal, count, length in zip(ordinals, counts, lengths, strict=True):
            found[row.term][ordinal + row.block * BLOCK] = (count, length)
    assert len(keys) == len(set(keys)), "two rows of one term and block"
    return dict(found)


def packed(chunks: dict[int, list[str]]) -> list[Posting]:
    """Return the rows of chunks by ordinal."""
    return list(postings_of(occurring(chunks), numpy.array(list(chunks), numpy.int64)))


def occurring(chunks: dict[int, list[str]]) -> Occurrences:
    reading = read(" ".join(words) for words in chunks.values())
    return occurrences([reading], {word: word for word in WORDS})


def modelled(chunks: dict[int, list[str]]) -> Model:
    found: Model = defaultdict(dict)
    for ordinal, words in chunks.items():
        for word in words:
            found[word][ordinal] = (min(words.count(word), 255), min(len(words), 65_535))
    return dict(found)


WORDS = ("a", "b", "c")
CHUNKS = st.lists(st.sampled_from(WORDS), max_size=6)
STEPS = st.sampled_from([1, 1, 1, 2, 300, BLOCK - 1, BLOCK, 3 * BLOCK])


@st.composite
def generations(draw: st.DrawFn) -> list[dict[int, list[str]]]:
    """Chunks by ordinal, of one publish after the other; ordinals near the ends of blocks."""
    ordinal = draw(st.sampled_from([-1, BLOCK - 3, 2 * BLOCK - 2]))
    made = []
    for _ in range(draw(st.integers(1, 4))):
        chunks = {}
        for _ in range(draw(st.integers(0, 5))):
            ordinal += draw(STEPS)
            chunks[ordinal] = draw(CHUNKS)
        made.append(chunks)
    return made


def in_order(rows: list[list[Posting]]) -> list[Posting]:
    """Return rows of generations as the statement orders them: by term, block and age."""
    aged = [(row.term, row.block, age, row) for age, some in enumerate(rows) for row in some]
    return [row for *_, row in sorted(aged, key=lambda one: one[:3])]


@given(generations())
@settings(deadline=None)
def test_postings_say_what_occurs_where(made: list[dict[int, list[str]]]) -> None:
    for chunks in made:
        assert unpacked(packed(chunks)) == modelled(chunks)


@given(generations())
@settings(deadline=None)
def test_merging_changes_nothing_but_the_number_of_rows(made: list[dict[int, list[str]]]) -> None:
    everything = {ordinal: words for chunks in made for ordinal, words in chunks.items()}
    rows = [packed(chunks) for chunks in made]
    assert unpacked(merged(in_order(rows), None)) == modelled(everything)
    # Merging what was merged, and what came after.
    head = list(merged(in_order(rows[:2]), None))
    assert unpacked(merged(in_order([head, *rows[2:]]), None)) == modelled(everything)


@given(generations(), st.data())
@settings(deadline=None)
def test_merging_drops_the_dead_and_gives_new_ordinals(
    made: list[dict[int, list[str]]], data: st.DataObject
) -> None:
    everything = {ordinal: words for chunks in made for ordinal, words in chunks.items()}
    alive = data.draw(st.lists(st.sampled_from([*everything] or [0]), unique=True))
    alive = sorted(set(alive) & set(everything))
    new_ordinals = numpy.full(max(everything, default=0) + 1, -1, numpy.int64)
    new_ordinals[alive] = numpy.arange(len(alive))
    expected = {new: everything[old] for new, old in enumerate(alive)}
    rows = in_order([packed(chunks) for chunks in made])
    assert unpacked(merged(rows, new_ordinals)) == modelled(expected)


@given(generations(), st.data())
@settings(deadline=None)
def test_texts_without_ordinal_are_left_out(
    made: list[dict[int, list[str]]], data: st.DataObject
) -> None:
    chunks = made[0]
    kept = [data.draw(st.booleans()) for _ in chunks]
    found = occurring(chunks)
    ordinals = numpy.where(numpy.array(kept, bool), numpy.array([*chunks], numpy.int64), -1)
    expected = {at: chunks[at] for at, keep in zip(chunks, kept, strict=True) if keep}
    assert unpacked(postings_of(found, ordinals)) == modelled(expected)


@pytest.mark.parametrize("often", [1, 254, 255, 256, 65_535, 65_536, 70_000])
def test_counts_and_lengths_end_where_their_types_do(often: int) -> None:
    chunks = {BLOCK - 1: ["a"] * often, BLOCK: ["b"]}
    assert unpacked(packed(chunks)) == {
        "a": {BLOCK - 1: (min(often, 255), min(often, 65_535))},
        "b": {BLOCK: (1, 1)},
    }


def test_a_block_ends_at_65536() -> None:
    chunks = {ordinal: ["a"] for ordinal in (0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK)}
    rows = packed(chunks)
    assert [(row.block, len(row.counts)) for row in rows] == [(0, 2), (1, 2), (2, 1)]
    assert rows[1].ordinals == b"\x00\x00\xff\xff", "little-endian, low 16 bits"
    # What two blocks held fits into one when those between are gone.
    new_ordinals = numpy.full(2 * BLOCK + 1, -1, numpy.int64)
    new_ordinals[[0, BLOCK, 2 * BLOCK]] = [0, 1, 2]
    (row,) = merged(rows, new_ordinals)
    assert (row.block, row.ordinals) == (0, b"\x00\x00\x01\x00\x02\x00")
