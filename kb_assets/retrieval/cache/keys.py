"""What cached values are found by: everything that decides them, and nothing of it legible."""

from typing import Any

from kb_assets.fingerprints import settings_fingerprint
from kb_assets.retrieval.conditions import to_json
from kb_assets.retrieval.query import Caller, Filters, Query
from kb_assets.settings import RerankSettings, SearchSettings

VERSION = 1
"""Raised when answers are found, ordered or written down in another way."""


def cache_key(
    query: Query,
    *,
    generation: int,
    space_id: int | None,
    search: SearchSettings,
    rerank: RerankSettings,
) -> bytes:
    """Return the key of an answer: the same for the same question to the same index.

    Whatever changes what may be found raises the generation, in the same transaction. Answers
    to earlier generations are then out of reach, and expire.

    Args:
        query: What is asked, and for whom.
        generation: Of `kb.index_state`, read where the search reads: in its snapshot or before.
        space_id: The space that is asked; None if none is.
        search: How both sides are joined.
        rerank: Who orders the hits anew.
    """
    decides = {
        "version": VERSION,
        "generation": generation,
        "space": space_id,
        "text": query.text,
        "limit": query.limit,
        "mode": query.mode,
        "filters": filters_json(query.filters),
        "per_document": query.per_document,
        "min_score": query.min_score,
        "merge": query.merge,
        "rerank": _rerank(rerank) if query.rerank else None,
        "search": search.model_dump(include={"language", "fusion", "vector_weight"}),
        "caller": _caller(query.caller),
    }
    return settings_fingerprint(decides)


def filters_json(filters: Filters) -> dict[str, Any]:
    """Return filters as JSON, without those that are not set."""
    given = {
        "sources": list(filters.sources),
        "path_prefix": filters.path_prefix,
        "tags": list(filters.tags),
        "metadata": filters.metadata,
        "where": None if filters.where is None else to_json(filters.where),
    }
    return {name: value for name, value in given.items() if value}


def _caller(caller: Caller | None) -> dict[str, Any] | None:
    return None if caller is None else {"sources": caller.sources, "tags": caller.tags}


def _rerank(settings: RerankSettings) -> dict[str, Any]:
    return settings.model_dump(include={"url", "model", "candidates"})
