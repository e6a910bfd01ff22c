"""BM25 over the postings that publishing keeps: exact, for whatever the snapshot shows.

    score = Σ over the question's terms of idf · tf / (tf + k1 · (1 - b + b · length / mean length))
    idf   = ln(1 + (N - df + 0.5) / (df + 0.5))

(the variant of Lucene; Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009).
N, df and the mean length are those of the sources that are searched, and of live chunks only.
Each source is asked in its own language; what is compared is a score's share of the best one that
the question could have in that language.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing
import psycopg

from kb_assets.database.statements import Statements
from kb_assets.documents.normalise import normalise
from kb_assets.index.analysis import raw_tokens, terms_of, words_of
from kb_assets.index.postings import BLOCK_BITS, COUNT_TYPE, LENGTH_TYPE, ORDINAL_TYPE
from kb_assets.index.stems import stems_of

K1 = 1.2
B = 0.75

_BLOCK = 256

Floats = numpy.typing.NDArray[numpy.float32]
Integers = numpy.typing.NDArray[numpy.int64]
Mask = numpy.typing.NDArray[numpy.bool_]

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class SourceWords:
    """What BM25 knows of one source as a whole.

    Attributes:
        source_id: The source.
        language: How its texts were analysed.
        chunks: Live chunks.
        tokens: Terms in them, repeated ones included.
        next_ordinal: Ordinals given out so far.
    """

    source_id: int
    language: str
    chunks: int
    tokens: int
    next_ordinal: int


@dataclass(frozen=True, slots=True)
class _Row:
    """Where one term occurs, and what it adds there."""

    term: str
    positions: Integers
    impacts: Floats


@dataclass(frozen=True, slots=True)
class LexicalScores:
    """The score of every chunk of the sources searched; a position each, source after source.

    Attributes:
        scores: BM25, by position; 0 where no term occurs, or the chunk is dead or not wanted.
        bests: For each source, what a chunk could score at most: the sum of its terms' idf.
        bases: For each source, its first position.
        terms: The terms of the question, by language, with how often each occurs in it.
    """

    scores: Floats
    bests: Mapping[int, float]
    bases: Mapping[int, int]
    terms: Mapping[str, Mapping[str, int]]
    rows: Sequence[_Row]

    def top(self, count: int) -> list[tuple[int, int, float]]:
        """Return the best chunks, by share: source, ordinal and score, best first."""
        places = top_positions(self._comparable(), count)
        ids, bases = numpy.array(list(self.bases)), numpy.array(list(self.bases.values()))
        owners = numpy.searchsorted(bases, places, side="right") - 1
        ordinals = places - bases[owners]
        scores = self.scores[places]
        return list(zip(ids[owners].tolist(), ordinals.tolist(), scores.tolist(), strict=True))

    def _comparable(self) -> Floats:
        """Return what chunks are ordered by; in one language scores are in order as they are."""
        bests = [self.bests[source_id] or 1.0 for source_id in self.bases]
        if len(set(bests)) == 1:
            return self.scores
        sizes = numpy.diff([*self.bases.values(), len(self.scores)])
        divisors: Floats = numpy.repeat(numpy.array(bests, numpy.float32), sizes)
        return self.scores / divisors

    def of(self, source_id: int, ordinal: int) -> float:
        """Return the score of a chunk."""
        return float(self.scores[self.bases[source_id] + ordinal])

    def share(self, source_id: int, score: float) -> float:
        """Return a score as a share, 0 to 1, of what the question's terms could give."""
        return score / self.bests[source_id] if self.bests[source_id] else 0.0

    def contributions(self, source_id: int, ordinal: int) -> dict[str, float]:
        """Return what each term of the question adds to a chunk's score."""
        position = self.bases[source_id] + ordinal
        found: dict[str, float] = {}
        for row in self.rows:
            place = int(numpy.searchsorted(row.positions, position))
            if place < len(row.positions) and row.positions[place] == position:
                found[row.term] = found.get(row.term, 0.0) + float(row.impacts[place])
        return found


def question_terms(
    connection: psycopg.Connection[Any], language: str, question: str
) -> Mapping[str, int]:
    """Return the terms of a question, and how often each occurs in it."""
    text = normalise(question)
    stems = stems_of(connection, language, words_of(raw_tokens(text)))
    return Counter(terms_of(text, stems))


def score_chunks(
    connection: psycopg.Connection[Any],
    sources: Sequence[SourceWords],
    question: str,
    wanted: Mapping[int, Integers] | None,
) -> LexicalScores:
    """Score every live chunk of sources by the words of a question.

    Args:
        connection: In the transaction whose snapshot is searched.
        sources: What is searched; at least one.
        question: Its words are looked for.
        wanted: Of each source, first ordinals and numbers of chunks, shape (documents, 2), that
            alone may be found; None for all.
    """
    bases: dict[int, int] = {}
    size = 0
    for source in sources:
        bases[source.source_id] = size
        size += source.next_ordinal
    languages = {source.language for source in sources}
    terms = {one: question_terms(connection, one, question) for one in languages}
    dead = _dead(connection, bases, size)
    scoring = _Scoring(sources, terms, bases, dead)
    scores = numpy.zeros(size, dtype=numpy.float32)
    rows = scoring.rows(connection)
    for row in rows:
        scores[row.positions] += row.impacts
    if dead is not None:
        scores[dead] = 0
    if wanted is not None:
        scores[~_mask(wanted, bases, size)] = 0
    return LexicalScores(scores, scoring.bests(), bases, terms, rows)


