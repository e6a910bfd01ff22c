"""Which tables a database has, and whether all their rows can be read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from kb_assets.backup.manifest import TableFacts
from kb_assets.database.statements import Statements
from kb_assets.errors import DatabaseRefusedError

_PART_HEAP_BYTES = 16 * 1024**2
_PART_BYTES = 256 * 1024**2
"""What of a table is looked at by one statement: its rows proper, and with what lies aside."""

_MOST_NAMED = 5

_statements = Statements.beside(__file__)
_FIND_TABLES = _statements("find_tables")
_FIND_UNREADABLE = _statements("find_unreadable")


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is stored.

    Attributes:
        name: Its name.
        sender: The function that makes bytes of it, where the number of its type differs from
            database to database; None where it does not. Empty means: as text.
    """

    name: str
    sender: tuple[str, ...] | None = None

    def hashed(self) -> Composable:
        """Return the column of a row `t` in a form that is the same in every database."""
        column = Identifier("t", self.name)
        if self.sender is None:
            return column
        if not self.sender:
            return SQL("{}::text").format(column)
        return SQL("{}({})").format(Identifier(*self.sender), column)


@dataclass(frozen=True, slots=True)
class Table:
    """A table that holds rows of its own.

    Attributes:
        schema: Its schema.
        name: Its name.
        columns: Its columns in order, but those that are computed.
        has_vectors: Whether one is a vector: then its rows are copied in binary.
        blocks: How many pages it has.
        block_bytes: The size of one.
        total_bytes: Its size with what is stored aside, indexes left out.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    has_vectors: bool
    blocks: int
    block_bytes: int
    total_bytes: int

    @property
    def place(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name

    @property
    def file(self) -> str | None:
        """The file of its rows in a backup; None if they are in the dump."""
        if not self.has_vectors:
            return None
        schema, name = (quote(part, safe="").replace(".", "%2E") for part in self.place)
        return f"tables/{schema}.{name}.zst"

    def hashed(self) -> Composable:
        """Return what a row `t` is hashed by."""
        return SQL(", ").join([column.hashed() for column in self.columns])

    def ranges(self) -> Iterator[Composable]:
        """Yield conditions on a row `t` that cut the table into parts, each row into one."""
        parts = max(
            1,
            -(-self.blocks * self.block_bytes // _PART_HEAP_BYTES),
            -(-self.total_bytes // _PART_BYTES),
        )
        step = max(1, -(-self.blocks // parts))
        firsts = range(0, max(1, self.blocks), step)
        for first in firsts:
            low, high = Literal(f"({first},0)"), Literal(f"({first + step},0)")
            condition = SQL("t.ctid >= {}::tid").format(low)
            # The last one has no end: whatever was measured, no row is left out.
            if first != firsts[-1]:
                condition += SQL(" and t.ctid < {}::tid").format(high)
            yield condition

    def facts(self, rows: int, row_hash_sum: int) -> TableFacts:
        """Return what a manifest says of the table."""
        columns = tuple(column.name for column in self.columns)
        return TableFacts(
            self.schema, self.name, columns, rows, f"{row_hash_sum:032x}", self.file
        )  # fmt: skip


def find_tables(connection: psycopg.Connection[Any]) -> tuple[Table, ...]:
    """Return every table but those of the system and of extensions, by schema and name."""
    tables = []
    for schema, name, columns, has_vectors, blocks, block_bytes, total in connection.execute(
        _FIND_TABLES
    ):
        stored = tuple(
            Column(column, None if sender is None else tuple(sender)) for column, sender in columns
        )
        tables.append(Table(schema, name, stored, has_vectors, blocks, block_bytes, total))
    return tuple(tables)


def require_readable(connection: psycopg.Connection[Any]) -> None:
    """Make sure that whoever is connected sees every row of every table.

    Raises:
        DatabaseRefusedError: They do not; it names what.
    """
    found = connection.execute(_FIND_UNREADABLE).fetchall()
    if not found:
        return
    hidden = [name for name, is_hidden in found if is_hidden]
    named = hidden or [name for name, _ in found]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    listed = ", ".join(named[:_MOST_NAMED]) + more
    role = connection.info.user
    raise DatabaseRefusedError(
        f"Role {role} cannot back up this database.",
        why=f"Row-level security hides rows of {listed} from it: a backup would be a part."
        if hidden
        else f"It may not read {listed}.",
        fix="Let KB_BACKUP_DATABASE_URL name the role kb_backup: docs/deploy.md says how it is "
        "made.",
    )
