"""The vector side: chunks whose vectors are nearest to the question's.

The index is asked, and goes on until it has enough (pgvector's iterative scan). Where few chunks
may be found, looking at all of them is both exact and faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from pgvector import HalfVector, Vector
from psycopg.sql import Composable

from kb_assets.database.statements import Statements
from kb_assets.embeddings.embedder import Vectors
from kb_assets.embeddings.space import Space

_EXACT_FACTOR = 2.0
"""How much longer a chunk takes that the index leads to than one that a filter does: measured."""

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A chunk near the question.

    Attributes:
        revision_id: Its revision.
        ordinal: Its place in the revision.
        similarity: Cosine similarity, -1 to 1.
        source_id: Its source, and
        position: its ordinal there, for its words; None if these were never analysed.
    """

    revision_id: int
    ordinal: int
    similarity: float
    source_id: int | None
    position: int | None


def vector_parameter(space: Space, vector: Vectors) -> HalfVector | Vector:
    """Return a question's vector as the space's table compares it."""
    return (HalfVector if space.precision == "halfvec" else Vector)(vector)


def exact_is_faster(
    connection: psycopg.Connection[Any], space: Space, chunks: int, count: int
) -> bool:
    """Say whether to look at all of so many chunks rather than ask the index for `count`.

    The index has to pass by `count · all / chunks` of them before it has found enough.
    """
    row = connection.execute(
        _statements("estimate_vectors"), {"table": ".".join(space.table)}, prepare=True
    ).fetchone()
    vectors = max(chunks, row[0] if row else 0)
    return chunks * chunks <= _EXACT_FACTOR * count * vectors


def nearest_by_index(
    connection: psycopg.Connection[Any],
    space: Space,
    named: dict[str, Any],
    condition: Composable,
    *,
    on_documents: bool,
) -> list[Neighbour]:
    """Return the nearest chunks by the vector index; fewer than asked for if it gave up.

    Args:
        connection: In the transaction whose snapshot is searched.
        space: The space that is asked.
        named: The parameters, `vector` and `limit` among them.
        condition: What must be true of them.
        on_documents: Whether the condition speaks of documents, revisions or sources.
    """
    statement = "search_index_of_documents" if on_documents else "search_index"
    query = _statements(statement, embeddings=space.table, condition=condition)
    found = [Neighbour(*row) for row in connection.execute(query, named)]
    # A scan that goes on is only roughly in order; a strict one would drop what it finds late.
    return sorted(found, key=lambda one: -one.similarity)


def nearest_exactly(
    connection: psycopg.Connection[Any],
    space: Space,
    revision_ids: Sequence[int],
    named: dict[str, Any],
) -> list[Neighbour]:
    """Return the nearest chunks of revisions, by looking at all of them."""
    query = _statements("search_exactly", embeddings=space.table)
    rows = connection.execute(query, named | {"revision_ids": list(revision_ids)})
    return [Neighbour(*row) for row in rows]
