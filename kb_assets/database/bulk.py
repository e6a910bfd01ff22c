"""Rows into tables by binary COPY: the fastest way in, and exact for every type."""

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from kb_assets.database.binary import HEADER, TRAILER


def copy_rows(
    connection: psycopg.Connection,
    table: str | tuple[str, ...],
    columns: Sequence[str],
    types: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> int:
    """Copy rows into a table, temporary ones included, and return how many there were.

    Rows are sent as they come: memory does not grow with their number. On an error nothing of
    the statement stays, and the transaction must be rolled back.

    Args:
        connection: In a transaction; its vector types are registered.
        table: A name, or schema and name.
        columns: The columns' names.
        types: Their types as PostgreSQL names them: `bytea`, `text[]`, `jsonb`, `int8`, `halfvec`.
        rows: One value for each column; vectors as numpy arrays.

    Raises:
        ValueError: There are not as many types as columns.
        psycopg.Error: A value does not fit its type, or the table refuses a row.
    """
    if len(columns) != len(types):
        raise ValueError(f"{len(columns)} columns have {len(types)} types.")
    count = 0
    with connection.cursor() as cursor, cursor.copy(_statement(table, columns)) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
            count += 1
    return count


def copy_encoded(
    connection: psycopg.Connection,
    table: str | tuple[str, ...],
    columns: Sequence[str],
    rows: Iterable[bytes],
) -> None:
    """Copy rows that are in the binary format already (`binary.py`), any number in each piece.

    Raises:
        psycopg.Error: The bytes are no rows of these columns, or the table refuses one.
    """
    with connection.cursor() as cursor, cursor.copy(_statement(table, columns)) as copy:
        copy.write(HEADER)
        for piece in rows:
            copy.write(piece)
        copy.write(TRAILER)


def _statement(table: str | tuple[str, ...], columns: Sequence[str]) -> Composed:
    return SQL("copy {} ({}) from stdin (format binary)").format(
        Identifier(*((table,) if isinstance(table, str) else table)),
        SQL(", ").join(map(Identifier, columns)),
    )
