"""What is hot, what is cold and what was erased, as of one moment, brought to DuckDB.

A month leaves the database while others read. So that its rows are seen once, the list of cold
segments and the hot rows come from one snapshot; and since a dropped partition is gone from older
snapshots, too, the table is held before the snapshot is taken.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as postgresql
import duckdb
import psycopg
import pyarrow as pa
from psycopg.sql import SQL, Composed, Identifier, Literal

from kb_assets.archive.copy import snapshot
from kb_assets.archive.guarded import declared
from kb_assets.archive.needs import Need, Span, hull_of, narrowed
from kb_assets.archive.relation import Aging
from kb_assets.archive.store import Segment, find_segments
from kb_assets.database.connect import Database
from kb_assets.database.names import SCHEMA
from kb_assets.database.statements import Statements
from kb_assets.errors import DatabaseUnavailableError

_statements = Statements(Path(__file__).with_name("reading.sql"))
_EXPORT_SNAPSHOT = _statements("export_snapshot")
_FIND_SPANS = _statements("find_spans")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a query may touch.

    Attributes:
        needs: Which rows, as far as that is known.
        cold: Every cold segment, also those the query does not touch.
    """

    needs: tuple[Need, ...]
    cold: tuple[Segment, ...]


def load_snapshot(
    database: Database,
    needs: Sequence[Need],
    aging: Aging,
    duck: Any,  # noqa: ANN401
) -> Seen:
    """Bring hot rows and the ids of what was erased to DuckDB: tables `hot`, `late`, `erased`.

    Args:
        database: Where to read; its transactions are snapshots.
        needs: What is needed, as the query says it.
        aging: The table.
        duck: A connection to DuckDB.

    Raises:
        DatabaseUnavailableError: The database cannot be reached, or was lost.
    """
    for table in ("hot", "late"):
        duck.execute(f"create temp table {table} ({declared(aging)})")
    duck.execute(f'create temp table erased ("{aging.group}" varchar)')
    with _lost(), snapshot(database.conninfo) as cursor, database.transaction() as connection:
        # Only the session that reads the table locks it: if two did, one of them could wait for
        # somebody who waits for the other, and nobody would notice.
        named = Literal(_held(cursor, aging))
        connection.execute(_statements("use_snapshot", snapshot=named))
        cold = tuple(find_segments(connection, aging=aging))
        needs = narrowed(needs, _spans(connection, needs))
        for table, statement in _statements_for(needs, aging, connection):
            cursor.execute(statement)
            duck.register("arriving", cursor.fetch_record_batch())
            duck.execute(f"insert into {table} from arriving")
            duck.unregister("arriving")
    return Seen(tuple(needs), cold)


def _held(cursor: Any, aging: Aging) -> str:  # noqa: ANN401
    """Hold the table, then take the snapshot; return what others know it by."""
    cursor.execute(_statements("hold_table", table=(SCHEMA, aging.name)).as_string())
    cursor.execute(_EXPORT_SNAPSHOT.as_string())
    return str(cursor.fetchone()[0])


def _spans(connection: psycopg.Connection, needs: Sequence[Need]) -> dict[str, Span]:
    groups = {group for need in needs for group in need.groups or ()}
    if not groups:
        return {}
    rows = connection.execute(_FIND_SPANS, {"groups": list(groups)})
    return {group: (first, last) for group, first, last in rows}


def _statements_for(
    needs: Sequence[Need], aging: Aging, connection: psycopg.Connection
) -> Iterator[tuple[str, str]]:
    """Return what fills each table, with its values in place: ADBC's COPY has no parameters."""
    if not needs:
        return
    hull = hull_of(needs)
    group = Identifier(aging.group)
    named = {
        "groups": None if hull.groups is None else list(hull.groups),
        "low": hull.low,
        "high": hull.high,
    }
    written = psycopg.ClientCursor(connection)
    for table, source in (("hot", aging.name), ("late", aging.late)):
        rows = _statements(
            "read_rows",
            columns=_columns(aging),
            table=(SCHEMA, source),
            time=aging.time,
            group=group,
        )
        yield table, written.mogrify(rows, named)
    yield "erased", written.mogrify(_statements("read_erased", group=group), named)


def _columns(aging: Aging) -> Composed:
    # JSON as the text that PostgreSQL prints, as it is in the files.
    texts = {True: SQL("{}::text"), False: SQL("{}")}
    return SQL(", ").join(
        texts[column.type == "jsonb"].format(Identifier("hot", column.name))
        for column in aging.columns
    )


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except (postgresql.Error, pa.ArrowException, duckdb.Error, OSError) as error:
        raise DatabaseUnavailableError(
            "The messages in the database could not be read.",
            why=str(error).strip(),
            fix="See whether the server runs, and whether this disk has room; then try again.",
        ) from error
