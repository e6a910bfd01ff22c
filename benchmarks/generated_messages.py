"""Conversations made by rule, in any number, as they stream in: for measuring the archive.

Text is words and set phrases of a made-up language. Their frequencies fall as in the law of Zipf
and Mandelbrot, frequent words are short, and a third of what is drawn are phrases, since that is
why gzip makes prose smaller than its words alone would allow. So the entropy is known, and how
small gzip makes the text is measured, where a benchmark says how small an archive is.

Ids are random UUIDs, as clients make them. The same seed gives the same messages.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import NamedTuple

import numpy

from kb_assets.database.binary import NULL, field

COLUMNS = (
    *("id", "conversation_id", "created_at", "role", "content", "language", "intent"),
    *("metadata", "token_count", "ordinal", "total_bytes", "total_tokens"),
)

_WORDS = 50_000
_PHRASES = 50_000
_PHRASE_SHARE = 0.35
_EXPONENT = 1.1
_OFFSET = 2.7
_UNIT_BYTES = 32
"""The longest word or phrase, with room for the mark after it."""

_ONSETS = (
    *("", *"bcdfghklmnprstvwz", "br", "ch", "cl", "cr", "dr", "fl", "gr"),
    *("pl", "pr", "sh", "sl", "sp", "st", "th", "tr"),
)
_VOWELS = (*"aeiou", "ai", "ea", "ee", "io", "ou")
_CODAS = ("", "n", "r", "s", "t", "l", "m", "d", "nd", "st", "ng", "ck")
_MARKS = (b" ", b", ", b". ", b"? ", b"! ")
_MARK_SHARES = numpy.array([0.86, 0.06, 0.06, 0.01, 0.01])
_FULL_STOP = 2

_TURNS = (2, 40)
_USERS = 20_000
_MEAN_UNITS = {"user": 20, "assistant": 48}
_LANGUAGES, _LANGUAGE_SHARES = ("en", "de", "fr", "es", "pt"), (0.7, 0.12, 0.08, 0.06, 0.04)
_INTENTS = (
    *("question", "billing", "refund", "delivery", "account", "complaint", "cancellation"),
    *("how_to", "small_talk", "feedback", "bug_report", "escalation"),
)
_CLIENTS = ("web 12.4", "web 12.5", "ios 5.2.1", "android 5.1.9", "email", "api")
_SECOND = 1_000_000
_LONGEST_GAP = 12 * 3600 * _SECOND
_SINCE_1970 = 946_684_800 * _SECOND
"""PostgreSQL counts microseconds since 2000."""

_CONVERSATIONS = 1000
"""How many are made at once."""


class GeneratedMessage(NamedTuple):
    """A message in the order of the table's columns, and whose it is."""

    id: str
    conversation_id: str
    created_at: int
    role: str
    content: str
    language: str
    intent: str | None
    metadata: str
    token_count: int
    ordinal: int
    total_bytes: int
    total_tokens: int
    user_id: str


def generated(
    count: int, low: date, high: date, seed: int, prose: "Prose"
) -> Iterator[list[GeneratedMessage]]:
    """Yield so many messages of whole conversations that begin and end in `[low, high)`.

    The last conversation is cut where the count is reached.
    """
    random = numpy.random.default_rng(seed)
    made = 0
    while made < count:
        batch = _conversations(random, _microseconds(low), _microseconds(high), prose)
        yield batch[: count - made]
        made += len(batch)


def encoded(message: GeneratedMessage, *, late: bool = False) -> bytes:
    """Return a message as a row of binary COPY; late ones have no place and no totals."""
    texts = (message.role, message.content, message.language)
    counts = (message.ordinal, message.total_bytes, message.total_tokens)
    return b"".join(
        (
            len(COLUMNS).to_bytes(2, "big"),
            field(message.id.encode()),
            field(message.conversation_id.encode()),
            field((message.created_at - _SINCE_1970).to_bytes(8, "big", signed=True)),
            *(field(text.encode()) for text in texts),
            NULL if message.intent is None else field(message.intent.encode()),
            field(b"\x01" + message.metadata.encode()),
            field(message.token_count.to_bytes(4, "big")),
            *(NULL if late else field(number.to_bytes(8, "big")) for number in counts),
        )
    )


