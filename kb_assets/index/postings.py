"""Postings as rows of packed arrays: made from occurrences, and put together again. Pure.

A chunk has an ordinal within its source. A row holds, for one term and one block of 65,536
ordinals, three little-endian arrays of one length: the low 16 bits of the ordinals (ascending),
how often the term occurs there (at most 255), and how many terms the chunk has (at most 65,535).
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy

from kb_assets.index.analysis import Integers, Occurrences

BLOCK_BITS = 16
MOST_COUNTED = 255
LONGEST = 65_535

COLUMNS = ("source_id", "term", "block", "generation", "ordinals", "counts", "lengths")

ORDINAL_TYPE = numpy.dtype("<u2")
COUNT_TYPE = numpy.dtype("u1")
LENGTH_TYPE = numpy.dtype("<u2")

# Values that stand side by side in a row, each after its length; the last is the next one's.
_HEAD = struct.Struct("!hiii").pack
_PLACE = struct.Struct("!iiiii").pack
_LENGTH = struct.Struct("!i").pack

_PIECES_AT_ONCE = 50_000


class Posting(NamedTuple):
    """One row."""

    term: str
    block: int
    ordinals: bytes
    counts: bytes
    lengths: bytes


def postings_of(found: Occurrences, ordinals: Integers) -> Iterator[Posting]:
    """Return the rows of texts.

    Args:
        found: What occurs in the texts.
        ordinals: The ordinal of each text, ascending; -1 leaves a text out.
    """
    places = ordinals[found.texts]
    kept = places >= 0
    lengths = numpy.minimum(found.lengths, LONGEST)[found.texts[kept]]
    counts = numpy.minimum(found.counts[kept], MOST_COUNTED)
    yield from _rows(found.terms, found.term_ids[kept], places[kept], counts, lengths)


def merged(rows: Iterable[Posting], new_ordinals: Integers | None) -> Iterator[Posting]:
    """Put rows of the same term and block together.

    Args:
        rows: By term, then by block, then by age, so that ordinals ascend.
        new_ordinals: What becomes of each ordinal, ascending; -1 drops it. None keeps them all.
    """
    for term, group in groupby(rows, key=attrgetter("term")):
        same = list(group)
        places = numpy.concatenate(
            [
                numpy.frombuffer(row.ordinals, ORDINAL_TYPE).astype(numpy.int64)
                + (row.block << BLOCK_BITS)
                for row in same
            ]
        )
        counts = numpy.frombuffer(b"".join(row.counts for row in same), COUNT_TYPE)
        lengths = numpy.frombuffer(b"".join(row.lengths for row in same), LENGTH_TYPE)
        if new_ordinals is not None:
            places = new_ordinals[places]
            kept = places >= 0
            places, counts, lengths = places[kept], counts[kept], lengths[kept]
        yield from _rows((term,), numpy.zeros(len(places), numpy.int64), places, counts, lengths)


def encoded(source_id: int, generation: int, rows: Iterable[Posting]) -> Iterator[bytes]:
    """Return rows of `COLUMNS` as binary COPY takes them, many at a time."""
    pieces: list[bytes] = []
    for term, block, ordinals, counts, lengths in rows:
        name = term.encode()
        pieces += (
            _HEAD(len(COLUMNS), 4, source_id, len(name)),
            name,
            _PLACE(4, block, 4, generation, len(ordinals)),
            ordinals,
            _LENGTH(len(counts)),
            counts,
            _LENGTH(len(lengths)),
            lengths,
        )
        if len(pieces) >= _PIECES_AT_ONCE:
            yield b"".join(pieces)
            pieces.clear()
    yield b"".join(pieces)


def _rows(
    terms: Sequence[str],
    term_ids: Integers,
    places: Integers,
    counts: numpy.typing.NDArray[numpy.integer],
    lengths: numpy.typing.NDArray[numpy.integer],
) -> Iterator[Posting]:
    if not len(places):
        return
    blocks = places >> BLOCK_BITS
    changes = (numpy.diff(term_ids) != 0) | (numpy.diff(blocks) != 0)
    edges = [0, *(numpy.flatnonzero(changes) + 1).tolist(), len(places)]
    heads = edges[:-1]
    low = (places & 0xFFFF).astype(ORDINAL_TYPE).tobytes()
    many = counts.astype(COUNT_TYPE).tobytes()
    long = lengths.astype(LENGTH_TYPE).tobytes()
    names, in_blocks = term_ids[heads].tolist(), blocks[heads].tolist()
    for index, (start, end) in enumerate(zip(heads, edges[1:], strict=True)):
        yield Posting(
            terms[names[index]],
            in_blocks[index],
            low[2 * start : 2 * end],
            many[start:end],
            long[2 * start : 2 * end],
        )
