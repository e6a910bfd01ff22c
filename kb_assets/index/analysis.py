"""From texts to terms: what BM25 counts. Pure, but for stems, which PostgreSQL's dictionaries know.

A word is lower-cased, dropped if it is a stop word, and stemmed. An identifier gives its parts and
itself whole: `max_retry_count`, `KafkaConsumer`, `--dry-run`, `app.settings`, `TS-4290`. Scripts
without spaces between words give pairs of neighbouring characters.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

import numpy
import numpy.typing
import regex

VERSION = 2
"""Raise it with any change of what follows: every source is then analysed anew by its next run."""

MAX_TERM_CHARACTERS = 100
"""Longer runs of letters are no words, and would not fit into an index."""

# A letter's marks are part of it, for `regex` as for readers of Hindi; not for `re`.
_WORDS = r"\w+(?:[.\-'’]\w+)*"  # noqa: RUF001
_RAW = regex.compile(rf"{_WORDS}|(?<![\w-])--?(?=[^\W\d_]){_WORDS}")
_POSSESSIVE = regex.compile(r"['’]s$")  # noqa: RUF001
_APOSTROPHE = regex.compile(r"['’]")  # noqa: RUF001
_PARTS = regex.compile(r"[\W_]+")
_CAMEL = regex.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_JOINED = regex.compile(r"^-|[^_]_[^_]|[.-]")
_UNSPACED = regex.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
)

Integers = numpy.typing.NDArray[numpy.int64]
Places = numpy.typing.NDArray[numpy.int32]


class Features(NamedTuple):
    """What one run of characters stands for.

    Attributes:
        words: To be stemmed, or dropped.
        exact: Terms as they are.
    """

    words: tuple[str, ...]
    exact: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in texts, its words not stemmed yet.

    Attributes:
        texts: How many texts there were.
        words: Every distinct word.
        exact: Every distinct term that is to stay as it is.
        features: Of each word or term that was read, in no order, the place in `words`, or in
            `exact` after all of those.
        owners: The text it was read in.
    """

    texts: int
    words: tuple[str, ...]
    exact: tuple[str, ...]
    features: Places
    owners: Places


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Which terms occur in which texts.

    Attributes:
        terms: Every distinct term.
        term_ids: For each pair of a term and a text it occurs in, the term's place in `terms`;
            ascending.
        texts: The text's place; ascending within a term.
        counts: How often it occurs there.
        lengths: Of each text, how many terms it has, repeated ones included.
    """

    terms: tuple[str, ...]
    term_ids: Integers
    texts: Integers
    counts: Integers
    lengths: Integers


def features(raw: str) -> Features:
    """Return what a run of characters, as `raw_tokens` cuts them, stands for."""
    if raw.isalnum():
        unspaced = None if raw.isascii() else _UNSPACED.search(raw)
        if unspaced is None and (tail := raw[1:]) == tail.lower():
            return Features(_fitting((raw,)), ())
        if unspaced is not None and len(unspaced[0]) == len(raw):
            return Features((), _pairs(raw))
    return _parted(raw)


def _parted(raw: str) -> Features:
    if unspaced := _UNSPACED.findall(raw):
        pairs = tuple(pair for run in unspaced for pair in _pairs(run))
        rest = [part for part in _UNSPACED.split(raw) if part.strip("_-.'’")]  # noqa: RUF001
        return _joined(rest, pairs)
    raw = _POSSESSIVE.sub("", raw)
    pieces = _APOSTROPHE.split(raw)
    if len(pieces) > 1:
        return _joined([piece for piece in pieces if piece])
    parts = [part for part in _PARTS.split(raw) if part]
    words = [word for part in parts for word in _CAMEL.split(part)]
    if _JOINED.search(raw):
        return Features(_fitting(words), _fitting([raw.strip("_")]))
    # Written small it would be a word like any other, and is to be found so.
    whole = parts if len(words) > len(parts) else []
    return Features(_fitting([*words, *whole]), ())


def raw_tokens(text: str) -> list[str]:
    """Return the runs of characters of a text that may be words or identifiers."""
    runs: list[str] = _RAW.findall(text)
    return runs


def words_of(raws: Iterable[str]) -> set[str]:
    """Return the words whose stems are needed."""
    return {word for raw in raws for word in features(raw).words}


def terms_of(text: str, stems: Mapping[str, str | None]) -> Iterator[str]:
    """Return the terms of a text, repeated ones included.

    Args:
        text: Any text.
        stems: The stem of each of its words; None for a stop word.
    """
    for raw in raw_tokens(text):
        yield from _terms(raw, stems)


def read(texts: Iterable[str]) -> Reading:
    """Find words and terms in texts."""
    tokens = [raw_tokens(text) for text in texts]
    sizes = numpy.array([len(some) for some in tokens], dtype=numpy.int64)
    raws = _Places()
    found = raws.of(chain.from_iterable(tokens), int(sizes.sum()))
    owners = numpy.repeat(numpy.arange(len(tokens)), sizes)
    # Lists of strings are all that is kept: objects by the hundred thousand keep the
    # garbage collector busy.
    words: list[str] = []
    exact: list[str] = []
    word_counts, exact_counts = [], []
    for raw in raws:
        made = features(raw)
        words += made.words
        exact += made.exact
        word_counts.append(len(made.words))
        exact_counts.append(len(made.exact))
    word_places, exact_places = _Places(), _Places()
    of_words = _spread(found, owners, word_places.of(words, len(words)), word_counts)
    of_exact = _spread(found, owners, exact_places.of(exact, len(exact)), exact_counts)
    return Reading(
        len(tokens),
        tuple(word_places),
        tuple(exact_places),
        numpy.concatenate([of_words[0], of_exact[0] + len(word_places)], dtype=numpy.int32),
        numpy.concatenate([of_words[1], of_exact[1]], dtype=numpy.int32),
    )


def occurrences(readings: Sequence[Reading], stems: Mapping[str, str | None]) -> Occurrences:
    """Count terms in texts.

    Args:
        readings: What was read in them; at least one, which may be of no texts.
        stems: The stem of each word in them; None for a stop word.
    """
    places = _Places()
    texts = 0
    found, owners = [], []
    for reading in readings:
        stemmed = (stems[word] for word in reading.words)
        terms = [-1 if stem is None else places[stem] for stem in stemmed]
        terms.extend(map(places.__getitem__, reading.exact))
        found.append(numpy.array(terms, dtype=numpy.int64)[reading.features])
        owners.append(reading.owners + texts)
        texts += reading.texts
    return _counted(tuple(places), texts, numpy.concatenate(found), numpy.concatenate(owners))


def _counted(terms: tuple[str, ...], texts: int, found: Integers, owners: Places) -> Occurrences:
    kept = found >= 0
    found, owners = found[kept], owners[kept]
    lengths = numpy.bincount(owners, minlength=texts).astype(numpy.int64)
    many = max(1, texts)
    keys, counts = numpy.unique(found * many + owners, return_counts=True)
    term_ids, places = numpy.divmod(keys, many)
    return Occurrences(terms, term_ids, places, counts.astype(numpy.int64), lengths)


class _Places(dict[str, int]):
    """Numbers strings in the order in which they are first asked for."""

    def __missing__(self, key: str) -> int:
        self[key] = place = len(self)
        return place

    def of(self, keys: Iterable[str], count: int) -> Integers:
        return numpy.fromiter(map(self.__getitem__, keys), numpy.int64, count)


def _spread(
    raws: Integers, owners: Integers, made: Integers, counts: Sequence[int]
) -> tuple[Integers, Integers]:
    """Put what was made of each run of characters in its place, as often as the run occurs."""
    widths = numpy.array(counts, dtype=numpy.int64)
    repeats = widths[raws]
    shifts = (numpy.cumsum(widths) - widths)[raws] - (numpy.cumsum(repeats) - repeats)
    at = numpy.arange(int(repeats.sum())) + numpy.repeat(shifts, repeats)
    return made[at], numpy.repeat(owners, repeats)


def _terms(raw: str, stems: Mapping[str, str | None]) -> list[str]:
    made = features(raw)
    terms = [stem for word in made.words if (stem := stems[word]) is not None]
    terms.extend(made.exact)
    return terms


def _joined(pieces: Sequence[str], exact: tuple[str, ...] = ()) -> Features:
    made = [features(piece) for piece in pieces]
    return Features(
        tuple(word for one in made for word in one.words),
        (*exact, *(term for one in made for term in one.exact)),
    )


def _fitting(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        [low for word in words if word and len(low := word.lower()) <= MAX_TERM_CHARACTERS]
    )


def _pairs(run: str) -> tuple[str, ...]:
    return tuple(map("".join, pairwise(run))) or (run,)
