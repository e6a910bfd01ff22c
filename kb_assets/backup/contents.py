"""What a database holds at a snapshot: tables, rows and their checksums, sequences, roles.

A row's hash is the SHA-256 of its columns in PostgreSQL's binary format; those of a table are
summed as the archive does it (`archive/row_hash.py`). It does not depend on how rows are stored,
nor on the numbers that a database has given to types, so that a restored table has the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from kb_assets.archive.row_hash import SUM_BYTES, sum_of_hashes
from kb_assets.backup.manifest import RoleFacts, SequenceFacts, TableFacts
from kb_assets.backup.snapshot import Snapshot
from kb_assets.backup.tables import Table
from kb_assets.database.migrate import current
from kb_assets.database.statements import Statements

_statements = Statements.beside(__file__)
_DESCRIBE = _statements("describe_database")
_FIND_SEQUENCES = _statements("find_sequences")
_FIND_ROLES = _statements("find_roles", attributes=_statements("role_attributes"))


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database holds.

    Attributes:
        server: The server's version, such as `16.14`.
        extensions: The version of each extension.
        revision: The schema's Alembic revision; empty if it has none.
        database: The database's name.
        database_bytes: Its size, indexes and all.
        tables: Every table that holds rows of its own, by schema and name.
        sequences: Every sequence.
        roles: Every role that matters.
    """

    server: str
    extensions: Mapping[str, str]
    revision: str
    database: str
    database_bytes: int
    tables: tuple[TableFacts, ...]
    sequences: tuple[SequenceFacts, ...]
    roles: tuple[RoleFacts, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a table, to be counted by any session."""

    table: Table
    condition: Composable

    def __call__(self, connection: psycopg.Connection[Any]) -> tuple[int, int]:
        """Return how many rows it has, and the sum of their hashes."""
        statement = _statements(
            "hash_rows",
            columns=self.table.hashed(),
            table=self.table.place,
            part=self.condition,
        )
        rows, hashes = connection.execute(statement, binary=True).fetchone() or (0, None)
        return rows, sum_of_hashes(hashes or b"")


def read_contents(snapshot: Snapshot, *, sessions: int = 2) -> Contents:
    """Read all rows of a database, and say what it holds.

    Args:
        snapshot: Its state.
        sessions: How many sessions count and hash at once.
    """
    tables = count_tables(snapshot, snapshot.tables, sessions=sessions)
    connection = snapshot.connection
    row = connection.execute(_DESCRIBE).fetchone()
    assert row is not None
    number, database, database_bytes, extensions = row
    return Contents(
        server=f"{number // 10000}.{number % 10000}",
        extensions=extensions,
        revision=current(connection) or "",
        database=database,
        database_bytes=database_bytes,
        tables=tables,
        sequences=read_sequences(connection),
        roles=tuple(
            RoleFacts(name, tuple(attributes), tuple(member_of), tuple(rights))
            for name, attributes, member_of, rights in connection.execute(_FIND_ROLES)
        ),
    )


def count_tables(
    snapshot: Snapshot, tables: tuple[Table, ...], *, sessions: int = 2
) -> tuple[TableFacts, ...]:
    """Return the rows of tables and their checksums, in the order of the tables."""
    largest_first = sorted(tables, key=lambda table: -table.total_bytes)
    parts = [_Part(table, part) for table in largest_first for part in table.ranges()]
    counted = snapshot.each(parts, sessions)
    rows, sums = dict.fromkeys(tables, 0), dict.fromkeys(tables, 0)
    for part, (number, hashes) in zip(parts, counted, strict=True):
        rows[part.table] += number
        sums[part.table] += hashes
    return tuple(
        table.facts(rows[table], sums[table] % 2 ** (8 * SUM_BYTES)) for table in tables
    )  # fmt: skip


def read_sequences(connection: psycopg.Connection[Any]) -> tuple[SequenceFacts, ...]:
    """Return where each sequence stands; now, for sequences know no snapshots."""
    places = connection.execute(_FIND_SEQUENCES).fetchall()
    if not places:
        return ()
    each = [
        _statements("read_sequence", place=Literal(number), sequence=place)
        for number, place in enumerate(places)
    ]
    rows = connection.execute(SQL(" union all ").join(each) + SQL(" order by 1"))
    return tuple(
        SequenceFacts(places[number][0], places[number][1], last_value, is_called)
        for number, last_value, is_called in rows
    )


def stored_columns(table: Table) -> Composable:
    """Return the names of a table's stored columns, for COPY."""
    return SQL(", ").join([Identifier(column.name) for column in table.columns])
