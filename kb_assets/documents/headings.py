"""Headings as a reader sees them: without Markdown's signs, anchors and tags."""

import html
import re

MAX_HEADING_CHARACTERS = 300
"""A heading's source is cut here; it is repeated with each chunk below it."""

_INLINE = re.compile(
    r"(?P<code_fence>`+)(?P<code>.+?)(?P=code_fence)(?!`)"
    r"|!?\[(?P<label>(?:!\[[^\[\]]*\]\([^()]*\)|[^\[\]])*)\](?:\([^()]*\)|\[[^\[\]]*\])"
    r"|<(?P<address>[a-zA-Z][a-zA-Z0-9+.-]*:[^\s<>]*)>"
    r"|(?P<tag></?[a-zA-Z][^<>]*>|<!--.*?-->)"
    r"|\\(?P<escaped>[!-/:-@\[-`{-~])"
    r"|(?P<entity>&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});)"
    r"|(?P<emphasis>\*+(?=\S)|(?<=\S)\*+|~~|(?<!\w)_+(?=\S)|(?<=\S)_+(?!\w))"
)
_ATTRIBUTES = re.compile(r"\s*\{:?\s*[#.][^{}]*\}$")


def plain_heading(source: str) -> str:
    """Return a heading's text without inline Markdown, on one line.

    Args:
        source: What stands between the heading's signs, such as `` `kb` *index* {#index} ``.
    """
    line = " ".join(source[:MAX_HEADING_CHARACTERS].split())
    return " ".join(_INLINE.sub(_plain, _ATTRIBUTES.sub("", line)).split())


def _plain(match: re.Match[str]) -> str:
    if match["code"] is not None:
        return match["code"].strip()
    if match["label"] is not None:
        return _INLINE.sub(_plain, match["label"])
    if match["entity"] is not None:
        return html.unescape(match["entity"])
    return match["address"] or match["escaped"] or ""
