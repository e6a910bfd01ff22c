"""Chooses where a chunk ends: at the coarsest boundary that does not waste its room.

Looks at no more than about a chunk's length of text, whatever lies behind it.
"""

from dataclasses import dataclass

from kb_assets.chunks.boundaries import Boundaries
from kb_assets.chunks.graphemes import cluster_end, cluster_floor
from kb_assets.chunks.layout import Layout
from kb_assets.chunks.tokens import Ruler

_SLACK_CHARACTERS = 128
"""A reach may fall short of the truth by one token; no token is longer."""

_INSIDE_WORD = 100
"""The depth of a cut that no level allows."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A place where one chunk's text ends and the next one's begins.

    Attributes:
        position: Characters before it.
        depth: Which of the layout's levels allows it; 0 is the coarsest.
    """

    position: int
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Text that is cut by itself.

    Attributes:
        start: Its first character.
        end: After its last character.
        last: Its last character that is not white space: no cut comes after it, so that white
            space at the end is never left alone.
    """

    start: int
    end: int
    last: int


@dataclass(frozen=True, slots=True)
class Cutter:
    """Chooses cuts in one text.

    Attributes:
        text: The text.
        ruler: What chunks are measured with.
        layout: Where the text may be cut.
        size: The most a chunk may measure.
    """

    text: str
    ruler: Ruler
    layout: Layout
    size: int

    def choose(self, stretch: Stretch, begin: int, fresh: Cut, reach: int) -> Cut:
        """Choose the end of a chunk.

        A piece that fits into a chunk of its own stays whole, even if it then leaves no room for
        overlap or the chunk before it is small. Any other piece is cut where the room ends, at
        the best boundary inside it.

        Args:
            stretch: What is cut.
            begin: Where the chunk begins, with its overlap.
            fresh: Where its new text begins.
            reach: How far the chunk's room lasts, about.

        Returns:
            A cut after `fresh`, beyond `reach` only to keep a piece or a character whole.
        """
        if reach >= stretch.end:
            return Cut(stretch.end)
        near = max(fresh.position, min(reach, stretch.last))
        floor = fresh
        index = 0
        while index < len(levels := self.layout.levels(floor.position)):
            level = levels[index]
            cut = self._last_cut(level, fresh.position, floor.position, near)
            if cut is not None:
                floor = Cut(cut, index)
                if 2 * (cut - begin) >= near - begin:
                    return floor
            elif floor is fresh and fresh.depth <= index:
                whole = self._piece_end(stretch, level, fresh.position, near)
                if whole is not None:
                    return Cut(whole, index)
            if floor is not fresh and self._piece_end(
                stretch, level, floor.position, floor.position
            ):
                return floor
            index += 1
        return self._inside_word(stretch, fresh, floor, near)

    def _last_cut(self, level: Boundaries, fresh: int, floor: int, near: int) -> int | None:
        """Return the last boundary up to `near` that leaves more than white space before it."""
        last = None
        for last in level.cuts(self.text, floor, near):  # noqa: B007
            pass
        return None if last is None or self.text[fresh:last].isspace() else last

    def _piece_end(
        self, stretch: Stretch, level: Boundaries, start: int, beyond: int
    ) -> int | None:
        """Return the first boundary after `beyond` if all from `start` to it fits a chunk."""
        reach = self.ruler.reach(self.text, start, stretch.end, self.size)
        far = min(stretch.end, reach + _SLACK_CHARACTERS)
        cuts = level.cuts(self.text, start, min(far, stretch.last))
        rest = stretch.end if far == stretch.end else None
        cut = next((cut for cut in cuts if cut > beyond), rest)
        if cut is None or self.text[start:cut].isspace():
            return None
        fits = self.ruler.measure_within(self.text[start:cut], self.size)
        return None if fits is None else cut

    def _inside_word(self, stretch: Stretch, fresh: Cut, floor: Cut, near: int) -> Cut:
        position = cluster_floor(self.text, floor.position, near)
        if position > floor.position:
            return Cut(position, _INSIDE_WORD)
        if floor is not fresh:
            return floor
        return Cut(self._one_cluster(fresh.position, near, stretch.end), _INSIDE_WORD)

    def _one_cluster(self, start: int, near: int, end: int) -> int:
        """Return the end of a cluster, or of the characters of it that fit, at least one."""
        stop = cluster_end(self.text, start, min(end, near + _SLACK_CHARACTERS))
        if self.ruler.measure_within(self.text[start:stop], self.size) is not None:
            return stop
        return max(near, start + 1)
