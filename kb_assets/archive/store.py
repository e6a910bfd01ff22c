"""What the database knows of segments, read and written; the statements are in `queries.sql`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from kb_assets.archive.manifest import ObjectFacts
from kb_assets.archive.plan import Window
from kb_assets.archive.relation import MESSAGES, Aging
from kb_assets.database.names import SCHEMA
from kb_assets.database.statements import Statements
from kb_assets.errors import SchemaError

_statements = Statements.beside(__file__)
_FIND_MONTHS = _statements("find_months")
_FIND_ABANDONED = _statements("find_abandoned")
_FIND_COLUMNS = _statements("find_columns")
_ADD_SEGMENT = _statements("add_segment")
_NOTE_OBJECT = _statements("note_object")
_MARK_STALE = _statements("mark_stale")
_COMMIT_SEGMENTS = _statements("commit_segments")
_SEGMENT_STATES = _statements("segment_states")
_FIND_SEGMENTS = _statements("find_segments")
_DESCRIBE_SERVER = _statements("describe_server")


@dataclass(frozen=True, slots=True)
class Month:
    """A month of an aging table.

    Attributes:
        month: Its first day.
        is_closed: Nothing is written to its partition any more.
        hold_until: It was restored, and stays until then.
        is_hot: Its partition is there.
    """

    month: date
    is_closed: bool
    hold_until: datetime | None
    is_hot: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment whose object was written; see `kb.archive_segment`.

    Attributes:
        id: Its number.
        month: The first day of its month.
        source: `month`, `late`, or `rewrite` after an erasure.
        low: The first moment of its window.
        high: The first moment after it.
        state: `committed` means cold; see the table's other states in docs/archive.md.
        object_key: Where its object lies below the destination.
        sha256: The object's hash.
        object_bytes: The object's size.
        rows: How many rows it holds.
        row_hash_sum: The sum of their hashes, 16 bytes.
        conversation_low: The least value of the column that files are sorted by.
        conversation_high: The greatest.
        manifest: The manifest, as it lies beside the object.
    """

    id: int
    month: date
    source: str
    low: datetime
    high: datetime
    state: str
    object_key: str
    sha256: bytes
    object_bytes: int
    rows: int
    row_hash_sum: bytes
    conversation_low: str
    conversation_high: str
    manifest: Mapping[str, Any]

    @property
    def facts(self) -> ObjectFacts:
        """What its object must be."""
        return ObjectFacts(
            object_key=self.object_key,
            sha256=self.sha256,
            object_bytes=self.object_bytes,
            rows=self.rows,
            row_hash_sum=self.row_hash_sum,
            conversation_low=self.conversation_low,
            conversation_high=self.conversation_high,
        )


def find_months(connection: psycopg.Connection, aging: Aging = MESSAGES) -> list[Month]:
    """Return every month the table ever had, oldest first."""
    rows = connection.execute(_FIND_MONTHS, {"relation": aging.name}).fetchall()
    return [Month(*row) for row in rows]


def find_late_months(connection: psycopg.Connection, aging: Aging = MESSAGES) -> list[date]:
    """Return the months that late rows wait for, oldest first."""
    statement = _statements("find_late_months", late=(SCHEMA, aging.late))
    return [month for (month,) in connection.execute(statement)]


def find_abandoned(connection: psycopg.Connection, aging: Aging, before: datetime) -> list[date]:
    """Return the months with copies that were begun before a moment, and never ended."""
    named = {"relation": aging.name, "before": before}
    return [month for (month,) in connection.execute(_FIND_ABANDONED, named)]


def require_columns(connection: psycopg.Connection, aging: Aging) -> None:
    """Make sure that the tables have the columns that are archived, and no others.

    Raises:
        SchemaError: They do not.
    """
    wanted = {column.name: column.type for column in aging.columns}
    for table in (aging.name, aging.late):
        name = f"{SCHEMA}.{table}"
        found: dict[str, str] = dict(connection.execute(_FIND_COLUMNS, {"table": name}).fetchall())
        if found != wanted:
            different = sorted({one for one, _ in found.items() ^ wanted.items()})
            raise SchemaError(
                f"{name} does not have the columns that are archived.",
                why=f"These are missing, new, or of another type: {', '.join(different)}.",
                fix="Undo what was changed by hand, or run `kb upgrade`; nothing was deleted.",
            )


