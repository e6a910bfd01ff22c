"""An embedder without a model: for tests, and for demos that download nothing.

What it compares is **words, not meaning**: two texts are near when they share
words, pairs of words, or parts of words (`restore` and `restored`). `car` and
`automobile` have nothing in common here. Use a real model for a knowledge base.
"""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy
import numpy.typing

from kb_assets.embeddings.embedder import Answer, Model, Vectors

DIMENSIONS = 384
"""Length of the vectors unless told otherwise."""

MODEL = "words-1"
"""The name of this way of hashing; any change to the numbers below needs another."""

_Integers = numpy.typing.NDArray[numpy.int64]
_Hashes = numpy.typing.NDArray[numpy.uint64]

_WORD = re.compile(r"\w{1,64}")
_CACHED_WORDS = 65_536

# Weights are whole numbers, so that sums do not depend on order, platform or batch.
_WORD_WEIGHT = 1024
_PAIR_WEIGHT = 256
_PART_WEIGHT = 256
_COMMON_WORD_WEIGHT = 128

_COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at be been but by can could did do does for from had has have he her
        his how i if in into is it its may me my no not of on or our over she should so some
        such than that the their them then there these they this those to too under up us was
        we were what when where which who whom whose why will with would you your
        """,
    )
)


class HashEmbedder:
    """Word overlap as vectors: a pure function of the text, the same on every machine.

    Lower-cased words, neighbouring pairs of words and parts of words are hashed,
    with a sign, into a fixed number of places; the square root of a word's count
    is its weight, and words such as `the` weigh little. Vectors have length 1, and
    none is zero, not even that of an empty text. Safe to call from several threads.

    Args:
        dimensions: Length of the vectors.
        query_prefix: Kept in `model`; the caller puts it in place.
        document_prefix: The same, for documents.
    """

    def __init__(
        self, dimensions: int = DIMENSIONS, *, query_prefix: str = "", document_prefix: str = ""
    ) -> None:
        self._model = Model("hash", MODEL, dimensions, query_prefix, document_prefix)

    @property
    def model(self) -> Model:
        """What decides the vectors."""
        return self._model

    @property
    def usd_per_million_tokens(self) -> float:
        """Nothing is charged."""
        return 0.0

    def embed(self, texts: Sequence[str]) -> Answer:
        """Return a vector of length 1 for each text, in order; tokens are words."""
        words = [_words(text) for text in texts]
        lengths = numpy.array([len(some) for some in words], dtype=numpy.int64)
        owners = numpy.repeat(numpy.arange(len(texts), dtype=numpy.int64), lengths)
        totals = _totals(owners, [word for some in words for word in some], self._model.dimensions)
        sums = totals.sums(len(texts))
        _fill_empty(sums, texts)
        return Answer(_of_length_one(sums), int(lengths.sum()))


class _Totals:
    """Weighted hashes of many texts on their way into one matrix."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._places: list[_Integers] = []
        self._weights: list[_Integers] = []

    def add(self, owners: _Integers, hashes: _Hashes, weights: _Integers) -> None:
        mixed = _mixed(hashes)
        columns = (mixed % numpy.uint64(self._dimensions)).astype(numpy.int64)
        signs = (mixed >> numpy.uint64(63)).astype(numpy.int64) * 2 - 1
        self._places.append(owners * self._dimensions + columns)
        self._weights.append(signs * weights)

    def sums(self, texts: int) -> numpy.typing.NDArray[numpy.float64]:
        flat = numpy.bincount(
            numpy.concatenate(self._places),
            weights=numpy.concatenate(self._weights),
            minlength=texts * self._dimensions,
        )
        return flat.astype(numpy.float64).reshape(texts, self._dimensions)


def _totals(owners: _Integers, words: Sequence[str], dimensions: int) -> _Totals:
    vocabulary: dict[str, int] = {}
    ids = numpy.fromiter(
        (vocabulary.setdefault(word, len(vocabulary)) for word in words), numpy.int64, len(words)
    )
    features = [_features(word) for word in vocabulary]
    totals = _Totals(dimensions)
    _add_words(totals, owners, ids, features)
    _add_pairs(totals, owners, ids, features)
    return totals


