"""Hashes and vectors in PostgreSQL's binary format, made as a whole: as text they are slow."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from kb_assets.database.binary import BYTEA, array
from kb_assets.embeddings.embedder import Vectors
from kb_assets.embeddings.space import Precision

_HASH_BYTES = 32

_BYTEA_ARRAY = 1001

_ROWS = 256
"""How many rows are made at once."""

_NUMBERS: Mapping[Precision, str] = {"halfvec": ">f2", "vector": ">f4"}


def vector_rows(hashes: Sequence[bytes], vectors: Vectors, precision: Precision) -> Iterator[bytes]:
    """Yield rows of a space's table in the binary format of COPY.

    They come in pieces, so that the server stores one while the next is made. A vector is its
    dimensions, two bytes that are not used, and its numbers.
    """
    numbers = numpy.dtype(_NUMBERS[precision])
    dimensions = vectors.shape[1]
    row = numpy.dtype(
        [
            ("columns", ">i2"),
            ("hash_bytes", ">i4"),
            ("hash", f"V{_HASH_BYTES}"),
            ("vector_bytes", ">i4"),
            ("dimensions", ">u2"),
            ("unused", ">u2"),
            ("numbers", numbers, (dimensions,)),
        ]
    )
    for start in range(0, len(hashes), _ROWS):
        some = slice(start, start + _ROWS)
        rows = numpy.zeros(len(hashes[some]), row)
        rows["columns"] = 2
        rows["hash_bytes"] = _HASH_BYTES
        rows["hash"] = numpy.frombuffer(b"".join(hashes[some]), row["hash"])
        rows["vector_bytes"] = 4 + numbers.itemsize * dimensions
        rows["dimensions"] = dimensions
        rows["numbers"] = vectors[some]
        yield rows.tobytes()


class Hashes:
    """Hashes as one parameter, a `bytea[]`."""

    def __init__(self, hashes: Sequence[bytes]) -> None:
        self.hashes = hashes


class _Dumper(Dumper):
    """Writes hashes as a `bytea[]`."""

    format = Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: Hashes) -> bytes:
        return array(BYTEA, obj.hashes)


def bind_hashes(connection: psycopg.Connection[Any]) -> None:
    """Let a connection take `Hashes` as parameters; costs no round trip."""
    connection.adapters.register_dumper(Hashes, _Dumper)