def top_positions(scores: Floats, count: int) -> Integers:
    """Return where the largest positive scores are, best first; of equals the earlier first.

    The k-th largest of the maxima of blocks bounds the k-th largest of all from below, so that
    only few are left to sort.
    """
    whole = len(scores) // _BLOCK * _BLOCK
    bound = numpy.float32(0)
    if whole // _BLOCK > count:
        maxima = scores[:whole].reshape(-1, _BLOCK).max(axis=1)
        bound = numpy.partition(maxima, -count)[-count]
    places = numpy.flatnonzero(scores >= bound) if bound > 0 else numpy.flatnonzero(scores)
    order = numpy.argsort(-scores[places], kind="stable")[:count]
    return places[order].astype(numpy.int64)


class _Scoring:
    """One question against the sources: what its terms weigh, and where they occur."""

    def __init__(
        self,
        sources: Sequence[SourceWords],
        terms: Mapping[str, Mapping[str, int]],
        bases: Mapping[int, int],
        dead: Mask | None,
    ) -> None:
        self._sources = sources
        self._terms = terms
        self._bases = bases
        self._dead = dead
        self._chunks = sum(source.chunks for source in sources)
        tokens = sum(source.tokens for source in sources)
        self._mean_length = tokens / self._chunks if tokens else 1.0
        self._idf: dict[str, float] = {}

    def rows(self, connection: psycopg.Connection[Any]) -> list[_Row]:
        pairs = [
            (source.source_id, term)
            for source in self._sources
            for term in self._terms[source.language]
        ]
        found = connection.execute(
            _statements("find_postings"),
            {"source_ids": [one for one, _ in pairs], "terms": [term for _, term in pairs]},
            prepare=True,
            binary=True,
        ).fetchall()
        positions = [
            self._positions(source_id, block, data) for source_id, _, block, data, *_ in found
        ]
        frequencies: Counter[str] = Counter()
        for (_, term, *_), places in zip(found, positions, strict=True):
            frequencies[term] += self._alive(places)
        for counted in self._terms.values():
            for term in counted:
                self._idf[term] = self._inverse_frequency(frequencies[term])
        language = {source.source_id: source.language for source in self._sources}
        return [
            _Row(term, places, self._impacts(self._terms[language[source_id]][term], term, *packed))
            for (source_id, term, _, _, *packed), places in zip(found, positions, strict=True)
        ]

    def bests(self) -> dict[int, float]:
        by_language = {
            language: sum(count * self._idf[term] for term, count in counted.items())
            for language, counted in self._terms.items()
        }
        return {source.source_id: by_language[source.language] for source in self._sources}

    def _positions(self, source_id: int, block: int, ordinals: bytes) -> Integers:
        low = numpy.frombuffer(ordinals, ORDINAL_TYPE).astype(numpy.int64)
        low += self._bases[source_id] + (block << BLOCK_BITS)
        return low

    def _alive(self, places: Integers) -> int:
        gone = 0 if self._dead is None else int(numpy.count_nonzero(self._dead[places]))
        return len(places) - gone

    def _inverse_frequency(self, documents: int) -> float:
        return math.log(1 + (self._chunks - documents + 0.5) / (documents + 0.5))

    def _impacts(self, times: int, term: str, counts: bytes, lengths: bytes) -> Floats:
        frequency = numpy.frombuffer(counts, COUNT_TYPE).astype(numpy.float32)
        length = numpy.frombuffer(lengths, LENGTH_TYPE).astype(numpy.float32)
        length *= numpy.float32(K1 * B / self._mean_length)
        length += numpy.float32(K1 * (1 - B))
        length += frequency
        frequency *= numpy.float32(times * self._idf[term])
        frequency /= length
        return frequency


def _dead(connection: psycopg.Connection[Any], bases: Mapping[int, int], size: int) -> Mask | None:
    rows = connection.execute(
        _statements("find_dead"), {"source_ids": list(bases)}, prepare=True, binary=True
    ).fetchall()
    if not rows:
        return None
    return _mask({source_id: ranges_of(packed) for source_id, packed in rows}, bases, size)


def ranges_of(packed: bytes) -> Integers:
    """Return pairs of integers, shape (pairs, 2), as SQL packs them by `int4send`."""
    return numpy.frombuffer(packed, ">i4").reshape(-1, 2).astype(numpy.int64)


def _mask(ranges: Mapping[int, Integers], bases: Mapping[int, int], size: int) -> Mask:
    """Return True at every position within the ranges, which do not overlap."""
    edges = numpy.zeros(size + 1, dtype=numpy.int32)
    for source_id, pairs in ranges.items():
        if source_id in bases:
            starts = pairs[:, 0] + bases[source_id]
            edges[starts] += 1
            edges[starts + pairs[:, 1]] -= 1
    return numpy.cumsum(edges[:-1]) > 0
