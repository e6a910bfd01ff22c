"""pgvector's types on a connection, with numpy arrays written as either of them.

pgvector's own adapters take an array for a `vector` only, and copy it three times.
"""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import psycopg
from pgvector import HalfVector, Vector
from pgvector.psycopg.halfvec import register_halfvec_info
from pgvector.psycopg.vector import register_vector_info
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

from kb_assets.errors import DatabaseRefusedError


class _ArrayDumper(Dumper):
    """Writes a numpy array, or pgvector's own value, in pgvector's binary format."""

    format = Format.BINARY
    numbers: ClassVar[str]

    def dump(self, obj: Any) -> bytes:  # noqa: ANN401
        if not hasattr(obj, "astype"):
            return bytes(obj.to_binary())
        if obj.ndim != 1:
            raise ValueError(f"A vector has one dimension, not {obj.ndim}.")
        return struct.pack(">HH", len(obj), 0) + bytes(obj.astype(self.numbers).tobytes())


@dataclass(frozen=True, slots=True)
class VectorTypes:
    """What a database calls pgvector's types; the same for all its connections."""

    vector: TypeInfo
    halfvec: TypeInfo

    @classmethod
    def of(cls, connection: psycopg.Connection) -> "VectorTypes":
        """Ask the database.

        Raises:
            DatabaseRefusedError: pgvector is not installed there, or is not visible.
        """
        vector = TypeInfo.fetch(connection, "vector")
        halfvec = TypeInfo.fetch(connection, "halfvec")
        if vector is None or halfvec is None:
            raise DatabaseRefusedError(
                f"Database {connection.info.dbname!r} has no vector types.",
                why="The extension pgvector is not installed in it, or not in the search path.",
                fix="Run `create extension vector` in it as an administrator, then `kb upgrade`.",
            )
        return cls(vector, halfvec)

    def register(self, connection: psycopg.Connection) -> None:
        """Make the connection read and write vectors; costs no round trip."""
        register_vector_info(connection, self.vector)
        register_halfvec_info(connection, self.halfvec)
        wide = type("_", (_ArrayDumper,), {"oid": self.vector.oid, "numbers": ">f4"})
        narrow = type("_", (_ArrayDumper,), {"oid": self.halfvec.oid, "numbers": ">f2"})
        connection.adapters.register_dumper(Vector, wide)
        connection.adapters.register_dumper("numpy.ndarray", wide)
        connection.adapters.register_dumper(HalfVector, narrow)
