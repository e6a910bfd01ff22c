"""Texts from elsewhere as they are shown: harmless, and the part that says most."""

import re

_WORD = re.compile(r"\w{3,}")
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
"""Characters that would steer the terminal or hide what a text says."""

_FRINGE = re.compile(r"\s+")


def excerpt(text: str, question: str, characters: int = 280) -> str:
    """Return the part of a text, on one line, that has most of a question's words.

    Args:
        text: The passage, as Markdown.
        question: What was searched for.
        characters: How long the part may be.
    """
    line = _FRINGE.sub(" ", _without_frames(text)).strip()
    if len(line) <= characters:
        return line
    start = _best_start(line, question_words(question), characters)
    end = min(len(line), start + characters)
    if start > 0:
        start = line.find(" ", start) + 1 or start
    if end < len(line):
        end = max(line.rfind(" ", start, end), start + 1)
    return f"{'… ' if start else ''}{line[start:end]}{' …' if end < len(line) else ''}"


def visible(text: str) -> str:
    """Return a text that shows what it is: control characters become a mark."""
    return _UNSEEN.sub("\ufffd", text.replace("\r\n", "\n").expandtabs(4))


def question_words(question: str) -> frozenset[str]:
    """Return the words of a question that may be looked for."""
    return frozenset(word.lower() for word in _WORD.findall(question))


def _without_frames(text: str) -> str:
    """Return Markdown without lines that only draw or are shown elsewhere: rules, headings."""
    lines = text.splitlines()
    kept = [line for line in lines if not re.fullmatch(r"[\s|:=`~_*+-]*|#{1,6} .*", line)]
    return "\n".join(kept or lines)


def _best_start(line: str, wanted: frozenset[str], characters: int) -> int:
    """Return where the window with most of the wanted words starts; the first one of equals."""
    found = [
        (match.start(), match.end(), match[0].lower())
        for match in _WORD.finditer(line)
        if match[0].lower() in wanted
    ]
    best, most = 0, 0
    for first, _, _ in found:
        start = max(0, min(first - characters // 5, len(line) - characters))
        end = start + characters
        words = len({word for begin, stop, word in found if begin >= start and stop <= end})
        if words > most:
            best, most = start, words
    return best