def _add_words(
    totals: _Totals,
    owners: _Integers,
    ids: _Integers,
    features: Sequence[tuple[_Hashes, _Integers]],
) -> None:
    if not features:
        totals.add(owners, numpy.zeros(0, numpy.uint64), numpy.zeros(0, numpy.int64))
        return
    keys, counts = numpy.unique(owners * len(features) + ids, return_counts=True)
    key_owners, key_ids = numpy.divmod(keys, len(features))
    sizes = numpy.array([len(hashes) for hashes, _ in features])
    starts = numpy.concatenate(([0], numpy.cumsum(sizes)[:-1]))
    repeats = sizes[key_ids]
    firsts = numpy.cumsum(repeats) - repeats
    places = numpy.arange(repeats.sum()) + numpy.repeat(starts[key_ids] - firsts, repeats)
    weights = numpy.concatenate([weights for _, weights in features])[places]
    totals.add(
        numpy.repeat(key_owners, repeats),
        numpy.concatenate([hashes for hashes, _ in features])[places],
        _damped(weights, numpy.repeat(counts, repeats)),
    )


def _add_pairs(
    totals: _Totals,
    owners: _Integers,
    ids: _Integers,
    features: Sequence[tuple[_Hashes, _Integers]],
) -> None:
    if len(ids) < 2:
        return
    whole = numpy.array([hashes[0] for hashes, _ in features], dtype=numpy.uint64)
    plain = numpy.array([weights[0] == _WORD_WEIGHT for _, weights in features])
    left, right = ids[:-1], ids[1:]
    kept = (owners[:-1] == owners[1:]) & (plain[left] | plain[right])
    many = len(features)
    keys, counts = numpy.unique(
        (owners[:-1][kept] * many + left[kept]) * many + right[kept], return_counts=True
    )
    heads, right = numpy.divmod(keys, many)
    pair_owners, left = numpy.divmod(heads, many)
    weights = _damped(numpy.full(len(keys), _PAIR_WEIGHT, numpy.int64), counts)
    totals.add(pair_owners, _mixed(whole[left]) + whole[right], weights)


@lru_cache(maxsize=_CACHED_WORDS)
def _features(word: str) -> tuple[_Hashes, _Integers]:
    """Return the hashes of a word and of its parts, the word first, and their weights."""
    if word in _COMMON_WORDS:
        return _hashes([word]), numpy.array([_COMMON_WORD_WEIGHT], numpy.int64)
    framed = f"<{word}>"
    lengths = (3, 4) if word.isascii() else (2, 3)
    parts = [
        f"#{framed[start : start + length]}"
        for length in lengths
        for start in range(len(framed) - length + 1)
    ]
    weights = numpy.full(len(parts) + 1, _PART_WEIGHT, numpy.int64)
    weights[0] = _WORD_WEIGHT
    return _hashes([word, *parts]), weights


def _hashes(names: Sequence[str]) -> _Hashes:
    return numpy.array([_checksum(name) for name in names], dtype=numpy.uint64)


def _checksum(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _mixed(hashes: _Hashes) -> _Hashes:
    """Spread hashes over 64 bits (the finaliser of splitmix64)."""
    spread = (hashes ^ (hashes >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    spread = (spread ^ (spread >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    spread ^= spread >> numpy.uint64(31)
    return spread


def _damped(weights: _Integers, counts: _Integers) -> _Integers:
    return numpy.rint(weights * numpy.sqrt(counts)).astype(numpy.int64)


def _words(text: str) -> list[str]:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.lower())


def _fill_empty(sums: numpy.typing.NDArray[numpy.float64], texts: Sequence[str]) -> None:
    for row in map(int, numpy.flatnonzero(~sums.any(axis=1))):
        sums[row, _checksum(texts[row]) % sums.shape[1]] = 1.0


def _of_length_one(sums: numpy.typing.NDArray[numpy.float64]) -> Vectors:
    lengths = numpy.sqrt((sums * sums).sum(axis=1, keepdims=True))
    vectors: Vectors = (sums / lengths).astype(numpy.float32)
    return vectors
