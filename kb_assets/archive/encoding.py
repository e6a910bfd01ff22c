"""Rows of Arrow in PostgreSQL's binary formats, a column at a time.

Two formats have the same fields: what `record_send` returns, which says each field's type, and
what COPY reads, which does not. See PostgreSQL's `record_send` and its documentation of COPY.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kb_assets.archive.relation import Column

_NUMBERS = {"bytea": 17, "text": 25, "timestamptz": 1184, "jsonb": 3802, "int4": 23, "int8": 20}
_WIDTHS = {"timestamptz": 8, "int4": 4, "int8": 8}
_EPOCH_MICROSECONDS = 946_684_800_000_000
"""The first moment of 2000, which PostgreSQL counts from, after that of 1970."""

_JSONB_VERSION = b"\x01"
_NULL = b"\xff\xff\xff\xff"


def records(batch: Any, columns: Sequence[Column]) -> Any:  # noqa: ANN401
    """Return each row as `record_send` does: an Arrow array of large binaries.

    Args:
        batch: An Arrow record batch that has these columns; JSON as the text PostgreSQL prints.
        columns: What makes up a row, in order.
    """
    return _joined(len(columns).to_bytes(4, "big"), batch, columns, numbered=True)


def copied_rows(batch: Any, columns: Sequence[Column]) -> bytes:  # noqa: ANN401
    """Return the rows as COPY reads them, one after the other, without header and trailer."""
    if batch.num_rows == 0:
        return b""
    rows = _joined(len(columns).to_bytes(2, "big"), batch, columns, numbered=False)
    return bytes(rows.buffers()[2])


def _joined(
    count: bytes,
    batch: Any,  # noqa: ANN401
    columns: Sequence[Column],
    *,
    numbered: bool,
) -> Any:  # noqa: ANN401
    parts = [
        part for column in columns for part in _field(batch.column(column.name), column, numbered)
    ]
    return pc.binary_join_element_wise(_scalar(count), *parts, _scalar(b""))


def _field(values: Any, column: Column, numbered: bool) -> list[Any]:  # noqa: ANN401
    """Return a column as the parts of its fields: what stands before a value, and the value."""
    number = _NUMBERS[column.type].to_bytes(4, "big") if numbered else b""
    width = _WIDTHS.get(column.type)
    if width is not None and values.null_count == 0:
        return [_prefixed(_numbers(values, column, width), number + width.to_bytes(4, "big"))]
    if width is None:
        version = _JSONB_VERSION if column.type == "jsonb" else b""
        value = pc.fill_null(values.cast(pa.large_binary()), b"")
        lengths = pc.binary_length(value).to_numpy(zero_copy_only=False) + len(version)
    else:
        version = b""
        value = _prefixed(_numbers(values, column, width), b"")
        lengths = np.full(len(values), width)
    heads = _prefixed(lengths.astype(">i4"), number, version)
    if values.null_count == 0:
        return [heads, value]
    missing = pc.is_null(values)
    return [
        pc.if_else(missing, _scalar(number + _NULL), heads),
        pc.if_else(missing, _scalar(b""), value),
    ]


def _numbers(values: Any, column: Column, width: int) -> Any:  # noqa: ANN401
    """Return numbers as PostgreSQL sends them; 0 or so where one is missing."""
    whole = values.cast(pa.int64()) if column.type == "timestamptz" else values
    numbers = pc.fill_null(whole, 0).to_numpy(zero_copy_only=False)
    if column.type == "timestamptz":
        numbers = numbers - _EPOCH_MICROSECONDS
    return numbers.astype(f">i{width}")


def _prefixed(numbers: Any, before: bytes, after: bytes = b"") -> Any:  # noqa: ANN401
    """Return an array of values of equal length: some bytes, a number, some more bytes."""
    size = numbers.dtype.itemsize
    whole = np.empty((len(numbers), len(before) + size + len(after)), np.uint8)
    whole[:, : len(before)] = np.frombuffer(before, np.uint8)
    whole[:, len(before) : len(before) + size] = numbers.view(np.uint8).reshape(-1, size)
    whole[:, len(before) + size :] = np.frombuffer(after, np.uint8)
    offsets = np.arange(0, whole.size + 1, whole.shape[1], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(whole)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(numbers), buffers)


def _scalar(value: bytes) -> Any:  # noqa: ANN401
    return pa.scalar(value, pa.large_binary())
