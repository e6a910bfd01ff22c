"""Tables: how large they are, what is dead in them, and `VACUUM` where it is due."""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from kb_assets.database.statements import Statements

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class TableState:
    """One table, as the server's statistics have it.

    Attributes:
        name: Schema and name.
        rows: How many are alive.
        dead_rows: How many take room until they are vacuumed.
        table_bytes: Without its indexes.
        index_bytes: All of its indexes.
        vacuum_is_due: Whether autovacuum would be due, by the server's own thresholds.
        analyze_is_due: Whether the planner's statistics are old, by the same.
        is_ours: Whether this connection may vacuum it.
        seconds_since_vacuum: None if it never was.
    """

    name: tuple[str, str]
    rows: int
    dead_rows: int
    table_bytes: int
    index_bytes: int
    vacuum_is_due: bool
    analyze_is_due: bool
    is_ours: bool
    seconds_since_vacuum: float | None

    @property
    def dead_share(self) -> float:
        """How much of all rows is dead."""
        return self.dead_rows / max(1, self.rows + self.dead_rows)

    @property
    def total_bytes(self) -> int:
        """How much it takes with its indexes."""
        return self.table_bytes + self.index_bytes

    @property
    def is_due(self) -> bool:
        """Whether anything is."""
        return self.vacuum_is_due or self.analyze_is_due


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """A database, and each of its tables.

    Attributes:
        size_bytes: All of it.
        oldest_row_transactions: Since how many transactions rows may wait to be frozen.
        freeze_after_transactions: From how many on the server freezes them by itself.
        longest_transaction_seconds: Dead rows that it may still see cannot be removed.
        tables: The largest first.
    """

    size_bytes: int
    oldest_row_transactions: int
    freeze_after_transactions: int
    longest_transaction_seconds: float
    tables: tuple[TableState, ...]


def measure(connection: psycopg.Connection, *, only_current_schema: bool = False) -> DatabaseState:
    """Return what the server's statistics say of this database.

    Args:
        connection: To it.
        only_current_schema: Whether other schemas are somebody else's.
    """
    wanted = {"only_current_schema": only_current_schema}
    rows = connection.execute(_statements("find_tables"), wanted).fetchall()
    tables = tuple(TableState((schema, name), *facts) for schema, name, *facts in rows)
    whole = connection.execute(_statements("measure_database")).fetchone()
    assert whole is not None
    size, oldest, limit, longest = whole
    return DatabaseState(size, oldest, limit, longest, tables)


def tend_tables(
    connection: psycopg.Connection, tables: Sequence[TableState]
) -> tuple[tuple[str, str], ...]:
    """Vacuum or analyze the tables where that is due and ours to do; return which.

    Args:
        connection: In autocommit mode.
        tables: As they were measured.
    """
    wanted = [one for one in tables if one.is_ours and one.is_due]
    for one in wanted:
        name = "vacuum" if one.vacuum_is_due else "analyze"
        connection.execute(_statements(name, table=one.name))
    return tuple(one.name for one in wanted)
