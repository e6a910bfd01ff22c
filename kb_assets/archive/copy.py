"""The copy: rows out of one snapshot of the database, sorted, into a Parquet file.

PostgreSQL sends its binary COPY, the ADBC driver makes Arrow of it, DuckDB sorts and writes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as postgresql
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.sql import Composed

from kb_assets.archive.memory import TooLargeError
from kb_assets.archive.relation import RECORD, ROW_HASH, Aging
from kb_assets.archive.row_hash import (
    SUM_BYTES,
    hash_column,
    hashes_of,
    stored_hashes,
    sum_of_hashes,
)
from kb_assets.errors import DatabaseUnavailableError, DiskError

_MEMORY = "160MB"
_BATCH_BYTES = 2 * 1024 * 1024
_MOST_BYTES = 64 * 1024 * 1024
_ROWS_PER_GROUP = 16_384
_COMPRESSION_LEVEL = 2


@dataclass(frozen=True, slots=True)
class Tally:
    """What went into a file.

    Attributes:
        rows: How many rows.
        row_hash_sum: The sum of their hashes as it is stored, 16 bytes.
        low: The least value of the column that the file is sorted by; None without rows.
        high: The greatest.
    """

    rows: int
    row_hash_sum: bytes
    low: str | None
    high: str | None

    @classmethod
    def of(cls, rows: Any, aging: Aging) -> "Tally":  # noqa: ANN401
        """Count an Arrow table of rows and their hashes."""
        hashes = sum(sum_of_hashes(stored_hashes(batch, ROW_HASH)) for batch in rows.to_batches())
        ends = pc.min_max(rows[aging.group]).as_py()
        stored = (hashes % 2 ** (8 * SUM_BYTES)).to_bytes(SUM_BYTES, "big")
        return cls(rows.num_rows, stored, ends["min"], ends["max"])


@dataclass(frozen=True, slots=True)
class Written:
    """A Parquet file.

    Attributes:
        file: Where it is.
        tally: What is in it.
        sha256: Its hash.
        file_bytes: Its size.
    """

    file: Path
    tally: Tally
    sha256: bytes = field(repr=False)
    file_bytes: int


@contextmanager
def snapshot(conninfo: str) -> Iterator[Any]:
    """Lend a cursor whose statements all see one state of the database, and only read.

    Raises:
        DatabaseUnavailableError: The database cannot be reached, or was lost.
    """
    with (
        _lost(),
        postgresql.connect(conninfo, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("begin isolation level repeatable read, read only")
        yield cursor


def rows_of(cursor: Any, statement: Composed) -> Any:  # noqa: ANN401
    """Return what a statement selects, each row's record replaced by its hash: an Arrow table.

    Args:
        cursor: See `snapshot`.
        statement: Without parameters; JSON as text, and `Aging.copied`'s record at the end.

    Raises:
        TooLargeError: The rows do not fit into memory: copy fewer at a time.
        DatabaseUnavailableError: The database was lost.
    """
    cursor.adbc_statement.set_options(
        **{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)}
    )
    cursor.execute(statement.as_string())
    rows = cursor.fetch_record_batch()
    batches, held = [], 0
    for batch in _arriving(rows):
        hashes = hash_column(hashes_of(batch.column(RECORD)))
        batches.append(batch.drop_columns([RECORD]).append_column(ROW_HASH, hashes))
        held += batches[-1].nbytes
        if held > _MOST_BYTES:
            raise TooLargeError("Rows are too large to be held together.")
    place = rows.schema.get_field_index(RECORD)
    return pa.Table.from_batches(
        batches, rows.schema.remove(place).append(pa.field(ROW_HASH, pa.binary()))
    )


@contextmanager
def sorter(folder: Path) -> Iterator[Any]:
    """Lend what `write_sorted` works with: DuckDB, bounded, on one thread.

    Others work meanwhile: the server sends what is next, and what was before is proven. On two
    threads the same takes more than one and a half times the work.

    Args:
        folder: For what does not fit into memory.
    """
    with _disk():
        connection = duckdb.connect(config=_config(folder))
    with connection:
        connection.execute("set enable_progress_bar = false")
        yield connection


def write_sorted(connection: Any, rows: Any, file: Path, aging: Aging) -> Written:  # noqa: ANN401
    """Write rows to a Parquet file, sorted, compressed, in groups that can be skipped.

    Args:
        connection: See `sorter`.
        rows: An Arrow table: the table's columns and each row's hash.
        file: Where to.
        aging: The table.

    Raises:
        TooLargeError: The rows do not fit into memory: copy fewer at a time.
        DiskError: The local disk is full, or cannot be written.
    """
    with _disk():
        connection.register("arrived", rows)
        order = ", ".join(aging.order)
        connection.execute(
            f"copy (from arrived order by {order}) to {_quoted(file)} (format parquet,"
            f" parquet_version v2, compression zstd, compression_level {_COMPRESSION_LEVEL},"
            f" row_group_size {_ROWS_PER_GROUP})"
        )
        connection.unregister("arrived")
        with file.open("rb") as content:
            digest = file_digest(content, "sha256").digest()
        return Written(file, Tally.of(rows, aging), digest, file.stat().st_size)


def _config(folder: Path) -> dict[str, Any]:
    return {
        "memory_limit": _MEMORY,
        "threads": 1,
        "temp_directory": str(folder),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }


def _quoted(file: Path) -> str:
    return "'" + str(file).replace("'", "''") + "'"


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except (OSError, duckdb.Error) as error:
        if isinstance(error, duckdb.OutOfMemoryException):
            raise TooLargeError(
                "Rows are too large to be sorted.", why=str(error).partition("\n")[0]
            ) from error
        raise DiskError(
            "The archive cannot write its files here.",
            why=str(error).partition("\n")[0],
            fix="See that the disk of the knowledge base's home has room, and that it is ours.",
        ) from error


def _arriving(rows: Any) -> Iterator[Any]:  # noqa: ANN401
    with _lost(pa.ArrowException, OSError):
        yield from rows


@contextmanager
def _lost(*others: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (postgresql.Error, *others) as error:
        raise DatabaseUnavailableError(
            "Rows could not be copied out of the database.",
            why=str(error).strip(),
            fix="See whether the server runs; then try again. Nothing was deleted.",
        ) from error
