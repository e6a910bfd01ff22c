"""The value the whole index is made of: one span of a revision's text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a revision's normalised text.

    Attributes:
        ordinal: Its place among the revision's chunks, from 0.
        text: Exactly the bytes `byte_start` to `byte_end` of the text, decoded.
        heading_path: The headings above it as plain text, outermost first; the last one is the
            heading of the chunk's own section.
        byte_start: First byte, in the UTF-8 encoding of the normalised text.
        byte_end: First byte after it.
        token_count: Tokens of `text` in the encoding of the split's settings: exact if chunks
            are measured in tokens, else estimated from its characters and bytes.
    """

    ordinal: int
    text: str
    heading_path: tuple[str, ...]
    byte_start: int
    byte_end: int
    token_count: int
