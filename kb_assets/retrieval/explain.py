"""Why a search found what it found: each hit's words, its nearness, and where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from kb_assets.database.statements import Statements
from kb_assets.retrieval.fusion import Candidate
from kb_assets.retrieval.hits import Hit, Results
from kb_assets.retrieval.query import Query
from kb_assets.retrieval.search import Found, Searcher

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class ExplainedHit:
    """A hit, and how it came to be one.

    Attributes:
        hit: The passage.
        terms: What each term of the question that occurs in it adds to BM25, the most first.
        lexical_share: BM25 as a share, 0 to 1, of what the question's terms could give.
        vector_rank: Its rank by meaning; None if it was not among the nearest.
        lexical_rank: Its rank by words; None if it was not among the best.
        run_id: The run that read the document's revision.
        read_at: When that was.
    """

    hit: Hit
    terms: Mapping[str, float]
    lexical_share: float | None
    vector_rank: int | None
    lexical_rank: int | None
    run_id: str | None
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A search, explained.

    Attributes:
        results: What was found.
        hits: Each hit, best first.
        fusion: How both sides were joined: `convex` or `rrf`.
        vector_weight: The share of meaning in the fused score.
        terms: The terms that were looked for, by language, with how often each was asked for.
    """

    results: Results
    hits: tuple[ExplainedHit, ...]
    fusion: str
    vector_weight: float
    terms: Mapping[str, Mapping[str, int]]


def explain(searcher: Searcher, query: Query) -> Explanation:
    """Search, and say how each hit came to be one.

    Raises:
        KbError: What `Searcher.find` raises.
    """
    found = searcher.find(query)
    revision_ids = [hit.revision_id for hit in found.results]
    with searcher.opened(query) as connection:
        rows = connection.execute(_statements("find_origins"), {"revision_ids": revision_ids})
        origins = {revision_id: (run_id, read_at) for revision_id, run_id, read_at in rows}
    best = {(one.revision_id, one.ordinal): one for one in found.candidates}
    return Explanation(
        results=found.results,
        hits=tuple(
            _explained(found, hit, _best_chunk(hit, best), origins.get(hit.revision_id))
            for hit in found.results
        ),
        fusion=searcher.settings.fusion,
        vector_weight=searcher.vector_weight,
        terms=found.words.terms if found.words else {},
    )


def _best_chunk(hit: Hit, candidates: Mapping[tuple[int, int], Candidate]) -> Candidate:
    chunks = [
        candidates[hit.revision_id, ordinal]
        for ordinal in range(hit.ordinal, hit.last_ordinal + 1)
        if (hit.revision_id, ordinal) in candidates
    ]
    return max(chunks, key=lambda one: one.score)


def _explained(
    found: Found, hit: Hit, chunk: Candidate, origin: tuple[str | None, datetime] | None
) -> ExplainedHit:
    terms: dict[str, float] = {}
    if found.words is not None and chunk.place is not None:
        terms = found.words.contributions(*chunk.place)
    run_id, read_at = origin or (None, None)
    return ExplainedHit(
        hit=hit,
        terms=dict(sorted(terms.items(), key=lambda item: -item[1])),
        lexical_share=chunk.share,
        vector_rank=chunk.vector_rank,
        lexical_rank=chunk.lexical_rank,
        run_id=run_id,
        read_at=read_at,
    )
