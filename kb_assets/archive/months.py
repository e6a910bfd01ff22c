"""Where each month's rows are."""

from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Literal

from kb_assets.archive.relation import MESSAGES, Aging
from kb_assets.archive.store import (
    Month,
    Segment,
    find_late_months,
    find_months,
    find_segments,
)
from kb_assets.database.connect import Database

Place = Literal["hot", "closing", "archived", "restored", "empty"]
"""`closing`: a run that archives it has begun, and has not ended yet, or broke off."""


@dataclass(frozen=True, slots=True)
class ArchivedMonth:
    """A month, and where its rows are.

    Attributes:
        month: Its first day.
        place: Where most of its rows are.
        rows: How many rows are in the archive, or came back from it.
        objects: In how many objects.
        object_bytes: How large these are.
        has_late: Whether rows came in for it after it was archived, and wait for the next run.
        held_until: Until when it stays in the database, however old it is, since it was restored.
    """

    month: date
    place: Place
    rows: int
    objects: int
    object_bytes: int
    has_late: bool
    held_until: datetime | None


def archived_months(database: Database, aging: Aging = MESSAGES) -> tuple[ArchivedMonth, ...]:
    """Return every month that the table ever had, oldest first."""
    with database.transaction() as connection:
        months = find_months(connection, aging)
        late = find_late_months(connection, aging)
        found = find_segments(connection, states=("committed", "restored"), aging=aging)
    segments = {month: list(group) for month, group in groupby(found, lambda one: one.month)}
    return tuple(_archived(one, segments.get(one.month, []), late) for one in months)


def _archived(month: Month, segments: list[Segment], late: list[date]) -> ArchivedMonth:
    return ArchivedMonth(
        month=month.month,
        place=_place(month, {segment.state for segment in segments}),
        rows=sum(segment.rows for segment in segments),
        objects=len(segments),
        object_bytes=sum(segment.object_bytes for segment in segments),
        has_late=month.month in late,
        held_until=month.hold_until,
    )


def _place(month: Month, states: set[str]) -> Place:
    if "committed" in states:
        return "archived"
    if month.is_hot:
        return "closing" if month.is_closed else "restored" if states else "hot"
    return "empty"
