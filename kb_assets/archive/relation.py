"""Which table ages, by which column, and what its rows are: all that the archive is told of it."""

from dataclasses import dataclass
from typing import Literal

from psycopg.sql import SQL, Composed, Identifier

Type = Literal["text", "timestamptz", "jsonb", "int4", "int8", "bytea"]
ROW_HASH = "row_hash"
"""The column of a file that holds each row's hash, after those of the table."""

RECORD = "record"
"""What is copied beside a row's columns: the row as `record_send` writes it, which is hashed."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is archived.

    Attributes:
        name: Its name, in the table and in Parquet.
        type: What PostgreSQL calls its type.
    """

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Aging:
    """A table of schema `kb`, partitioned by month, whose old rows leave the database.

    Attributes:
        name: The table.
        late: Where rows go whose month is closed; the same columns, not partitioned.
        time: The column that says how old a row is; it never changes.
        key: The column that tells rows of one moment apart.
        group: The column whose values are read together; files are sorted by it.
        columns: Every column, in the order that row hashes are made in.
    """

    name: str
    late: str
    time: str
    key: str
    group: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def order(self) -> tuple[str, str, str]:
        """What files are sorted by."""
        return self.group, self.time, self.key

    def row_hash(self) -> Composed:
        """Return the expression for the hash of a row that the statement calls `hot`."""
        return SQL("sha256({})").format(self._record())

    def copied(self) -> Composed:
        """Return what is copied of a row that the statement calls `hot`, its record at the end."""
        columns = [_copied(column) for column in self.columns]
        return SQL(", ").join(
            [*columns, SQL("{} as {}").format(self._record(), Identifier(RECORD))]
        )

    def _record(self) -> Composed:
        names = SQL(", ").join(Identifier("hot", name) for name in self.names)
        return SQL("record_send(row({}))").format(names)


def _copied(column: Column) -> Composed:
    # JSON as the text that PostgreSQL prints: other programs write the same numbers differently.
    text = SQL("::text") if column.type == "jsonb" else SQL("")
    return SQL("{}{} as {}").format(Identifier("hot", column.name), text, Identifier(column.name))


MESSAGES = Aging(
    name="message",
    late="message_late",
    time="created_at",
    key="id",
    group="conversation_id",
    columns=(
        Column("id", "text"),
        Column("conversation_id", "text"),
        Column("created_at", "timestamptz"),
        Column("role", "text"),
        Column("content", "text"),
        Column("language", "text"),
        Column("intent", "text"),
        Column("metadata", "jsonb"),
        Column("token_count", "int4"),
        Column("ordinal", "int8"),
        Column("total_bytes", "int8"),
        Column("total_tokens", "int8"),
    ),
)