def find_segments(
    connection: psycopg.Connection,
    months: Sequence[date] | None = None,
    states: Sequence[str] = ("committed",),
    aging: Aging = MESSAGES,
) -> list[Segment]:
    """Return segments by month and number.

    Args:
        connection: In the snapshot that is asked about.
        months: Of which months; all by default.
        states: In which states.
        aging: Of which table.
    """
    named = {
        "relation": aging.name,
        "months": None if months is None else list(months),
        "states": list(states),
    }
    return [Segment(*row) for row in connection.execute(_FIND_SEGMENTS, named)]


def measure(
    connection: psycopg.Connection, aging: Aging, table: str, window: Window
) -> tuple[int, int]:
    """Return how many rows of a window a table has, and how many bytes they take in it."""
    place = (SCHEMA, table)
    name = f"{SCHEMA}.{table}"
    if table == aging.late:
        named = {"low": window.low, "high": window.high, "table": name}
        row = connection.execute(_statements("measure_late", table=place), named).fetchone()
    else:
        row = connection.execute(
            _statements("measure_month", table=place), {"table": name}
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def first_window(connection: psycopg.Connection, table: str, window: Window, rows: int) -> Window:
    """Cut about so many rows off the front of a window; rows of one moment stay together."""
    after = _statements("row_after", table=(SCHEMA, table))
    next_moment = _statements("moment_after", table=(SCHEMA, table))
    named = {"low": window.low, "high": window.high, "rows": rows}
    row = connection.execute(after, named).fetchone()
    if row is not None and row[0] == window.low:
        named = {"low": window.low, "high": window.high}
        row = connection.execute(next_moment, named).fetchone()
    return Window(window.low, window.high if row is None else row[0])


def add_segment(
    connection: psycopg.Connection,
    month_id: int,
    source: str,
    window: Window,
    *,
    fence: int,
    run_id: str,
) -> int:
    """Enter a segment that is about to be copied, and return its number."""
    named = {
        "month_id": month_id,
        "source": source,
        "low": window.low,
        "high": window.high,
        "fence": fence,
        "run_id": run_id,
    }
    row = connection.execute(_ADD_SEGMENT, named).fetchone()
    assert row is not None
    return int(row[0])


def note_object(connection: psycopg.Connection, segment: int, facts: ObjectFacts) -> None:
    """Note what is about to be uploaded, and where to; committed before the upload."""
    connection.execute(_NOTE_OBJECT, {"id": segment, **asdict(facts)})


def mark_stale(connection: psycopg.Connection, segments: Sequence[int], reason: str) -> None:
    """Give segments up that were not committed; their objects are removed days later."""
    connection.execute(_MARK_STALE, {"ids": list(segments), "reason": reason})


def commit_segments(
    connection: psycopg.Connection, manifests: Mapping[int, Mapping[str, Any]]
) -> int:
    """Make segments cold, and return how many there were to commit."""
    named = {"ids": list(manifests), "manifests": [Jsonb(one) for one in manifests.values()]}
    return connection.execute(_COMMIT_SEGMENTS, named).rowcount


def are_committed(connection: psycopg.Connection, segments: Sequence[int]) -> bool:
    """Say whether a commit whose answer was lost took place."""
    rows = connection.execute(_SEGMENT_STATES, {"ids": list(segments)}).fetchall()
    return len(rows) == len(segments) and all(state == "committed" for _, state in rows)


def describe_server(connection: psycopg.Connection) -> tuple[str, str]:
    """Return the versions of the server and of the schema."""
    row = connection.execute(_DESCRIBE_SERVER).fetchone()
    assert row is not None
    return row[0], row[1]
