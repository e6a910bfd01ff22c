"""Measures text in exact tokens or in characters, offline.

Token counts do not add up: the count of two texts joined is not the sum of
their counts. So a reach is a proposal, and only `measure` is the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol, cast

from rs_bpe.bpe import openai

EncodingName = Literal["o200k_base", "cl100k_base"]

_SAMPLE_CHARACTERS = 1024
_CHARACTERS_PER_TOKEN = 3


class Ruler(Protocol):
    """What the size of a chunk is measured with."""

    def measure(self, text: str) -> int:
        """Return the exact size of a text."""

    def measure_within(self, text: str, limit: int) -> int | None:
        """Return the exact size of a text, or None if it is over the limit."""

    def width(self, budget: int) -> int:
        """Return about how many characters a budget holds, rather too many than too few."""

    def reach(self, text: str, start: int, end: int, budget: int) -> int:
        """Return about how far, at most to `end`, the budget lasts from `start` on."""

    def reach_back(self, text: str, start: int, end: int, budget: int) -> int:
        """Return about how far back, at most to `start`, the budget lasts before `end`."""


class _Tokenizer(Protocol):
    def count(self, text: str) -> int: ...
    def count_till_limit(self, text: str, limit: int) -> int | None: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str | None: ...


@cache
def _tokenizer(encoding: EncodingName) -> _Tokenizer:
    load = {"o200k_base": openai.o200k_base, "cl100k_base": openai.cl100k_base}[encoding]
    return cast(_Tokenizer, load())


def count_tokens(text: str, encoding: EncodingName = "cl100k_base") -> int:
    """Return how many tokens OpenAI's encoding makes of a text; special tokens are plain text."""
    return _tokenizer(encoding).count(text)


def estimate_tokens(characters: int, size_bytes: int) -> int:
    """Return about how many tokens a text has, for most texts rather too many than too few.

    A token of English prose has about four characters, of code three; digits and hexadecimal
    numbers have two, and are underestimated. Beyond ASCII, tokens may be as short as a byte.

    Args:
        characters: Its Unicode code points.
        size_bytes: Its bytes in UTF-8.
    """
    return -(-characters // _CHARACTERS_PER_TOKEN) + size_bytes - characters


@dataclass(frozen=True, slots=True)
class CharacterRuler:
    """Measures in Unicode code points, as most other splitters do."""

    def measure(self, text: str) -> int:
        """Return the number of code points."""
        return len(text)

    def measure_within(self, text: str, limit: int) -> int | None:
        """Return the number of code points, or None if it is over the limit."""
        return len(text) if len(text) <= limit else None

    def width(self, budget: int) -> int:
        """Return the budget: a character is a character."""
        return budget

    def reach(self, text: str, start: int, end: int, budget: int) -> int:
        """Return `start + budget`, at most `end`."""
        return min(end, start + max(0, budget))

    def reach_back(self, text: str, start: int, end: int, budget: int) -> int:
        """Return `end - budget`, at least `start`."""
        return max(start, end - max(0, budget))


class TokenRuler:
    """Measures in tokens of one encoding."""

    def __init__(self, encoding: EncodingName, text: str) -> None:
        """Prepare to measure parts of a text, whose beginning tells how dense its tokens are."""
        self._tokenizer = _tokenizer(encoding)
        sample = text[:_SAMPLE_CHARACTERS]
        self._characters_per_token = 1.2 * len(sample) / max(1, self._tokenizer.count(sample))

    def measure(self, text: str) -> int:
        """Return the exact number of tokens."""
        return self._tokenizer.count(text)

    def measure_within(self, text: str, limit: int) -> int | None:
        """Return the exact number of tokens, or None if it is over the limit."""
        return self._tokenizer.count_till_limit(text, limit)

    def width(self, budget: int) -> int:
        """Return a fifth more characters than the text's beginning needs for so many tokens."""
        return int(budget * self._characters_per_token) + 16

    def reach(self, text: str, start: int, end: int, budget: int) -> int:
        """Return where the text's first `budget` tokens from `start` end, before a whole character.

        Looks at no more than about twice the text it measures.
        """
        width = self.width(budget)
        while True:
            stop = min(end, start + width)
            tokens = self._tokenizer.encode(text[start:stop])
            if len(tokens) > budget:
                return start + self._whole_characters(tokens[: max(0, budget)], last=-1)
            if stop == end:
                return end
            width *= 2

    def reach_back(self, text: str, start: int, end: int, budget: int) -> int:
        """Return where the last `budget` tokens before `end` start, after a whole character."""
        width = self.width(budget)
        while True:
            stop = max(start, end - width)
            tokens = self._tokenizer.encode(text[stop:end])
            if len(tokens) > budget:
                kept = tokens[len(tokens) - max(0, budget) :]
                return end - self._whole_characters(kept, last=0)
            if stop == start:
                return start
            width *= 2

    def _whole_characters(self, tokens: list[int], *, last: Literal[0, -1]) -> int:
        """Count the characters of tokens, dropping those at one side that split a character."""
        while (text := self._tokenizer.decode(tokens)) is None:
            del tokens[last]
        return len(text)
