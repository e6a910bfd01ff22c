"""Reads the structure of Markdown: sections, blocks, and the pieces to keep whole.

Only what decides where to cut is read, in one pass over the lines: a full parser
is many times slower, and nothing needs its tree. Headings inside quotes and list
items make no sections.
"""

from enum import Enum, auto

from kb_assets.chunks.layout import Layout, PieceKind
from kb_assets.chunks.lines import (
    Marker,
    atx_heading,
    fence_length,
    indent_of,
    is_table_rule,
    is_thematic_break,
    list_marker,
    raw_html_ending,
    starts_block,
    underline_level,
    without_quote_marks,
)
from kb_assets.chunks.sections import Heading, sections_of
from kb_assets.chunks.verbatim import Fence, Place, RawHtml
from kb_assets.documents.headings import plain_heading


def markdown_layout(text: str) -> Layout:
    """Find sections and blocks of a Markdown text.

    A heading with nothing under it but a deeper heading shares that one's section.
    """
    scanner = _Scanner()
    start = 0
    for line in text.split("\n"):
        scanner.read(start, line)
        start += len(line) + 1
    sections = tuple(sections_of(scanner.headings, len(text)))
    return Layout(sections, scanner.blocks, scanner.pieces)


class _Open(Enum):
    NOTHING = auto()
    PARAGRAPH = auto()
    ITEM = auto()
    QUOTE = auto()
    CLOSED_QUOTE = auto()  # more of it may come, but only behind `>`
    TABLE = auto()
    INDENTED_CODE = auto()


