"""Fills chunks one after the other, each with the end of the one before as its overlap.

Works forward without recursion, so that the time is linear in the text and its
nesting does not matter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kb_assets.chunks.cutting import Cut, Cutter, Stretch
from kb_assets.chunks.graphemes import cluster_ceiling
from kb_assets.chunks.layout import Layout
from kb_assets.chunks.tokens import Ruler


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk to be: characters `start` to `end`, which the ruler measured as `size`."""

    start: int
    end: int
    size: int


class Packer:
    """Cuts stretches of one text into spans."""

    def __init__(self, text: str, ruler: Ruler, layout: Layout, size: int, overlap: int) -> None:
        """Prepare to cut.

        Args:
            text: The text.
            ruler: What spans are measured with.
            layout: Where the text may be cut.
            size: The most a span may measure; only a single character may be larger.
            overlap: About how much of its predecessor a span repeats.
        """
        self._text = text
        self._ruler = ruler
        self._layout = layout
        self._cutter = Cutter(text, ruler, layout, size)
        self._size = size
        self._overlap = overlap

    def spans(self, start: int, end: int) -> Iterator[Span]:
        """Cut a stretch; what would be a span of nothing but white space is left out."""
        solid = len(self._text[start:end].rstrip())
        if not solid:
            return
        undivided = self._undivided(start, end)
        if undivided is not None:
            yield undivided
            return
        stretch = Stretch(start, end, start + solid - 1)
        previous, fresh = start, Cut(start)
        while fresh.position < end:
            span, fresh = self._next(stretch, previous, fresh)
            previous = span.start
            if not self._text[span.start : span.end].isspace():
                yield span

    def _undivided(self, start: int, end: int) -> Span | None:
        if end - start > self._ruler.width(self._size):
            return None
        size = self._ruler.measure_within(self._text[start:end], self._size)
        return None if size is None else Span(start, end, size)

    def _measure(self, start: int, end: int) -> int:
        return self._ruler.measure(self._text[start:end])

    def _next(self, stretch: Stretch, previous: int, fresh: Cut) -> tuple[Span, Cut]:
        """Return the span whose new text begins at `fresh`, and the cut it ends with."""
        begin = self._overlap_start(previous, fresh.position, self._overlap)
        budget = self._size
        while True:
            reach = self._ruler.reach(self._text, begin, stretch.end, budget)
            cut = self._cutter.choose(stretch, begin, fresh, reach)
            size = self._measure(begin, cut.position)
            if size <= self._size:
                return Span(begin, cut.position, size), cut
            alone = self._measure(fresh.position, cut.position)
            if alone <= self._size or cut.position == fresh.position + 1:
                return self._with_less_overlap(previous, fresh.position, cut.position, alone), cut
            budget -= size - self._size

    def _with_less_overlap(self, previous: int, fresh: int, end: int, alone: int) -> Span:
        budget = self._size - alone
        while budget > 0:
            begin = self._overlap_start(previous, fresh, budget)
            size = self._measure(begin, end)
            if size <= self._size:
                return Span(begin, end, size)
            budget -= size - self._size
        return Span(fresh, end, alone)

    def _overlap_start(self, previous: int, fresh: int, budget: int) -> int:
        """Return where a span begins that repeats about `budget` of the text before `fresh`.

        It begins at the best boundary that keeps at least half of that, else at a word.
        """
        if budget <= 0 or previous == fresh:
            return fresh
        low = max(self._ruler.reach_back(self._text, previous, fresh, budget), previous + 1)
        levels = self._layout.levels(fresh - 1)
        for level in levels:
            for cut in level.cuts(self._text, low - 1, (low + fresh) // 2):
                return cut
        for cut in levels[-1].cuts(self._text, low - 1, fresh - 1) if levels else ():
            return cut
        return cluster_ceiling(self._text, previous, low, fresh) if low < fresh else fresh


def without_gaps(text: str, ruler: Ruler, size: int, spans: Sequence[Span]) -> list[Span]:
    """Give white space that was left out to the span before or after it, where it fits whole."""
    filled: list[Span] = []
    covered = 0
    for span in spans:
        kept = span
        if span.start > covered:
            longer = filled and _span_within(text, ruler, size, filled[-1].start, span.start)
            if longer:
                filled[-1] = longer
            else:
                kept = _span_within(text, ruler, size, covered, span.end) or span
        filled.append(kept)
        covered = span.end
    if filled and covered < len(text):
        filled[-1] = _span_within(text, ruler, size, filled[-1].start, len(text)) or filled[-1]
    return filled


def _span_within(text: str, ruler: Ruler, size: int, start: int, end: int) -> Span | None:
    measured = ruler.measure_within(text[start:end], size)
    return None if measured is None else Span(start, end, measured)
