"""The HNSW index of a space: built after the bulk load, checked, repaired, rebuilt when due.

Building never locks writers out, so a run that is killed can leave an invalid index behind:
it is dropped and built anew. Until then searches sort exactly.
"""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.notices import notices_of
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import Space, spaces_in
from kb_assets.index.built_by import note_builder, reason_to_rebuild

_LOCK_CLASS = 0x6B62_0003
"""First key of the advisory lock under which indexes are built; the second is the space."""

_REBUILD_SHARE = 0.1
"""Dead entries in the graph beyond this share make a new one cheaper than vacuuming it."""

_GRAPH_BYTES_PER_VECTOR = 720
"""What a build needs beside the vector itself, with pgvector's default m = 16 (measured)."""

_LEAST_MEMORY_BYTES = 64 * 1024 * 1024
_MOST_MEMORY_BYTES = 2 * 1024 * 1024 * 1024

_SPILLED = "no longer fits into maintenance_work_mem"
"""What pgvector says when it goes on building on disk, which takes several times as long."""

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class VectorIndexReport:
    """The state of one space's index after it was looked after.

    Attributes:
        space: The space's name.
        vectors: How many vectors the space has: counted for a build, else about as many as this.
        action: What had to be done: `none`, `built`, `repaired` or `rebuilt`.
        valid: Whether the index can be used now; a space without vectors needs none.
        index_bytes: Its size.
        memory_bytes: What a build was given; 0 if nothing was built.
        fits_memory: Whether the graph fitted into that; else the build was slow.
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
        bytes: Its size.
        comment: Which version of pgvector built it.
    """

    name: str
    valid: bool
    operator_class: str
    bytes: int
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Catalogued:
    """What the catalogue knows of a space, at the same price however many vectors it has.

    Attributes:
        about_vectors: About how many there are.
        indexes: Every HNSW index on them.
    """

    about_vectors: int
    indexes: tuple[IndexState, ...]


@dataclass(frozen=True, slots=True)
class _Build:
    vectors: int = 0
    memory_bytes: int = 0
    fits_memory: bool = True


def index_name(space: Space) -> str:
    """Return the name of a space's index."""
    return f"{space.table[1]}_hnsw"


def operator_class(space: Space) -> str:
    """Return the operator class that serves cosine distance over the space's vectors."""
    return f"{space.precision}_cosine_ops"


def index_states(connection: psycopg.Connection[Any], space: Space) -> tuple[IndexState, ...]:
    """Return every HNSW index on a space's vectors."""
    return catalogued(connection, [space])[space.id].indexes


def catalogued(
    connection: psycopg.Connection[Any], spaces: Sequence[Space]
) -> dict[int, Catalogued]:
    """Return what the catalogue knows of spaces, by their ids."""
    tables = [".".join(space.table) for space in spaces]
    rows = connection.execute(_statements("find_vector_indexes"), {"tables": tables}).fetchall()
    found = {space.id: Catalogued(0, ()) for space in spaces}
    for place, about_vectors, *index in rows:
        id_ = spaces[place - 1].id
        states = () if index[0] is None else (IndexState(*index),)
        found[id_] = Catalogued(about_vectors, found[id_].indexes + states)
    return found


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
    started = time.monotonic()
    with database.transaction() as connection:
        spaces = [space for space in spaces_in(connection) if space.state != "retired"]
        found = catalogued(connection, spaces)
        due = {
            space.id
            for space in spaces
            if _needed(connection, space, found[space.id].indexes, collected) != "none"
        }
    return tuple(
        _mend(database, space, collected)
        if space.id in due
        else _report(space, found[space.id], "none", _Build(), started)
        for space in spaces
    )


