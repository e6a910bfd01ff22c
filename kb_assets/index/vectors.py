"""The HNSW index of a space: built after the bulk load, checked, repaired, rebuilt when due.

Building never locks writers out, so a run that is killed can leave an invalid index behind:
it is dropped and built anew. Until then searches sort exactly.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import Space, list_spaces

_LOCK_CLASS = 0x6B62_0003
"""First key of the advisory lock under which indexes are built; the second is the space."""

_REBUILD_SHARE = 0.1
"""Dead entries in the graph beyond this share make a new one cheaper than vacuuming it."""

_GRAPH_BYTES_PER_LINK = 8
_LINKS = 2 * 16 + 16
"""pgvector's default m = 16: twice as many links on the lowest layer, and some above."""

_LEAST_MEMORY_BYTES = 64 * 1024 * 1024
_MOST_MEMORY_BYTES = 2 * 1024 * 1024 * 1024

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class VectorIndexReport:
    """The state of one space's index after it was looked after.

    Attributes:
        space: The space's name.
        vectors: How many vectors the space has.
        action: What had to be done: `none`, `built`, `repaired` or `rebuilt`.
        valid: Whether the index can be used now; a space without vectors needs none.
        index_bytes: Its size.
        memory_bytes: What the build was given.
        fits_memory: Whether the graph was expected to fit into that; else the build was slow.
        seconds: How long it took.
    """

    space: str
    vectors: int
    action: str
    valid: bool
    index_bytes: int
    memory_bytes: int
    fits_memory: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class IndexState:
    """An HNSW index as the catalogue describes it.

    Attributes:
        name: Its name, in the schema of the spaces.
        valid: Complete, and kept up to date by inserts.
        operator_class: What distance it is for.
    """

    name: str
    valid: bool
    operator_class: str


def index_name(space: Space) -> str:
    """Return the name of a space's index."""
    return f"{space.table[1]}_hnsw"


def operator_class(space: Space) -> str:
    """Return the operator class that serves cosine distance over the space's vectors."""
    return f"{space.precision}_cosine_ops"


def index_states(connection: psycopg.Connection[Any], space: Space) -> tuple[IndexState, ...]:
    """Return every HNSW index on a space's vectors."""
    rows = connection.execute(
        _statements("find_vector_indexes"), {"table": ".".join(space.table)}
    ).fetchall()
    return tuple(IndexState(*row) for row in rows)


def is_fit(space: Space, states: tuple[IndexState, ...]) -> bool:
    """Say whether a space's index exists, is complete, and is for the right distance."""
    return any(
        state.name == index_name(space)
        and state.valid
        and state.operator_class == operator_class(space)
        for state in states
    )


def maintain_vector_indexes(
    database: Database, *, collected: int = 0
) -> tuple[VectorIndexReport, ...]:
    """Build, repair or rebuild the index of every space that is not retired.

    Args:
        database: Where the spaces are.
        collected: How many vectors were deleted from each just before.
    """
    return tuple(
        _maintain(database, space, collected)
        for space in list_spaces(database)
        if space.state != "retired"
    )


def _maintain(database: Database, space: Space, collected: int) -> VectorIndexReport:
    started = time.monotonic()
    with database.session() as connection, _building(connection, space):
        vectors = _count(connection, "count_vectors", embeddings=space.table)
        memory_bytes, fits = _memory(space, vectors)
        action = _needed(connection, space, vectors, collected)
        if action == "none":
            action = "repaired" if _drop_leftovers(connection, space) else "none"
        else:
            _build(connection, space, memory_bytes)
        size = connection.execute(
            _statements("index_bytes"), {"index": f"{space.table[0]}.{index_name(space)}"}
        ).fetchone()
        valid = vectors == 0 or is_fit(space, index_states(connection, space))
    return VectorIndexReport(
        space=space.name,
        vectors=vectors,
        action=action,
        valid=valid,
        index_bytes=int(size[0] or 0) if size else 0,
        memory_bytes=memory_bytes,
        fits_memory=fits,
        seconds=time.monotonic() - started,
    )


@contextmanager
def _building(connection: psycopg.Connection[Any], space: Space) -> Iterator[None]:
    """Keep others from building an index on the same space; they wait."""
    key = (_LOCK_CLASS, space.id)
    while not _try_lock(connection, key):
        time.sleep(0.2)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(%s, %s)", key)


def _try_lock(connection: psycopg.Connection[Any], key: tuple[int, int]) -> bool:
    """Try, rather than wait in a statement.

    A statement that waits holds a snapshot, and a concurrent build waits for old snapshots:
    each would wait for the other.
    """
    row = connection.execute("select pg_try_advisory_lock(%s, %s)", key).fetchone()
    return bool(row and row[0])


def _needed(connection: psycopg.Connection[Any], space: Space, vectors: int, collected: int) -> str:
    states = index_states(connection, space)
    if not vectors:
        return "none"
    if not states:
        return "built"
    if not is_fit(space, states):
        return "repaired"
    return "rebuilt" if collected > _REBUILD_SHARE * (vectors + collected) else "none"


def _build(connection: psycopg.Connection[Any], space: Space, memory_bytes: int) -> None:
    """Build a new index beside the old, then let it take the old one's name at once."""
    schema, _ = space.table
    final, fresh = index_name(space), f"{index_name(space)}_new"
    _drop_leftovers(connection, space)
    fit = bool(index_states(connection, space))
    connection.execute(
        "select set_config('maintenance_work_mem', %s, false),"
        " set_config('max_parallel_maintenance_workers', %s, false)",
        (f"{memory_bytes // 1024}kB", str(max(1, (os.cpu_count() or 2) - 1))),
    )
    connection.execute(
        _statements(
            "build_vector_index",
            index=fresh,
            embeddings=space.table,
            operator_class=operator_class(space),
        )
    )
    old = f"{final}_old"
    with connection.transaction():
        if fit:
            connection.execute(_statements("rename_vector_index", index=(schema, final), name=old))
        connection.execute(_statements("rename_vector_index", index=(schema, fresh), name=final))
    connection.execute(_statements("drop_vector_index", index=(schema, old)))
    connection.execute(_statements("analyze_vectors", embeddings=space.table))


def _drop_leftovers(connection: psycopg.Connection[Any], space: Space) -> int:
    """Drop every index but the one that is fit, and return how many there were."""
    schema, _ = space.table
    states = index_states(connection, space)
    kept = {index_name(space)} if is_fit(space, states) else set()
    leftovers = [state.name for state in states if state.name not in kept]
    for name in leftovers:
        connection.execute(_statements("drop_vector_index", index=(schema, name)))
    return len(leftovers)


def _memory(space: Space, vectors: int) -> tuple[int, bool]:
    """Return what to give a build, and whether the whole graph fits into it."""
    width = {"halfvec": 2, "vector": 4}[space.precision] * space.model.dimensions
    graph = vectors * (width + _LINKS * _GRAPH_BYTES_PER_LINK + 200)
    wanted = max(_LEAST_MEMORY_BYTES, graph * 5 // 4)
    return min(wanted, _MOST_MEMORY_BYTES), wanted <= _MOST_MEMORY_BYTES


def _count(connection: psycopg.Connection[Any], name: str, **identifiers: tuple[str, ...]) -> int:
    row = connection.execute(_statements(name, **identifiers)).fetchone()
    return int(row[0]) if row else 0
