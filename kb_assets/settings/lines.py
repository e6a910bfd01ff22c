"""On which line of a TOML file each key is."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]
"""Keys, and places in lists, from the outermost to the innermost."""


def lines_of(text: str) -> dict[Path, int]:
    """Return the line, from 1, that each key of a TOML document begins on.

    What is inside a value that goes over several lines has the line the value begins on.

    Args:
        text: The document; it must be one.
    """
    found = dict[Path, int]()
    section: Path = ()
    for number, statement in _statements(text):
        parsed = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            section = _opened(parsed, found)
            found.setdefault(section[:1], number)
            found[section] = number
        else:
            for path in _paths(parsed):
                found.setdefault(section + path, number)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Cut a document into headers and assignments: each of them is a document, and no part is."""
    pending, began = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not pending and line.lstrip()[:1] in ("", "#"):
            continue
        began = began if pending else number
        pending += f"{line}\n"
        try:
            tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        yield began, pending
        pending = ""


def _opened(header: Mapping[str, Any], found: Mapping[Path, int]) -> Path:
    """Return where the keys below a header belong."""
    path: Path = ()
    inside: Any = header
    while inside:
        is_new = isinstance(inside, list)
        if is_new or _count(path, found):
            path = (*path, _count(path, found) - (not is_new))
        if is_new:
            inside = inside[0]
            continue
        [(key, inside)] = inside.items()
        path = (*path, key)
    return path


def _count(path: Path, found: Mapping[Path, int]) -> int:
    """Return how many tables a list has so far."""
    count = 0
    while (*path, count) in found:
        count += 1
    return count


def _paths(value: Any) -> Iterator[Path]:  # noqa: ANN401
    """Return the path of everything inside a value."""
    inside: Any = ()
    if isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    for key, one in inside:
        yield (key,)
        yield from ((key, *path) for path in _paths(one))
