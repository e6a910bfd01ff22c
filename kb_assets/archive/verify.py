"""The proof: an object read back, parsed by another reader, its rows' hashes made anew."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from kb_assets.archive.manifest import ObjectFacts
from kb_assets.archive.relation import ROW_HASH, Aging
from kb_assets.archive.row_hash import SUM_BYTES, row_hashes, stored_hashes, sum_of_hashes
from kb_assets.errors import ArchiveCorruptError, DiskError, NotFoundError
from kb_assets.object_store import ObjectStore

_BATCH_ROWS = 16_384

_ARROW_TYPES = {
    "text": pa.string(),
    "jsonb": pa.string(),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "bytea": pa.binary(),
}


def fetch_verified(store: ObjectStore, facts: ObjectFacts, aging: Aging, folder: Path) -> Path:
    """Read an object back, and make sure that its rows are what they must be; see `fetch_whole`.

    Raises:
        ArchiveCorruptError: It is gone, damaged, or holds other rows.
        DiskError: The local disk is full.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    file = fetch_whole(store, facts, folder)
    try:
        verify_file(file, facts, aging)
    except ArchiveCorruptError as error:
        raise _corrupt(store, facts, error.what) from error
    return file


def fetch_whole(store: ObjectStore, facts: ObjectFacts, folder: Path) -> Path:
    """Read an object back, and make sure that it has the bytes it must have.

    Args:
        store: The archive's destination.
        facts: What it must be.
        folder: Where the file goes.

    Returns:
        The file.

    Raises:
        ArchiveCorruptError: It is gone or damaged.
        DiskError: The local disk is full.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    file = folder / f"{facts.sha256.hex()}.verify"
    try:
        size, sha256 = store.fetch(facts.object_key, file)
    except NotFoundError as error:
        raise _corrupt(store, facts, "It is not there.") from error
    except OSError as error:
        raise DiskError(
            "The archive cannot write its files here.",
            why=str(error),
            fix="See that the disk of the knowledge base's home has room, and that it is ours.",
        ) from error
    if (size, sha256) != (facts.object_bytes, facts.sha256):
        raise _corrupt(store, facts, f"It has {size:,} bytes with SHA-256 {sha256.hex()}.")
    return file


def verify_file(file: Path, facts: ObjectFacts, aging: Aging) -> None:
    """Make sure that a file holds exactly the rows it must.

    Raises:
        ArchiveCorruptError: It does not, or cannot be read.
    """
    rows, hashes, keys = 0, 0, []
    low, high = None, None
    for batch, row_hash in _hashed(file, aging):
        groups = batch.column(aging.group)
        low, high = groups[0].as_py() if low is None else low, groups[-1].as_py()
        rows += batch.num_rows
        hashes += sum_of_hashes(row_hash)
        keys.append(batch.select([aging.time, aging.key]))
    found = (rows, (hashes % 2 ** (8 * SUM_BYTES)).to_bytes(SUM_BYTES, "big"), low, high)
    if found != (
        facts.rows, facts.row_hash_sum, facts.conversation_low, facts.conversation_high
    ):  # fmt: skip
        raise ArchiveCorruptError(f"It holds {rows:,} rows, but not those it must hold.")
    different = pa.Table.from_batches(keys).group_by([aging.time, aging.key]).aggregate([])
    if different.num_rows != rows:
        raise ArchiveCorruptError(f"Only {different.num_rows:,} of its {rows:,} keys differ.")


def read_verified(file: Path, aging: Aging) -> Iterator[Any]:
    """Return a file's rows as Arrow batches, the rows' hashes at the end of each.

    Raises:
        ArchiveCorruptError: A row's hash is not that of the row, or the file cannot be read.
    """
    for batch, _ in _hashed(file, aging):
        yield batch


def read_keys(file: Path, aging: Aging) -> Iterator[Any]:
    """Return the keys and stored hashes of a file that was verified just now, as Arrow batches."""
    with parquet.ParquetFile(file) as opened:
        yield from opened.iter_batches(_BATCH_ROWS, columns=[aging.key, aging.time, ROW_HASH])


def schema_of(aging: Aging) -> Any:  # noqa: ANN401
    """Return the Arrow schema of a table's files."""
    fields = [(column.name, _ARROW_TYPES[column.type]) for column in aging.columns]
    return pa.schema([*fields, (ROW_HASH, _ARROW_TYPES["bytea"])])


def _hashed(file: Path, aging: Aging) -> Iterator[tuple[Any, bytes]]:
    schema = schema_of(aging)
    try:
        with parquet.ParquetFile(file) as opened:
            found = opened.schema_arrow
            # DuckDB says of some columns that they hold no nulls, which is nothing to insist on.
            if (found.names, found.types) != (schema.names, schema.types):
                raise ArchiveCorruptError(f"Its columns are {found}.")
            for batch in opened.iter_batches(_BATCH_ROWS):
                hashes = row_hashes(batch, aging.columns)
                if hashes != stored_hashes(batch, ROW_HASH):
                    raise ArchiveCorruptError("A row in it is not what its hash says.")
                yield batch, hashes
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, ArchiveCorruptError):
            raise
        raise ArchiveCorruptError(f"It cannot be read: {error}") from error


def _corrupt(store: ObjectStore, facts: ObjectFacts, why: str) -> ArchiveCorruptError:
    return ArchiveCorruptError(
        f"{store.url(facts.object_key)} is not what its manifest says.",
        why=f"{why} It must have {facts.object_bytes:,} bytes with SHA-256 {facts.sha256.hex()}, "
        f"and {facts.rows:,} rows.",
        fix="Bring the object back from a copy of the store; its rows are nowhere else.",
    )