class GzipRatio:
    """How small gzip -6 makes texts, one below the other, in pieces of 1 MB."""

    def __init__(self) -> None:
        self._piece = bytearray()
        self._bytes = self._packed = 0

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._piece += text.encode() + b"\n"
            if len(self._piece) >= 1_000_000:
                self._bytes += len(self._piece)
                self._packed += len(zlib.compress(self._piece, 6))
                self._piece.clear()

    @property
    def value(self) -> float:
        whole = self._bytes + len(self._piece)
        return (self._packed + len(zlib.compress(self._piece, 6))) / whole


class Prose:
    """Draws texts.

    Attributes:
        bits_per_character: The entropy of what is drawn.
    """

    def __init__(self) -> None:
        random = numpy.random.default_rng(1)
        units, shares = _units(random)
        lengths = numpy.char.str_len(units)
        self._rows = units.view(numpy.uint8).reshape(len(units), _UNIT_BYTES)
        self._lengths, self._sums = lengths, numpy.cumsum(shares)
        self._marks = numpy.array(_MARKS, "S2").view(numpy.uint8).reshape(-1, 2)
        characters = shares @ lengths + _MARK_SHARES @ [len(mark) for mark in _MARKS]
        self.bits_per_character = (_entropy(shares) + _entropy(_MARK_SHARES)) / characters

    def draw(self, random: numpy.random.Generator, sizes: numpy.ndarray) -> list[str]:
        """Return a text for each size, which is its number of words and phrases."""
        ends = numpy.cumsum(sizes)
        total = int(ends[-1])
        picks = numpy.searchsorted(self._sums, random.random(total)).clip(0, len(self._sums) - 1)
        marks = random.choice(len(_MARKS), total, p=_MARK_SHARES)
        marks[ends - 1] = _FULL_STOP
        rows, lengths = self._rows[picks], self._lengths[picks]
        rows[numpy.roll(marks >= _FULL_STOP, 1), 0] -= ord("a") - ord("A")
        for place in range(2):
            rows[numpy.arange(total), lengths + place] = self._marks[marks, place]
        written = numpy.cumsum(lengths + 1 + (marks > 0))[ends - 1].tolist()
        text = rows[rows != 0].tobytes().decode("ascii")
        starts = [0, *written[:-1]]
        return [text[start : end - 1] for start, end in zip(starts, written, strict=True)]


