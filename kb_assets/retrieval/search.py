"""Search: the live chunks nearest to a question."""

from typing import Any

import psycopg
from pgvector import HalfVector, Vector

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.request import embed_query
from kb_assets.embeddings.space import Space
from kb_assets.retrieval.hits import Hit, Results
from kb_assets.retrieval.query import Query

_statements = Statements.beside(__file__)

_CANDIDATES = 100
"""How many neighbours the index keeps in view (`hnsw.ef_search`), at the least."""


def search(database: Database, space: Space, embedder: Embedder, query: Query) -> Results:
    """Return the live chunks nearest to a query, best first.

    The index is asked first and goes on until it has enough. If a narrow filter leaves it
    short, all that match are sorted exactly: as many hits come back as there are.

    Args:
        database: Where readers connect.
        space: The space that answers.
        embedder: The embedder of that space.
        query: What is looked for.

    Raises:
        TextRefusedError: The query has no usable vector.
        ProviderRefusedError: The provider will not embed it.
        ProviderUnavailableError: The provider cannot be reached.
    """
    kind = HalfVector if space.precision == "halfvec" else Vector
    condition, named = query.filters.condition()
    named |= {"vector": kind(embed_query(embedder, query.text)), "limit": query.limit}
    with database.transaction() as connection:
        _prepare(connection, query.limit)
        rows = connection.execute(
            _statements("search_index", embeddings=space.table, condition=condition),
            named,
            prepare=False,
        ).fetchall()
        if len(rows) < query.limit:
            rows = connection.execute(
                _statements("search_exactly", embeddings=space.table, condition=condition),
                named,
                prepare=False,
            ).fetchall()
    hits = tuple(_hit(row) for row in rows)
    return Results(hits, "vector", space.name, space.model.provider)


def _prepare(connection: psycopg.Connection[Any], limit: int) -> None:
    connection.execute(
        "select set_config('hnsw.iterative_scan', 'strict_order', true),"
        " set_config('hnsw.ef_search', %s, true)",
        (str(max(_CANDIDATES, limit)),),
    )


def _hit(row: tuple[Any, ...]) -> Hit:
    source, path, revision_id, ordinal, headings, start, end, text, title, tags, meta, score = row
    return Hit(
        source=source,
        path=path,
        heading_path=tuple(headings),
        byte_start=start,
        byte_end=end,
        score=score,
        text=text,
        title=title,
        tags=tuple(tags),
        metadata=meta,
        revision_id=revision_id,
        ordinal=ordinal,
    )
