"""Which rows a query may touch, read from the plan that DuckDB makes of it.

The query is planned over an empty table; what its optimizer pushes down to a scan are conditions
that every row must meet to matter. They come as text. What is not understood of them narrows
nothing, so that a query sees whatever it would see without all this.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from kb_assets.archive.needs import EVERYTHING, Need
from kb_assets.archive.relation import Aging

Token = str | list["Token"]
"""A word of a condition, or what stands in parentheses."""

_MOST_NEEDS = 1_000
"""More than so many alternatives are not told apart."""

_TOKEN = re.compile(r"""'(?:''|[^'])*'|"(?:""|[^"])*"|[A-Za-z_][A-Za-z_0-9]*|::|<=|>=|!=|\n|\S""")
_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIMESTAMP = ["::", "TIMESTAMP", "WITH", "TIME", "ZONE"]


def needs_of(plan: Any, table: str, aging: Aging) -> tuple[Need, ...]:  # noqa: ANN401
    """Return what a query may touch: the rows of any of these; nothing if there are none.

    Args:
        plan: What `explain (format json)` says of it; no rule that looks at data was at work.
        table: What the table is called in it.
        aging: What the table stands for.
    """
    reader = _Reader(aging)
    needs: list[Need] = []
    for scan in _scans(plan, table):
        needs += reader.read(scan.get("Filters") or "")
    if EVERYTHING in needs or len(needs) > _MOST_NEEDS:
        return (EVERYTHING,)
    return tuple(needs)


def _scans(plan: Any, table: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    for node in plan:
        told = node.get("extra_info", {})
        if told.get("Table") == table:
            yield told
        yield from _scans(node.get("children", []), table)


class _Reader:
    """Reads conditions on the two columns that rows are found by."""

    def __init__(self, aging: Aging) -> None:
        self._group, self._time = aging.group, aging.time

    def read(self, filters: str | Sequence[str]) -> list[Need]:
        """Return what a scan needs that has these filters."""
        # DuckDB cuts their text at line ends, at those inside of literals, too.
        text = filters if isinstance(filters, str) else "\n".join(filters)
        tokens = _TOKEN.findall(text)
        tree = None if any(_is_broken(token) for token in tokens) else _tree(tokens)
        if tree is None:
            return [EVERYTHING]
        return _all_of(self._condition(part) or [EVERYTHING] for part in _split(tree, "\n"))

    def _condition(self, tokens: list[Token]) -> list[Need] | None:
        """Return the rows that meet a condition, or more; None if it is not understood."""
        if tokens[:2] == ["optional", ":"]:
            tokens = tokens[2:]
        if len(tokens) == 1 and isinstance(tokens[0], list):
            return self._condition(tokens[0])
        if len(parts := _split(tokens, "OR")) > 1:
            return self._either(parts)
        if len(parts := _split(tokens, "AND")) > 1:
            return self._both(parts)
        need = self._compared(tokens)
        return None if need is None else [need]

    def _either(self, parts: list[list[Token]]) -> list[Need] | None:
        needs: list[Need] = []
        for part in parts:
            found = self._condition(part)
            if found is None or len(needs) + len(found) > _MOST_NEEDS:
                return None
            needs += found
        return needs

    def _both(self, parts: list[list[Token]]) -> list[Need] | None:
        conditions = []
        for part in parts:
            found = self._condition(part)
            if found is not None:
                conditions.append(found)
            elif not _is_whole(part):
                return None
        return _all_of(conditions)

    def _compared(self, tokens: list[Token]) -> Need | None:
        """Return what one comparison of a column with literals leaves."""
        if len(tokens) < 3:
            return None
        column, operator, *rest = tokens
        if operator == "IN" and isinstance(rest[0], list) and len(rest) == 1:
            return self._among(column, [self._value(column, one) for one in _split(rest[0], ",")])
        value = self._value(column, rest)
        if value is None or operator not in ("=", "<", "<=", ">", ">="):
            return None
        low = value if operator in ("=", ">", ">=") else None
        high = value if operator in ("=", "<", "<=") else None
        if column == self._group:
            return Need(frozenset({value}) if operator == "=" else None, low, high)
        if operator == "<" and value > _EARLIEST:
            high = value - _MICROSECOND
        return Need(low=low, high=high)

    def _among(self, column: Token, values: list[Any]) -> Need | None:
        if None in values:
            return None
        if column == self._time:
            return Need(low=min(values), high=max(values))
        return Need(frozenset(values))

    def _value(self, column: Token, tokens: list[Token]) -> Any:  # noqa: ANN401
        """Return a literal of the column's type; None if it is anything else."""
        if not tokens or not isinstance(tokens[0], str) or tokens[0][0] != "'":
            return None
        text = tokens[0][1:-1].replace("''", "'")
        if column == self._group and len(tokens) == 1:
            return text
        if column == self._time and tokens[1:] == _TIMESTAMP:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                return None
            return moment if moment.tzinfo else None
        return None


def _all_of(conditions: Iterable[list[Need]]) -> list[Need]:
    needs = [EVERYTHING]
    for condition in conditions:
        if len(needs) * len(condition) <= _MOST_NEEDS:
            needs = [one.both(other) for one in needs for other in condition]
    return needs


def _is_broken(token: str) -> bool:
    """Say whether a literal was cut at a line end, is never closed, or is none to a database."""
    return token in ("'", '"') or "\0" in token or (len(token) > 1 and "\n" in token)


def _tree(tokens: Iterable[str]) -> list[Token] | None:
    """Return tokens, those in parentheses as a list of their own; None if these do not match."""
    top: list[Token] = []
    within = [top]
    for token in tokens:
        if token == "(":
            inner: list[Token] = []
            within[-1].append(inner)
            within.append(inner)
        elif token == ")":
            within.pop()
            if not within:
                return None
        else:
            within[-1].append(token)
    return top if len(within) == 1 else None


def _split(tokens: list[Token], word: str) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token == word:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _is_whole(part: list[Token]) -> bool:
    """Say whether a part of a conjunction stands for itself, so that no operator reaches out of it.

    It is in parentheses, is one function's call, or is marked as optional.
    """
    is_optional = part[:2] == ["optional", ":"]
    *words, last = part[2:] if is_optional else part or [""]
    named = all(isinstance(word, str) and word.isidentifier() for word in words)
    return isinstance(last, list) and named and (is_optional or len(words) < 2)
