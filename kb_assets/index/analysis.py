"""From texts to terms: what BM25 counts. Pure, but for stems, which PostgreSQL's dictionaries know.

A word is lower-cased, dropped if it is a stop word, and stemmed. An identifier gives its parts and
itself whole: `max_retry_count`, `KafkaConsumer`, `--dry-run`, `app.settings`, `TS-4290`. Scripts
without spaces between words give pairs of neighbouring characters.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy
import numpy.typing
import regex

VERSION = 2
"""Raise it with any change of what follows: every source is then analysed anew by its next run."""

MAX_TERM_CHARACTERS = 100
"""Longer runs of letters are no words, and would not fit into an index."""

# A letter's marks are part of it, for `regex` as for readers of Hindi; not for `re`.
_RAW = regex.compile(r"(?:(?<![\w-])--?(?=[^\W\d_]))?\w+(?:[.\-'’]\w+)*")  # noqa: RUF001
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


@dataclass(frozen=True, slots=True)
class Features:
    """What one run of characters stands for.

    Attributes:
        words: To be stemmed, or dropped.
        exact: Terms as they are.
    """

    words: tuple[str, ...]
    exact: tuple[str, ...]


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
    # What is long is rare, and would fill the memory.
    return _features(raw) if len(raw) > MAX_TERM_CHARACTERS else _remembered(raw)


def _features(raw: str) -> Features:
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


_remembered = lru_cache(maxsize=262_144)(_features)


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


def occurrences(tokens: Sequence[Sequence[str]], stems: Mapping[str, str | None]) -> Occurrences:
    """Count terms in texts.

    Args:
        tokens: The `raw_tokens` of each text.
        stems: The stem of each word in them; None for a stop word.
    """
    many = max(1, len(tokens))
    raw_ids: dict[str, int] = {}
    sizes = numpy.array([len(some) for some in tokens], dtype=numpy.int64)
    ids = numpy.fromiter(
        (raw_ids.setdefault(raw, len(raw_ids)) for some in tokens for raw in some),
        numpy.int64,
        int(sizes.sum()),
    )
    term_ids: dict[str, int] = {}
    expanded = [
        [term_ids.setdefault(term, len(term_ids)) for term in _terms(raw, stems)] for raw in raw_ids
    ]
    widths = numpy.array([len(terms) for terms in expanded], dtype=numpy.int64)
    flat = numpy.array([term for terms in expanded for term in terms], dtype=numpy.int64)
    repeats = widths[ids]
    firsts = numpy.repeat((numpy.cumsum(widths) - widths)[ids], repeats)
    within = numpy.arange(int(repeats.sum())) - numpy.repeat(
        numpy.cumsum(repeats) - repeats, repeats
    )
    terms = flat[firsts + within]
    owners = numpy.repeat(numpy.repeat(numpy.arange(len(tokens)), sizes), repeats)
    lengths = numpy.bincount(owners, minlength=len(tokens)).astype(numpy.int64)
    keys, counts = numpy.unique(terms * many + owners, return_counts=True)
    found, texts = numpy.divmod(keys, many)
    return Occurrences(tuple(term_ids), found, texts, counts.astype(numpy.int64), lengths)


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
    lowered = (word.lower() for word in words)
    return tuple(word for word in lowered if word and len(word) <= MAX_TERM_CHARACTERS)


def _pairs(run: str) -> list[str]:
    return [run[start : start + 2] for start in range(max(1, len(run) - 1))]
