"""Stretches of Markdown in which nothing has a meaning but their own end."""

from dataclasses import dataclass
from enum import Enum, auto

from kb_assets.chunks.lines import indent_of, without_quote_marks


class Place(Enum):
    """Where a line stands to a verbatim stretch."""

    INSIDE = auto()
    LAST = auto()
    OUTSIDE = auto()


@dataclass(frozen=True, slots=True)
class Fence:
    """An open code fence.

    Attributes:
        sign: A backtick or a tilde.
        length: How many of them must close it, at least.
        indent: Columns before the opening.
        container_indent: Columns that keep a line in the list item around the fence.
        quoted: Whether each line of it begins with `>`.
    """

    sign: str
    length: int
    indent: int
    container_indent: int = 0
    quoted: bool = False

    def place(self, line: str) -> Place:
        """Say whether a line is code, closes the fence, or has left what is around it."""
        body = line.lstrip(" \t")
        if not body or body.isspace():
            return Place.OUTSIDE if self.quoted else Place.INSIDE
        indent = indent_of(line, body)
        if indent < self.container_indent or (self.quoted and body[0] != ">"):
            return Place.OUTSIDE
        mark = (without_quote_marks(body) if self.quoted else body).rstrip()
        closes = len(mark) >= self.length and not mark.strip(self.sign)
        return Place.LAST if closes and indent <= self.indent + 3 else Place.INSIDE


@dataclass(frozen=True, slots=True)
class RawHtml:
    """An open `<pre>`, `<script>`, `<style>`, `<textarea>` or comment.

    Attributes:
        ending: What ends it, in lower case.
    """

    ending: str

    def place(self, line: str) -> Place:
        """Say whether a line is the last one."""
        return Place.LAST if self.ending in line.lower() else Place.INSIDE
