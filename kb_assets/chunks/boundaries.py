"""Where text without structure may be cut: blank lines, lines, sentences, words."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import regex

from kb_assets.chunks.graphemes import ATTACHED


class Boundaries(Protocol):
    """One way to cut a text."""

    def cuts(self, text: str, after: int, last: int) -> Iterator[int]:
        """Return the positions a text may be cut at, ascending, `after < position <= last`."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Cuts that were found beforehand, ascending."""

    positions: Sequence[int]

    def cuts(self, text: str, after: int, last: int) -> Iterator[int]:
        """Return those of the positions that lie between."""
        low = bisect_right(self.positions, after)
        high = bisect_left(self.positions, last + 1, low)
        return iter(self.positions[low:high])


@dataclass(frozen=True, slots=True)
class Pattern:
    """Cuts at the end of each match of a pattern."""

    pattern: "regex.Pattern[str]"

    def cuts(self, text: str, after: int, last: int) -> Iterator[int]:
        """Find the ends of matches; what they look ahead at is one character."""
        for match in self.pattern.finditer(text, after, last + 1):
            if after < match.end() <= last:
                yield match.end()


_NEXT = rf"(?=[^\s{ATTACHED}])"
_CLOSING = r"[)\]}\"'”’»*_`]*+"  # noqa: RUF001
_NOT_AN_END = (
    r"(?<!\b(?:\p{Lu}|Mrs?|Ms|Dr|Prof|St|No|Nr|Fig|Eq|Sec|vs|cf|e\.g|i\.e|z\.B|d\.h))"
    r"(?<!(?m:^)[ \t]*\d{1,3})"
)
_BLANK_LINES = r"\n(?:[^\S\n]*+\n)++"

BLANK_LINE = Pattern(regex.compile(_BLANK_LINES))
"""After one or more blank lines."""

LINE = Pattern(regex.compile(r"\n(?:[^\S\n]*+\n)*+"))
"""After a line and the blank lines that follow it."""

SENTENCE = Pattern(
    regex.compile(
        rf"(?<![.!?…]){_NOT_AN_END}[.!?…]++{_CLOSING}\s++(?=[^\s\p{{Ll}}{ATTACHED}])"
        rf"|(?<![。！？｡])[。！？｡]++[」』）”’]*+\s*+{_NEXT}"  # noqa: RUF001
        rf"|{_BLANK_LINES}"
    )
)
"""After a sentence and the white space that follows it; a blank line ends a sentence."""

WORD = Pattern(regex.compile(rf"(?:(?<!\s)\s++|[、，；：]){_NEXT}"))  # noqa: RUF001
"""After a word and the white space that follows it."""
