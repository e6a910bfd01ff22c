"""Recognises what one line of Markdown is, by its beginning. No line is looked at twice."""

import re
from dataclasses import dataclass

_MARKER = re.compile(
    r"(?P<bullet>[-*+])(?=[ \t\r]|$)"
    r"|(?P<number>\d{1,9})[.)](?=[ \t\r]|$)"
    r"|(?P<admonition>!!!|\?\?\?\+?|===)(?=[ \t])"
)
_RAW_HTML = re.compile(r"<(?:(?P<tag>pre|script|style|textarea)(?=[\s>]|$)|!--)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Marker:
    """The beginning of a list item, or of an admonition, whose content is indented alike.

    Attributes:
        content_indent: Columns from the marker's own to the content's.
        rest: What follows on the line.
        interrupts: Whether it may follow a paragraph without a blank line between.
    """

    content_indent: int
    rest: str
    interrupts: bool


def indent_of(line: str, body: str) -> int:
    """Return the columns before `body`, the line without its indentation; tab stops are 4."""
    width = len(line) - len(body)
    if width and "\t" in line[:width]:
        return len(line[:width].expandtabs(4))
    return width


def atx_heading(body: str) -> tuple[int, str] | None:
    """Return level and source of a heading such as `## Title ##`."""
    source = body.lstrip("#")
    level = len(body) - len(source)
    if not 1 <= level <= 6 or (source and source[0] not in " \t\r"):
        return None
    source = source.strip()
    unclosed = source.rstrip("#")
    return level, source if unclosed and unclosed[-1] not in " \t" else unclosed.rstrip()


def underline_level(body: str) -> int | None:
    """Return the level of the heading that a line of `=` or `-` makes of what is above it."""
    line = body.rstrip()
    if line[0] not in "=-" or line.strip(line[0]):
        return None
    return 1 if line[0] == "=" else 2


def is_thematic_break(body: str) -> bool:
    """Say whether a line is a rule such as `---` or `* * *`."""
    if body[0] not in "-*_":
        return False
    signs = "".join(body.split())
    return len(signs) >= 3 and not signs.strip(body[0])


def fence_length(body: str) -> int:
    """Return how many signs open a code fence, 0 if the line opens none."""
    if body[:1] not in ("`", "~"):
        return 0
    info = body.lstrip(body[0])
    length = len(body) - len(info)
    return 0 if length < 3 or (body[0] == "`" and "`" in info) else length


def is_table_rule(body: str) -> bool:
    """Say whether a line can stand between a table's header and its rows."""
    return body[0] in "|-:" and "|" in body and "-" in body and not body.strip("|-: \t\r")


def raw_html_ending(body: str) -> str | None:
    """Return what ends a stretch of HTML in which nothing else has a meaning."""
    match = _RAW_HTML.match(body)
    if match is None:
        return None
    return f"</{match['tag'].lower()}>" if match["tag"] else "-->"


def list_marker(body: str) -> Marker | None:
    """Return the marker a line begins with, unless the line is a rule."""
    match = _MARKER.match(body)
    if match is None or is_thematic_break(body):
        return None
    if match["admonition"]:
        return Marker(4, "", interrupts=False)
    rest = body[match.end() :].lstrip(" \t")
    empty = not rest or rest.isspace()
    space = len(body) - match.end() - len(rest)
    content_indent = match.end() + (space if not empty and space <= 4 else 1)
    return Marker(content_indent, rest, not empty and match["number"] in (None, "1"))


def without_quote_marks(body: str) -> str:
    """Return a quoted line without its `>` signs."""
    return body.lstrip("> \t")


def starts_block(body: str) -> bool:
    """Say whether a line cannot go on with the paragraph before it."""
    return (
        body[0] == ">"
        or atx_heading(body) is not None
        or fence_length(body) > 0
        or is_thematic_break(body)
        or raw_html_ending(body) is not None
    )
