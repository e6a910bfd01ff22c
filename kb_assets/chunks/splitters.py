"""Splits a revision's text into chunks along its structure.

`split` promises: the same chunks for the same text and settings; chunks in order
that together hold every character, but for white space that fits beside no other
text; never a blank chunk; no chunk over the size, unless a single character is;
no cut inside a UTF-8 character, nor inside a grapheme cluster that fits a chunk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kb_assets.chunks.boundaries import BLANK_LINE, LINE, SENTENCE, WORD, Boundaries
from kb_assets.chunks.chunk import Chunk
from kb_assets.chunks.layout import Layout, Section
from kb_assets.chunks.markdown import markdown_layout
from kb_assets.chunks.packing import Packer, Span, without_gaps
from kb_assets.chunks.tokens import (
    CharacterRuler,
    EncodingName,
    Ruler,
    TokenRuler,
    estimate_tokens,
)
from kb_assets.errors import SettingsError

SPLITTER_VERSION: int = 1
"""Raised when the same text and settings would give other chunks; part of the recipe."""

Strategy = Literal["markdown", "recursive", "sentence", "fixed"]

_PLAIN_BOUNDARIES: dict[Strategy, tuple[Boundaries, ...]] = {
    "recursive": (BLANK_LINE, LINE, SENTENCE, WORD),
    "sentence": (SENTENCE, LINE, WORD),
    "fixed": (),
}


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How a text is split.

    Attributes:
        strategy: `markdown` packs blocks section by section; `recursive` cuts at blank lines,
            then lines, sentences, words, characters; `sentence` packs sentences; `fixed` cuts
            windows of the size.
        size: The most a chunk may hold, overlap included, in `unit`.
        overlap: About how much a chunk repeats of the end of the one before, in `unit`. Less
            where that keeps a block, a sentence or a word whole; nothing across a heading.
        unit: Exact tokens of `encoding`, or Unicode code points.
        encoding: Whose tokens are counted.

    Raises:
        SettingsError: Size or overlap is out of range.
    """

    strategy: Strategy = "markdown"
    size: int = 400
    overlap: int = 50
    unit: Literal["tokens", "characters"] = "tokens"
    encoding: EncodingName = "cl100k_base"

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise SettingsError(
                "Chunks cannot be made of that size and overlap.",
                why=f"The size is {self.size}, the overlap {self.overlap}.",
                fix="Choose a size above 0, and an overlap from 0 to below the size.",
            )


def split(text: str, settings: SplitSettings, *, markdown: bool = True) -> list[Chunk]:
    """Split a normalised text into chunks.

    Args:
        text: Valid Unicode: what can be encoded as UTF-8.
        settings: How.
        markdown: Whether the text is Markdown. If not, the strategy `markdown` works as
            `recursive`, and there are no headings.

    Returns:
        The chunks in the order of the text; none if the text is blank.
    """
    ruler = _ruler(text, settings)
    layout = _layout(text, settings.strategy, markdown=markdown)
    packer = Packer(text, ruler, layout, settings.size, settings.overlap)
    placed = [
        (span, section.heading_path)
        for section in layout.sections
        for span in packer.spans(section.start, section.end)
    ]
    spans = without_gaps(text, ruler, settings.size, [span for span, _ in placed])
    return list(_chunks(text, settings, spans, [path for _, path in placed]))


def _ruler(text: str, settings: SplitSettings) -> Ruler:
    if settings.unit == "characters":
        return CharacterRuler()
    return TokenRuler(settings.encoding, text)


def _layout(text: str, strategy: Strategy, *, markdown: bool) -> Layout:
    if strategy == "markdown" and markdown:
        return markdown_layout(text)
    boundaries = _PLAIN_BOUNDARIES["recursive" if strategy == "markdown" else strategy]
    return Layout([Section(0, len(text))], within=boundaries)


def _chunks(
    text: str,
    settings: SplitSettings,
    spans: Sequence[Span],
    heading_paths: Sequence[tuple[str, ...]],
) -> Iterator[Chunk]:
    position = position_byte = 0
    for ordinal, (span, path) in enumerate(zip(spans, heading_paths, strict=True)):
        position_byte += len(text[position : span.start].encode())
        position = span.start
        part = text[span.start : span.end]
        size_bytes = len(part.encode())
        tokens = span.size if settings.unit == "tokens" else estimate_tokens(len(part), size_bytes)
        byte_end = position_byte + size_bytes
        yield Chunk(ordinal, part, path, position_byte, byte_end, tokens)
