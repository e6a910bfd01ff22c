"""Rows that a query may touch, as bounds on the two columns that rows are found by."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kb_assets.archive.store import Segment

Span = tuple[datetime, datetime]
"""The first and the last moment of some rows."""


@dataclass(frozen=True, slots=True)
class Need:
    """Rows that a query may touch; what is None does not narrow them.

    Attributes:
        groups: The values that the column which files are sorted by may have.
        group_low: The least of them.
        group_high: The greatest.
        low: The earliest moment.
        high: The latest one, itself included.
    """

    groups: frozenset[str] | None = None
    group_low: str | None = None
    group_high: str | None = None
    low: datetime | None = None
    high: datetime | None = None

    def both(self, other: "Need") -> "Need":
        """Return the rows that are in this one and in another."""
        group_low = _greatest(self.group_low, other.group_low)
        group_high = _least(self.group_high, other.group_high)
        groups = self.groups if other.groups is None else other.groups
        if self.groups is not None and other.groups is not None:
            groups = self.groups & other.groups
        if groups is not None:
            groups = frozenset(one for one in groups if _meet(group_low, group_high, one, one))
        low, high = _greatest(self.low, other.low), _least(self.high, other.high)
        return Need(groups, group_low, group_high, low, high)

    def touches(self, segment: Segment) -> bool:
        """Say whether a segment may hold one of these rows."""
        if self.high is not None and self.high < segment.low:
            return False
        if self.low is not None and self.low >= segment.high:
            return False
        first, last = segment.conversation_low, segment.conversation_high
        if self.groups is not None:
            return any(first <= one <= last for one in self.groups)
        return _meet(self.group_low, self.group_high, first, last)


EVERYTHING = Need()


@dataclass(frozen=True, slots=True)
class Hull:
    """Bounds of several needs together, for one statement that reads them all.

    Attributes:
        groups: The values of the column that files are sorted by; None for any.
        low: The earliest moment; None for any.
        high: The latest one, itself included; None for any.
    """

    groups: tuple[str, ...] | None
    low: datetime | None
    high: datetime | None


def narrowed(needs: Iterable[Need], spans: Mapping[str, Span]) -> tuple[Need, ...]:
    """Use what is known of when the rows of a group began and ended.

    Args:
        needs: What a query may touch.
        spans: The span of every row of a group; of groups that are not in it nothing is known.
    """
    return tuple(part for need in needs for part in _narrowed(need, spans))


def hull_of(needs: Sequence[Need]) -> Hull:
    """Return bounds that hold for each of the needs; there is at least one."""
    groups = [need.groups for need in needs if need.groups is not None]
    lows = [need.low for need in needs if need.low is not None]
    highs = [need.high for need in needs if need.high is not None]
    return Hull(
        tuple(sorted(frozenset().union(*groups))) if len(groups) == len(needs) else None,
        min(lows) if len(lows) == len(needs) else None,
        max(highs) if len(highs) == len(needs) else None,
    )


def _narrowed(need: Need, spans: Mapping[str, Span]) -> Iterator[Need]:
    if need.groups is None:
        yield need
        return
    for group in sorted(need.groups):
        low, high = spans.get(group, (None, None))
        yield need.both(Need(frozenset({group}), low=low, high=high))


def _meet(low: str | None, high: str | None, first: str, last: str) -> bool:
    return (low is None or low <= last) and (high is None or first <= high)


def _greatest(one: Any, other: Any) -> Any:  # noqa: ANN401
    return other if one is None else one if other is None else max(one, other)


def _least(one: Any, other: Any) -> Any:  # noqa: ANN401
    return other if one is None else one if other is None else min(one, other)
