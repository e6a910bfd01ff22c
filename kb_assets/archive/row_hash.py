"""What a row is known by: one hash that the database and a Parquet file lead to alike.

A row's hash is the SHA-256 of its columns in PostgreSQL's binary format, as `record_send` writes
them: independent of time zones, of how numbers are printed, and of the reader. The database
sends what is hashed when rows are copied, and computes the hash itself when they are deleted; from
the columns that were parsed out of a file, this module makes it anew.

Rows together are known by the sum of the first halves of their hashes, modulo 2**128: unlike an
exclusive or, a sum sees a pair that is there twice.
"""

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from kb_assets.archive.encoding import records
from kb_assets.archive.relation import Column

HASH_BYTES = 32
SUM_BYTES = 16


def row_hashes(batch: Any, columns: Sequence[Column]) -> bytes:  # noqa: ANN401
    """Return the hashes of a batch's rows, 32 bytes each, one after the other.

    Args:
        batch: An Arrow record batch that has these columns; JSON as the text PostgreSQL prints.
        columns: What makes up a row, in the order of the table.
    """
    return b"" if batch.num_rows == 0 else hashes_of(records(batch, columns))


def hashes_of(rows: Any) -> bytes:  # noqa: ANN401
    """Return the hashes of rows, 32 bytes each, one after the other.

    Args:
        rows: The rows as `record_send` writes them: an Arrow array of binaries, none missing.
    """
    width = np.int64 if pa.types.is_large_binary(rows.type) else np.int32
    _, offsets, content = rows.buffers()
    if len(rows) == 0:
        return b""
    view = memoryview(content)
    start = rows.offset * np.dtype(width).itemsize
    ends = np.frombuffer(offsets, width, len(rows) + 1, start).tolist()
    return b"".join([sha256(view[start:end]).digest() for start, end in pairwise(ends)])


def hash_column(hashes: bytes) -> Any:  # noqa: ANN401
    """Return hashes that lie one after the other as a column: an Arrow array of binaries."""
    offsets = np.arange(0, len(hashes) + 1, HASH_BYTES, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(hashes)]
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def stored_hashes(batch: Any, column: str) -> bytes:  # noqa: ANN401
    """Return a batch's column of hashes in the same form; shorter where one is missing."""
    return b"".join(value for value in batch.column(column).to_pylist() if value is not None)


def sum_of_hashes(hashes: bytes) -> int:
    """Return the sum of the first halves of hashes, modulo 2**128."""
    words = np.frombuffer(hashes, ">u4").reshape(-1, HASH_BYTES // 4)[:, : SUM_BYTES // 4]
    sums = words.sum(axis=0, dtype=np.uint64).tolist()
    last = len(sums) - 1
    whole = sum(int(one) << (32 * (last - place)) for place, one in enumerate(sums))
    return int(whole % 2 ** (8 * SUM_BYTES))
