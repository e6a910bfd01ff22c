"""Which months are old enough to leave: arithmetic, without a database."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

SEGMENT_BYTES = 14 * 1024 * 1024
"""How much of a table, about, goes into one segment: what memory is bounded by."""

GRACE = timedelta(days=7)
"""How long what is due may wait for a run."""

ERASURE_GRACE = timedelta(days=1)
"""How long an erasure may take."""

_MOST_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, half-open.

    Attributes:
        low: Its first moment.
        high: The first moment after it.
    """

    low: datetime
    high: datetime

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"{self.low} is not before {self.high}.")


def window_of(month: date) -> Window:
    """Return a month in UTC.

    Args:
        month: Its first day.
    """
    return Window(_start(month), _start(following(month)))


def following(month: date) -> date:
    """Return the first day of the next month."""
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)


def month_of(moment: datetime) -> date:
    """Return the first day of the month, in UTC, that a moment lies in."""
    return moment.astimezone(UTC).date().replace(day=1)


def is_due(month: date, now: datetime, retention_days: int) -> bool:
    """Say whether all of a month is older than messages are kept in the database."""
    return window_of(month).high + timedelta(days=retention_days) <= now


def due_months(months: Iterable[date], now: datetime, retention_days: int) -> tuple[date, ...]:
    """Return the months that are due, oldest first."""
    return tuple(sorted(month for month in months if is_due(month, now, retention_days)))


def rows_per_segment(rows: int, table_bytes: int) -> int:
    """Return how many rows go into one segment, so that it fits into memory."""
    if rows == 0:
        return _MOST_ROWS
    return max(1, min(_MOST_ROWS, SEGMENT_BYTES * rows // max(1, table_bytes)))


def object_key(relation: str, month: date, segment: int, sha256: bytes) -> str:
    """Return where a segment's object lies below the archive's destination."""
    place = f"{relation}/year={month:%Y}/month={month:%m}"
    return f"{place}/{segment:010d}-{sha256.hex()}.parquet"


def manifest_key(key: str) -> str:
    """Return where the manifest of an object lies: beside it."""
    return key.removesuffix(".parquet") + ".json"


def _start(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)
