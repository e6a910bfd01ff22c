"""Which paths a source's `include` and `exclude` patterns mean.

A pattern is matched against the whole path, with `/` between folders, and cares about case.
`?` is one character and `*` any number of them within a name; `**` between slashes is any
number of folders, none included. A pattern that ends in `/` means all below. Everything
else, brackets too, means itself.

Hidden folders, whose names start with a dot, are left alone by the wildcards of `include`:
only a pattern that writes the dot, such as `.github/**/*.md`, enters one.
"""

import re
from collections.abc import Iterable, Sequence

_NEVER = r"(?!)"


class Patterns:
    """Decides which paths are documents, and which folders need not be looked into."""

    def __init__(self, include: Iterable[str], exclude: Iterable[str] = ()) -> None:
        included = [_parts(pattern) for pattern in include]
        excluded = [_parts(pattern) for pattern in exclude]
        self._include = _any_of(_path(parts, _VISIBLE) for parts in included)
        self._exclude = _any_of(_path(parts, _ANY) for parts in excluded)
        self._way = _any_of(_way(parts) for parts in included)
        whole = (parts for parts in excluded if parts[-1] == "**")
        self._exclude_all_below = _any_of(_path(parts, _ANY) for parts in whole)

    def want(self, path: str) -> bool:
        """Say whether a path is a document."""
        return bool(self._include.fullmatch(path)) and not self._exclude.fullmatch(path)

    def enter(self, folder: str) -> bool:
        """Say whether a folder, written without a slash at its end, may hold documents."""
        if self._exclude_all_below.fullmatch(f"{folder}/x"):
            return False
        return bool(self._way.fullmatch(f"{folder}/"))


_VISIBLE = r"(?:[^/.][^/]*/)*"
_ANY = r"(?:[^/]+/)*"


def _parts(pattern: str) -> list[str]:
    below = f"{pattern}**" if pattern.endswith("/") else pattern
    return below.removeprefix("./").removeprefix("/").split("/")


def _any_of(expressions: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(expressions) or _NEVER, re.DOTALL)


def _path(parts: Sequence[str], folders: str) -> str:
    """Return the expression of the paths that a pattern means."""
    *before, last = parts
    above = "".join(folders if part == "**" else f"{_name(part, folders)}/" for part in before)
    return above + (f"{folders}[^/]+" if last == "**" else _name(last, _ANY))


def _way(parts: Sequence[str]) -> str:
    """Return the expression of the folders, with their slash, on the way to a pattern's paths."""
    if parts[0] == "**":
        return _VISIBLE + (_way(parts[1:]) if len(parts) > 1 else "")
    if len(parts) == 1:
        return ""
    return f"(?:{_name(parts[0], _VISIBLE)}/{_way(parts[1:])})?"


def _name(part: str, folders: str) -> str:
    visible = r"(?!\.)" if folders == _VISIBLE and part[:1] in ("*", "?") else ""
    wild = {"*": "[^/]*", "?": "[^/]"}
    return visible + "".join(wild.get(character) or re.escape(character) for character in part)
