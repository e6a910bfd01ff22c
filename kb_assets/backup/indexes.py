"""Whether indexes are valid, and tell the same as their tables.

Where the server has amcheck, it looks at every page. Where it has not, as many rows must be found
through an index as its table has, and vectors must be found by themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from kb_assets.backup.snapshot import Snapshot
from kb_assets.database.statements import Statements

_FOUND_SHARE = 0.9
"""How many of the vectors that are looked for must be found: the index answers roughly."""

_SESSIONS = 2

_statements = Statements(Path(__file__).with_name("restoring.sql"))
_LOOK_THROUGH_INDEXES = _statements("look_through_indexes")
_LOOK_THROUGH_TABLES = _statements("look_through_tables")


@dataclass(frozen=True, slots=True)
class Index:
    """An index, as the catalogue describes it.

    Attributes:
        schema: Its schema, and its table's.
        table: Its table.
        name: Its name.
        method: Such as `btree` or `hnsw`.
        is_valid: Whether it is complete and in use.
        condition: Which rows it has; None means all.
        keys: What it is over.
        order: The order that it has rows in.
        is_ordinary: Whether that is the usual order of these types.
        distance: The operator that it finds the nearest by, if that is zero for the same.
    """

    schema: str
    table: str
    name: str
    method: str
    is_valid: bool
    condition: str | None
    keys: Sequence[str]
    order: Sequence[str]
    is_ordinary: bool
    distance: str | None

    def __str__(self) -> str:
        """Return what it is called."""
        return f"{self.schema}.{self.name}"

    def rows(self) -> dict[str, Any]:
        """Return its table and which of the rows it has, for a statement."""
        return {"table": (self.schema, self.table), "condition": verbatim(self.condition or "true")}


@dataclass(frozen=True, slots=True)
class _Finding:
    wrong: str = ""
    unseen: Index | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """A look at one index, in any session."""

    index: Index
    amcheck: str | None

    def __call__(self, connection: psycopg.Connection[Any]) -> _Finding:
        index = self.index
        if not index.is_valid:
            return _Finding(f"Index {index} is not valid.")
        if index.method == "hnsw" and index.distance:
            return self._find_vectors(connection)
        if index.method != "btree":
            return _Finding(unseen=index)
        if self.amcheck:
            return self._check(connection, self.amcheck)
        return self._count(connection) if index.is_ordinary else _Finding(unseen=index)

    def _check(self, connection: psycopg.Connection[Any], schema: str) -> _Finding:
        place = Identifier(self.index.schema, self.index.name).as_string(connection)
        check = _statements("check_index", check=(schema, "bt_index_check"), index=Literal(place))
        try:
            with connection.transaction():
                connection.execute(check)
        except psycopg.errors.IndexCorrupted as error:
            return _Finding(f"Index {self.index} is damaged: {str(error).strip()}.")
        return _Finding()

    def _count(self, connection: psycopg.Connection[Any]) -> _Finding:
        rows = self.index.rows()
        keys = SQL(", ").join(map(verbatim, self.index.order))
        ordered = _statements("count_in_order", keys=keys, **rows)
        plan = str(
            _counted(connection, _LOOK_THROUGH_INDEXES, SQL("explain (format json) ") + ordered)
        )
        if f"'Index Name': '{self.index.name}'" not in plan:
            return _Finding(unseen=self.index)
        through = _counted(connection, _LOOK_THROUGH_INDEXES, ordered)
        there = _counted(connection, _LOOK_THROUGH_TABLES, _statements("count_in_table", **rows))
        if through == there:
            return _Finding()
        return _Finding(f"Index {self.index} has {through} of {there} rows.")

    def _find_vectors(self, connection: psycopg.Connection[Any]) -> _Finding:
        looked = _statements(
            "find_themselves",
            key=verbatim(self.index.keys[0]),
            distance=verbatim(self.index.distance or ""),
            **self.index.rows(),
        )
        with connection.transaction(force_rollback=True):
            connection.execute(_LOOK_THROUGH_INDEXES)
            row = connection.execute(looked).fetchone()
        assert row is not None
        if row[1] >= row[0] * _FOUND_SHARE:
            return _Finding()
        return _Finding(f"Index {self.index} finds {row[1]} of {row[0]} vectors.")


def index_faults(snapshot: Snapshot) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which indexes or tables are wrong, and what was not looked at, in words."""
    connection = snapshot.connection
    found = connection.execute(_statements("find_amcheck")).fetchone()
    amcheck = None if found is None else str(found[0])
    indexes = [Index(*row) for row in connection.execute(_statements("find_indexes"))]
    findings = snapshot.each([_Look(index, amcheck) for index in indexes], _SESSIONS)
    wrong = [one.wrong for one in findings if one.wrong]
    notes = []
    if amcheck:
        wrong += _damaged_tables(snapshot, amcheck)
    else:
        notes.append(
            "This server has no amcheck: rows were counted through each index instead, and "
            "compared with its table."
        )
    if unseen := [str(one.unseen) for one in findings if one.unseen]:
        notes.append(f"Indexes that were found valid, but not looked through: {', '.join(unseen)}.")
    return tuple(wrong), tuple(notes)


def _damaged_tables(snapshot: Snapshot, schema: str) -> list[str]:
    damaged = []
    for table in snapshot.tables:
        place = Identifier(*table.place).as_string(snapshot.connection)
        check = _statements("check_table", check=(schema, "verify_heapam"), table=Literal(place))
        row = snapshot.connection.execute(check).fetchone()
        if row and row[0]:
            damaged.append(f"Table {table.schema}.{table.name} is damaged: {row[1]}.")
    return damaged


def _counted(connection: psycopg.Connection[Any], planning: Any, statement: Any) -> Any:  # noqa: ANN401
    with connection.transaction(force_rollback=True):
        connection.execute(planning)
        row = connection.execute(statement).fetchone()
    return None if row is None else row[0]


def verbatim(text: str) -> SQL:
    """Return what PostgreSQL wrote itself as a part of a statement."""
    return SQL(text)
