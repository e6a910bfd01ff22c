"""The part of a passage that shows best why it was found."""

import re

_WORD = re.compile(r"\w{3,}")
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