class _Scanner:
    """Takes in lines in order, and remembers what is open."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self.blocks: list[int] = []
        self.pieces: list[tuple[int, PieceKind]] = []
        self._open = _Open.NOTHING
        self._verbatim: Fence | RawHtml | None = None
        self._item_indent: int | None = None  # of the content of the outermost list's items
        self._under_heading = False  # nothing stands between the last heading and this line
        self._paragraph: list[str] = []
        self._paragraph_start = 0
        self._paragraph_under_heading = False
        self._previous = (0, "")
        self._after_blank = True

    def read(self, start: int, line: str) -> None:
        """Take in the line that starts at a position."""
        if self._verbatim is not None and self._read_verbatim(self._verbatim, line):
            return
        body = line.lstrip(" \t")
        if not body or body.isspace():
            self._read_blank()
            return
        indent = indent_of(line, body)
        if self._item_indent is None or not self._read_in_list(
            self._item_indent, start, indent, body
        ):
            self._read_at_top(start, indent, body)
        self._previous = (start, body)
        self._after_blank = False

    def _read_verbatim(self, verbatim: Fence | RawHtml, line: str) -> bool:
        place = verbatim.place(line)
        if place is Place.INSIDE:
            return True
        quoted = isinstance(verbatim, Fence) and verbatim.quoted and place is Place.LAST
        self._open = _Open.CLOSED_QUOTE if quoted else _Open.NOTHING
        self._verbatim = None
        self._after_blank = True
        return place is Place.LAST

    def _read_blank(self) -> None:
        self._after_blank = True
        if self._open is not _Open.INDENTED_CODE and self._item_indent is None:
            self._open = _Open.NOTHING

    def _read_in_list(self, item_indent: int, start: int, indent: int, body: str) -> bool:
        marker = list_marker(body)
        if indent >= item_indent:
            self._read_item_line(start, indent, body, marker)
            return True
        if marker is not None and indent <= 3:
            self._item_indent = indent + marker.content_indent
            self._piece(start, PieceKind.PROSE)
            self._enter_item(start, self._item_indent, marker)
            return True
        if not self._after_blank and not starts_block(body):
            return True
        self._item_indent = None
        self._open = _Open.NOTHING
        return False

    def _read_item_line(self, start: int, indent: int, body: str, marker: Marker | None) -> None:
        if fence_length(body):
            self._piece(start, PieceKind.LINES)
            self._open_fence(body, indent)
        elif marker is not None:
            self._piece(start, PieceKind.PROSE)
            self._enter_item(start, indent + marker.content_indent, marker)
        elif is_table_rule(body) and not self._after_blank and "|" in self._previous[1]:
            self._piece(self._previous[0], PieceKind.LINES)
            self._open = _Open.TABLE
        elif self._open is _Open.NOTHING or (self._open is _Open.TABLE and self._after_blank):
            self._piece(start, PieceKind.PROSE)
            self._open = _Open.ITEM

    def _enter_item(self, start: int, content_indent: int, marker: Marker) -> None:
        self._open = _Open.ITEM
        if fence_length(marker.rest):
            self._piece(start, PieceKind.LINES)
            self._open_fence(marker.rest, content_indent)

    def _read_at_top(self, start: int, indent: int, body: str) -> None:
        if indent >= 4 and self._open is not _Open.PARAGRAPH:
            self._read_indented(start)
        elif indent >= 4 or body[0].isalpha():
            self._read_text(start, body)
        elif not self._read_heading(start, body):
            self._read_block(start, indent, body)

    def _read_indented(self, start: int) -> None:
        if self._open is _Open.NOTHING:
            self._block(start, PieceKind.LINES)
            self._open = _Open.INDENTED_CODE

    def _read_text(self, start: int, body: str) -> None:
        if self._open is _Open.PARAGRAPH:
            self._paragraph.append(body)
        elif self._open not in (_Open.QUOTE, _Open.TABLE):
            self._paragraph_under_heading = self._under_heading
            self._block(start, PieceKind.PROSE)
            self._open = _Open.PARAGRAPH
            self._paragraph = [body]
            self._paragraph_start = start

    def _read_heading(self, start: int, body: str) -> bool:
        heading = atx_heading(body)
        if heading is not None:
            self._heading(start, *heading)
            return True
        level = underline_level(body) if self._open is _Open.PARAGRAPH else None
        if level is None:
            return False
        self._forget_block(self._paragraph_start)
        self._under_heading = self._paragraph_under_heading
        self._heading(self._paragraph_start, level, " ".join(self._paragraph))
        return True

    def _read_block(self, start: int, indent: int, body: str) -> None:
        if fence_length(body):
            self._block(start, PieceKind.LINES)
            self._open_fence(body, indent)
        elif body[0] == ">":
            self._read_quote(start, indent, body)
        elif is_thematic_break(body):
            self._block(start, PieceKind.PROSE)
            self._open = _Open.NOTHING
        elif is_table_rule(body) and self._open is _Open.PARAGRAPH and "|" in self._previous[1]:
            self._start_table(self._previous[0])
        elif (ending := raw_html_ending(body)) is not None:
            self._block(start, PieceKind.LINES)
            self._open = _Open.NOTHING
            self._verbatim = None if ending in body.lower() else RawHtml(ending)
        else:
            self._read_list_start(start, indent, body)

    def _read_quote(self, start: int, indent: int, body: str) -> None:
        if self._open is _Open.CLOSED_QUOTE:
            self._piece(start, PieceKind.PROSE)
        elif self._open is not _Open.QUOTE:
            self._block(start, PieceKind.PROSE)
        quoted = without_quote_marks(body)
        continues = bool(quoted.strip()) and not starts_block(quoted)
        self._open = _Open.QUOTE if continues else _Open.CLOSED_QUOTE
        if fence_length(quoted):
            self._piece(start, PieceKind.LINES)
            self._open_fence(quoted, indent, quoted=True)

    def _read_list_start(self, start: int, indent: int, body: str) -> None:
        marker = list_marker(body)
        if marker is None or (self._open is _Open.PARAGRAPH and not marker.interrupts):
            self._read_text(start, body)
            return
        self._block(start, PieceKind.PROSE)
        self._item_indent = indent + marker.content_indent
        self._enter_item(start, self._item_indent, marker)

    def _start_table(self, header_start: int) -> None:
        if self._paragraph_start == header_start:
            self._forget_block(header_start)
        self._block(header_start, PieceKind.LINES)
        self._open = _Open.TABLE

    def _open_fence(self, body: str, indent: int, *, quoted: bool = False) -> None:
        length = fence_length(body)
        self._verbatim = Fence(body[0], length, indent, self._item_indent or 0, quoted)

    def _heading(self, start: int, level: int, source: str) -> None:
        shares = self._under_heading and self.headings[-1].level < level if self.blocks else True
        if not shares or not self.blocks:
            self.blocks.append(start)
            self._piece(start, PieceKind.PROSE)
        self.headings.append(Heading(start, level, plain_heading(source), not shares))
        self._under_heading = True
        self._open = _Open.NOTHING

    def _block(self, start: int, kind: PieceKind) -> None:
        """Begin a block; what is read as sentences stays with the heading right above it."""
        if kind is PieceKind.LINES or not self._under_heading:
            self.blocks.append(start)
            self._piece(start, kind)
        self._under_heading = False

    def _piece(self, start: int, kind: PieceKind) -> None:
        if self.pieces and self.pieces[-1][0] == start:
            self.pieces.pop()
        self.pieces.append((start, kind))

    def _forget_block(self, start: int) -> None:
        if self.blocks and self.blocks[-1] == start:
            self.blocks.pop()
            self.pieces.pop()
