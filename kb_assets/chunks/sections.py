"""Turns the headings of a text into sections."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kb_assets.chunks.layout import Section


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading where it stands.

    Attributes:
        start: Position of its first character.
        level: 1 to 6.
        title: Its plain text, maybe empty.
        opens_section: False if its section began before it: with a heading that has nothing else
            under it, or with blank lines.
    """

    start: int
    level: int
    title: str
    opens_section: bool


def sections_of(headings: Sequence[Heading], end: int) -> Iterator[Section]:
    """Cut a text of `end` characters into sections, each with the headings above it."""
    start = 0
    path: list[Heading] = []
    for heading in headings:
        if heading.opens_section:
            yield Section(start, heading.start, _titles(path))
            start = heading.start
        while path and path[-1].level >= heading.level:
            path.pop()
        path.append(heading)
    yield Section(start, end, _titles(path))


def _titles(path: Sequence[Heading]) -> tuple[str, ...]:
    return tuple(heading.title for heading in path if heading.title)