def _units(random: numpy.random.Generator) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return words and phrases, padded with zeros, and how often each comes."""
    words, shares = _vocabulary(random), _shares(_WORDS)
    sizes = random.integers(2, 4, 2 * _PHRASES)
    drawn = random.choice(words, (len(sizes), 3), p=shares)
    made = (" ".join(row[:size]) for row, size in zip(drawn, sizes, strict=True))
    # Two bytes stay free for the mark behind it.
    phrases = [*dict.fromkeys(one for one in made if len(one) <= _UNIT_BYTES - 2)][:_PHRASES]
    both = numpy.array([*words, *phrases], f"S{_UNIT_BYTES}")
    of_words, of_phrases = (1 - _PHRASE_SHARE) * shares, _PHRASE_SHARE * _shares(len(phrases))
    return both, numpy.concatenate([of_words, of_phrases])


def _vocabulary(random: numpy.random.Generator) -> list[str]:
    """Return words, the most frequent first, and those mostly the short ones."""
    syllables = numpy.array([f"{a}{b}{c}" for a in _ONSETS for b in _VOWELS for c in _CODAS])
    sizes = random.choice([1, 2, 3, 4], 2 * _WORDS, p=[0.1, 0.4, 0.35, 0.15])
    drawn = syllables[random.integers(0, len(syllables), (len(sizes), 4))]
    made = ("".join(row[:size]) for row, size in zip(drawn, sizes, strict=True))
    words = [*dict.fromkeys(made)][:_WORDS]
    order = numpy.argsort([len(word) for word in words] + random.gumbel(0, 1.5, len(words)))
    return [words[place] for place in order]


def _shares(count: int) -> numpy.ndarray:
    weights = 1 / (numpy.arange(1, count + 1) + _OFFSET) ** _EXPONENT
    return weights / weights.sum()


def _entropy(shares: numpy.ndarray) -> float:
    return float(-shares @ numpy.log2(shares))


def _conversations(
    random: numpy.random.Generator, low: int, high: int, prose: Prose
) -> list[GeneratedMessage]:
    turns = random.integers(_TURNS[0], _TURNS[1] + 1, _CONVERSATIONS)
    total, firsts = int(turns.sum()), numpy.cumsum(turns) - turns
    of = numpy.repeat(numpy.arange(_CONVERSATIONS), turns)
    turn = numpy.arange(total) - firsts[of]
    is_user = turn % 2 == 0
    tool = ~is_user & (random.random(total) < 0.05)
    means = numpy.where(is_user, _MEAN_UNITS["user"], _MEAN_UNITS["assistant"])
    sizes = numpy.maximum(1, means * random.lognormal(-0.32, 0.8, total)).astype(int)
    contents = prose.draw(random, sizes)
    roles = numpy.where(is_user, "user", numpy.where(tool, "tool", "assistant"))
    lengths = numpy.array([len(content) for content in contents])
    tokens = -(-lengths // 4)
    users = (random.random(_CONVERSATIONS) ** 2 * _USERS).astype(int)
    languages = random.choice(_LANGUAGES, _CONVERSATIONS, p=_LANGUAGE_SHARES)
    intents = random.choice(_INTENTS, total).tolist()
    columns = (
        _uuids(random, total),
        _repeated(_uuids(random, _CONVERSATIONS), of),
        _times(random, firsts, of, low, high),
        roles.tolist(),
        contents,
        languages[of].tolist(),
        [intent if user else None for intent, user in zip(intents, is_user, strict=True)],
        _metadata(random, is_user, of),
        tokens.tolist(),
        (turn + 1).tolist(),
        _running(lengths, firsts, of),
        _running(tokens, firsts, of),
        [f"user-{number:05}" for number in users[of]],
    )
    return [GeneratedMessage(*row) for row in zip(*columns, strict=True)]


def _times(
    random: numpy.random.Generator, firsts: numpy.ndarray, of: numpy.ndarray, low: int, high: int
) -> list[int]:
    """Return microseconds since 1970: pauses of minutes mostly, of hours now and then."""
    pauses = 40 * _SECOND * random.lognormal(0, 1.2, len(of))
    pauses[random.random(len(of)) < 0.01] *= 500
    gaps = pauses.clip(1, _LONGEST_GAP).astype(numpy.int64)
    after = numpy.cumsum(gaps) - numpy.cumsum(gaps)[firsts][of]
    lasting = numpy.append(after[firsts[1:] - 1], after[-1])
    begin = low + (random.random(len(firsts)) * (high - low - lasting)).astype(numpy.int64)
    return (begin[of] + after).tolist()


def _running(numbers: numpy.ndarray, firsts: numpy.ndarray, of: numpy.ndarray) -> list[int]:
    sums = numpy.cumsum(numbers)
    return (sums - (sums - numbers)[firsts][of]).tolist()


def _metadata(
    random: numpy.random.Generator, is_user: numpy.ndarray, of: numpy.ndarray
) -> list[str]:
    clients = random.choice(_CLIENTS, _CONVERSATIONS)[of].tolist()
    models = random.choice(("small-3", "large-3"), _CONVERSATIONS)[of].tolist()
    latencies = random.lognormal(6.7, 0.5, len(of)).astype(int).tolist()
    return [
        f'{{"client": "{client}"}}'
        if user
        else f'{{"model": "{model}", "latency_ms": {latency}, "finish_reason": "stop"}}'
        for user, client, model, latency in zip(is_user, clients, models, latencies, strict=True)
    ]


def _uuids(random: numpy.random.Generator, count: int) -> list[str]:
    """Return random UUIDs, of version 4."""
    raw = numpy.frombuffer(random.bytes(16 * count), numpy.uint8).reshape(count, 16).copy()
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    text = raw.tobytes().hex()
    pieces = (text[start : start + 32] for start in range(0, len(text), 32))
    return [f"{one[:8]}-{one[8:12]}-{one[12:16]}-{one[16:20]}-{one[20:]}" for one in pieces]


def _repeated(values: Sequence[str], of: numpy.ndarray) -> list[str]:
    return [values[place] for place in of]


def _microseconds(day: date) -> int:
    return (day - date(1970, 1, 1)).days * 24 * 3600 * _SECOND
