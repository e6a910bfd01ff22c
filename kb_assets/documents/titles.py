"""A document's title, from its content: the first level-1 heading, or what comes nearest.

The path never takes part: a document that is moved keeps its title, and its vectors.
"""

import re

from kb_assets.documents.front_matter import JSON
from kb_assets.documents.headings import plain_heading
from kb_assets.documents.normalise import normalise

MAX_TITLE = 300
"""Characters a title is cut to: it becomes part of every chunk's input text."""

_MARKDOWN = re.compile(
    r"^ {0,3}(?:"
    r"(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})"
    r"|\#(?!\#)[ \t]*(?P<atx>(?<=[ \t])[^\n]*|$)"
    r"|(?P<underline>=+)[ \t]*$"
    r"|<!--(?:[^-]++|-(?!->))*+(?:-->|\Z))",
    re.MULTILINE,
)
_NOT_A_PARAGRAPH = re.compile(
    r" {0,3}(?:[#>]|[-*+][ \t]|\d{1,9}[.)][ \t]|[-*_=]{3,}[ \t]*$| {4}|\t)"
)
_RST = re.compile(
    r"^(?:([-=`:.'\"~^_*+#])\1{2,}[ \t]*\n[ \t]*(?P<between>\S[^\n]*)\n\1{3,}[ \t]*$"
    r"|(?P<above>[^\s][^\n]*)\n(?P<line>([-=`:.'\"~^_*+#])\5{2,})[ \t]*$)",
    re.MULTILINE,
)

_CLOSING = re.compile(r"(?:^|[ \t]+)#+[ \t]*$")


def markdown_title(text: str) -> str | None:
    """Return the first level-1 heading outside of code and comments."""
    fence = ""
    for found in _MARKDOWN.finditer(text):
        if found["fence"]:
            if not fence:
                fence = str(found["fence"])
            elif str(found["fence"]).startswith(fence) and _ends_line(text, found.end()):
                fence = ""
        elif fence:
            continue
        elif found["atx"] is not None:
            if title := plain_heading(_CLOSING.sub("", found["atx"])):
                return title
        elif found["underline"] and (title := _underlined(text, found.start())):
            return title
    return None


def rst_title(text: str) -> tuple[str | None, int]:
    """Return the first section title, and where what is below it starts (0 if there is none).

    A title is a line underlined at least as long as it is, or one between two such lines.
    """
    for found in _RST.finditer(text):
        if found["between"]:
            return found["between"].strip(), found.end()
        if len(found["line"]) >= len(found["above"].rstrip()):
            return found["above"].strip(), found.end()
    return None, 0


def clean_title(value: JSON) -> str | None:
    """Return a title in one line of at most `MAX_TITLE` characters; None if it says nothing."""
    if value is None or isinstance(value, bool | list | dict):
        return None
    return normalise(" ".join(str(value).split()))[:MAX_TITLE].strip() or None


def _underlined(text: str, at: int) -> str:
    above = text[text.rfind("\n", 0, max(at - 1, 0)) + 1 : at]
    return "" if _NOT_A_PARAGRAPH.match(above) else plain_heading(above)


def _ends_line(text: str, at: int) -> bool:
    end = text.find("\n", at)
    return not text[at : end if end >= 0 else None].strip(" \t")
