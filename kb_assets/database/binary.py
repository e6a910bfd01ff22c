"""Rows in the binary format of COPY, made where the work is done.

A worker process hands over finished bytes, so that the process that writes them need not look
at each value. The format is PostgreSQL's: see its documentation of COPY, "Binary Format", and
`array_send` in its source for arrays.
"""

import struct
from collections.abc import Sequence

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""What stands before the first row: the signature, no flags, no extension."""

TRAILER = struct.pack("!h", -1)
"""What stands after the last row."""

NULL = struct.pack("!i", -1)
"""What stands for a value that is not there."""

BYTEA, TEXT = 17, 25
"""The numbers of types, the same in every PostgreSQL."""


def field(value: bytes) -> bytes:
    """Return a value after its length."""
    return len(value).to_bytes(4, "big") + value


def array(element: int, values: Sequence[bytes]) -> bytes:
    """Return an array of one dimension, without nulls, of elements of a type."""
    if not values:
        return struct.pack("!iiI", 0, 0, element)
    head = struct.pack("!iiIii", 1, 0, element, len(values), 1)
    return head + b"".join(map(field, values))
