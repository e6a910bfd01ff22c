"""Long arrays as parameters: written in PostgreSQL's own notation in a fraction of the time.

A statement casts them: `:ids::text[]`.
"""

from collections.abc import Iterable


def texts(values: Iterable[str | None]) -> str:
    """Return an array of texts."""
    return "{" + ",".join(["null" if value is None else _quoted(value) for value in values]) + "}"


def numbers(values: Iterable[int]) -> str:
    """Return an array of whole numbers."""
    return "{" + ",".join(map(str, values)) + "}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
