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
from kb_assets.archive.relation import ROW_HASH, Aging
from kb_assets.archive.row_hash import SUM_BYTES, stored_hashes, sum_of_hashes
from kb_assets.errors import DatabaseUnavailableError, DiskError

_MEMORY = "160MB"
_BATCH_BYTES = 2 * 1024 * 1024
_ROWS_PER_GROUP = 16_384
_COMPRESSION_LEVEL = 2


@dataclass(slots=True)
class Tally:
    """What went into a file, counted on the way.

    Attributes:
        rows: How many rows.
        hashes: The sum of their hashes, as the database computed them.
        low: The least value of the column that the file is sorted by.
        high: The greatest.
    """

    rows: int = 0
    hashes: int = 0
    low: str | None = None
    high: str | None = None

    @property
    def row_hash_sum(self) -> bytes:
        """The sum of the hashes as it is stored."""
        return int(self.hashes % 2 ** (8 * SUM_BYTES)).to_bytes(SUM_BYTES, "big")

    def add(self, batch: Any, aging: Aging) -> None:  # noqa: ANN401
        """Count one more batch."""
        if batch.num_rows == 0:
            return
        ends = pc.min_max(batch.column(aging.group)).as_py()
        self.rows += batch.num_rows
        self.hashes += sum_of_hashes(stored_hashes(batch, ROW_HASH))
        self.low = min(self.low or ends["min"], ends["min"])
        self.high = max(self.high or ends["max"], ends["max"])


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
    """Return what a statement selects as a stream of Arrow batches.

    Args:
        cursor: See `snapshot`.
        statement: Without parameters; JSON as text.
    """
    cursor.adbc_statement.set_options(
        **{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)}
    )
    cursor.execute(statement.as_string())
    rows = cursor.fetch_record_batch()
    return pa.RecordBatchReader.from_batches(rows.schema, _arriving(rows))


def write_sorted(rows: Any, file: Path, aging: Aging) -> Written:  # noqa: ANN401
    """Write rows to a Parquet file, sorted, compressed, in groups that can be skipped.

    Args:
        rows: A stream of Arrow batches: the table's columns and each row's hash.
        file: Where to.
        aging: The table.

    Raises:
        TooLargeError: The rows do not fit into memory: copy fewer at a time.
        DiskError: The local disk is full, or cannot be written.
    """
    tally, failures = Tally(), list[Exception]()
    with _disk(failures), duckdb.connect(config=_config(file.parent)) as connection:
        connection.execute("set enable_progress_bar = false")
        connection.register("arriving", _counted(rows, aging, tally, failures))
        order = ", ".join(aging.order)
        connection.execute(
            f"copy (from arriving order by {order}) to {_quoted(file)} (format parquet,"
            f" parquet_version v2, compression zstd, compression_level {_COMPRESSION_LEVEL},"
            f" row_group_size {_ROWS_PER_GROUP})"
        )
        with file.open("rb") as content:
            digest = file_digest(content, "sha256").digest()
    return Written(file, tally, digest, file.stat().st_size)


def _counted(
    rows: Any,  # noqa: ANN401
    aging: Aging,
    tally: Tally,
    failures: list[Exception],
) -> Any:  # noqa: ANN401
    """Return the same stream, counted; DuckDB would tell its errors as its own."""

    def batches() -> Iterator[Any]:
        try:
            for batch in rows:
                tally.add(batch, aging)
                yield batch
        except Exception as error:
            failures.append(error)
            raise

    return pa.RecordBatchReader.from_batches(rows.schema, batches())


def _config(folder: Path) -> dict[str, Any]:
    return {
        "memory_limit": _MEMORY,
        "temp_directory": str(folder / "sorting"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }


def _quoted(file: Path) -> str:
    return "'" + str(file).replace("'", "''") + "'"


@contextmanager
def _disk(failures: list[Exception]) -> Iterator[None]:
    try:
        yield
    except (OSError, duckdb.Error) as error:
        if failures:
            raise failures[0] from error
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
