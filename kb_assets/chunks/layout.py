"""What a text's structure says about where it may be cut."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from kb_assets.chunks.boundaries import LINE, SENTENCE, WORD, Boundaries, Positions


class PieceKind(Enum):
    """What a piece of Markdown is made of, which decides how one that is too big is cut."""

    PROSE = "paragraph, list item, quote"
    LINES = "code, table"


_WITHIN: Mapping[PieceKind, tuple[Boundaries, ...]] = {
    PieceKind.PROSE: (SENTENCE, WORD),
    PieceKind.LINES: (LINE, WORD),
}


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of text under one heading path; chunks do not cross its ends."""

    start: int
    end: int
    heading_path: tuple[str, ...] = ()


class Layout:
    """Finds the ways to cut a text at a position, the best way first."""

    def __init__(
        self,
        sections: Sequence[Section],
        blocks: Sequence[int] = (),
        pieces: Sequence[tuple[int, PieceKind]] = (),
        within: tuple[Boundaries, ...] = (),
    ) -> None:
        """Describe a text.

        Args:
            sections: All of the text, in order.
            blocks: Where paragraphs, lists, fences and tables start, ascending.
            pieces: Where blocks and what is worth keeping whole inside them start, ascending.
            within: How to cut where there are no pieces.
        """
        self.sections = sections
        self._starts = [start for start, _ in pieces]
        self._kinds = [kind for _, kind in pieces]
        coarse = (Positions(blocks), Positions(self._starts))
        self._by_kind = {kind: (*coarse, *finer) for kind, finer in _WITHIN.items()}
        self._without_pieces = within

    def levels(self, position: int) -> tuple[Boundaries, ...]:
        """Return the ways to cut what lies at a position, the coarsest first."""
        if not self._starts:
            return self._without_pieces
        index = bisect_right(self._starts, position) - 1
        return self._by_kind[self._kinds[max(index, 0)]]