def _mend(database: Database, space: Space, collected: int) -> VectorIndexReport:
    started = time.monotonic()
    build = _Build()
    with database.session() as connection, _building(connection, space):
        action = _needed(connection, space, index_states(connection, space), collected)
        if action != "none":
            _drop_leftovers(connection, space)
            fit = is_fit(space, index_states(connection, space))
            if action == "rebuilt" or (not fit and _count(connection, space, most=1)):
                build = _build(connection, space)
        found = catalogued(connection, [space])[space.id]
    return _report(space, found, action, build, started)


def _report(
    space: Space, found: Catalogued, action: str, build: _Build, started: float
) -> VectorIndexReport:
    return VectorIndexReport(
        space=space.name,
        vectors=build.vectors or found.about_vectors,
        action=action,
        valid=not build.vectors or is_fit(space, found.indexes),
        index_bytes=sum(one.bytes for one in found.indexes if one.name == index_name(space)),
        memory_bytes=build.memory_bytes,
        fits_memory=build.fits_memory,
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


def _needed(
    connection: psycopg.Connection[Any],
    space: Space,
    states: tuple[IndexState, ...],
    collected: int,
) -> str:
    fit = is_fit(space, states)
    if fit and any(reason_to_rebuild(state.comment) for state in states):
        return "rebuilt"
    if fit and collected:
        # As many vectors as make what was collected a small share; no more are counted.
        enough = math.ceil(collected / _REBUILD_SHARE) - collected
        if 0 < _count(connection, space, most=enough) < enough:
            return "rebuilt"
    if len(states) > fit:
        return "repaired"
    return "built" if not fit and _count(connection, space, most=1) else "none"


def _build(connection: psycopg.Connection[Any], space: Space) -> _Build:
    """Build a new index beside the old, then let it take the old one's name at once."""
    schema, _ = space.table
    final, fresh, old = (f"{index_name(space)}{suffix}" for suffix in ("", "_new", "_old"))
    fit = bool(index_states(connection, space))
    vectors = _count(connection, space)
    memory_bytes = _memory_bytes(space, vectors)
    connection.execute(
        _statements("set_building"),
        {"memory": f"{memory_bytes // 1024}kB", "workers": max(1, (os.cpu_count() or 2) - 1)},
    )
    with notices_of(connection) as notices:
        connection.execute(
            _statements(
                "build_vector_index",
                index=fresh,
                embeddings=space.table,
                operator_class=operator_class(space),
            )
        )
    with connection.transaction():
        if fit:
            connection.execute(_statements("rename_vector_index", index=(schema, final), name=old))
        connection.execute(_statements("rename_vector_index", index=(schema, fresh), name=final))
        note_builder(connection, (schema, final))
    connection.execute(_statements("drop_vector_index", index=(schema, old)))
    connection.execute(_statements("analyze_vectors", embeddings=space.table))
    return _Build(vectors, memory_bytes, not any(_SPILLED in notice for notice in notices))


def _drop_leftovers(connection: psycopg.Connection[Any], space: Space) -> None:
    """Drop every index but the one that is fit."""
    schema, _ = space.table
    states = index_states(connection, space)
    kept = {index_name(space)} if is_fit(space, states) else set()
    for state in states:
        if state.name not in kept:
            connection.execute(_statements("drop_vector_index", index=(schema, state.name)))


def _memory_bytes(space: Space, vectors: int) -> int:
    """Return what to give a build: room for the whole graph, up to a bound."""
    width = {"halfvec": 2, "vector": 4}[space.precision] * space.model.dimensions
    graph = vectors * (width + _GRAPH_BYTES_PER_VECTOR)
    return min(max(_LEAST_MEMORY_BYTES, graph * 5 // 4), _MOST_MEMORY_BYTES)


def _count(connection: psycopg.Connection[Any], space: Space, *, most: int | None = None) -> int:
    """Count a space's vectors, but look at no more than so many."""
    row = connection.execute(
        _statements("count_vectors_up_to", embeddings=space.table), {"most": most}
    ).fetchone()
    return int(row[0]) if row else 0
