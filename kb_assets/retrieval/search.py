"""Search: from a question to passages, both sides in one snapshot.

Each side names its best chunks; of every chunk that one of them names, both scores are known
exactly, and the fused score orders them. Neighbours become one passage.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.embeddings.embedder import Embedder, Vectors
from kb_assets.embeddings.request import embed_query
from kb_assets.embeddings.space import Space, live_space_in
from kb_assets.errors import KbError, ProviderRefusedError, ProviderUnavailableError
from kb_assets.retrieval.fusion import Candidate, fuse
from kb_assets.retrieval.hits import Hit, Results
from kb_assets.retrieval.lexical import LexicalScores
from kb_assets.retrieval.passages import Passage, passages_of
from kb_assets.retrieval.query import Mode, Query
from kb_assets.retrieval.rerank import Reranker
from kb_assets.retrieval.snapshot import Snapshot
from kb_assets.retrieval.stopwatch import Stopwatch
from kb_assets.settings import SearchSettings

POOL = 30
"""The candidates each side names, at the least; fused scores do not depend on it."""

LEAST_IN_VIEW = 100
MOST_IN_VIEW = 1000
"""How many neighbours the index keeps in view (`hnsw.ef_search`); the most is pgvector's bound."""

VECTOR_WEIGHT = 0.45
HASH_VECTOR_WEIGHT = 0.2
"""Hashed words say little that BM25 does not say better."""

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Scope:
    """What the reader is: what row-level security must be told of a caller.

    Attributes:
        source_ids: The sources the caller may see.
        tags: The tags the documents must have one of; none means any.
    """

    source_ids: tuple[int, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Results, and how they came about.

    Attributes:
        results: What is shown.
        candidates: The chunks that either side named, best first.
        words: What the question's words scored; None if they were not asked.
    """

    results: Results
    candidates: tuple[Candidate, ...]
    words: LexicalScores | None


@dataclass(frozen=True, slots=True)
class Searcher:
    """Searches one space, for one kind of reader.

    Attributes:
        database: Where readers, or callers, connect; its transactions are snapshots.
        space: The space that is asked.
        embedder: The embedder of that space.
        settings: How both sides are joined.
        reranker: Who orders passages anew; None if nobody does.
        rerank_candidates: How many passages the reranker is shown.
        scope: What a caller may see; None for readers, who see everything.
    """

    database: Database
    space: Space
    embedder: Embedder
    settings: SearchSettings
    reranker: Reranker | None = None
    rerank_candidates: int = 0
    scope: Scope | None = None

    def find(self, query: Query) -> Found:
        """Return the live passages that answer a query, best first, and how they were found.

        Where the embedding provider or the reranker cannot be asked, the rest is done without,
        and a note says so.

        Raises:
            TextRefusedError: Only meaning was asked for, and the query has no usable vector.
            ProviderRefusedError: Only meaning was asked for, and the provider refuses.
            ProviderUnavailableError: Only meaning was asked for, and the provider is away.
            DatabaseUnavailableError: The database is away, or needed more than its time.
        """
        watch, notes = Stopwatch(), list[str]()
        with watch.part("embed"):
            mode, vector = self._embedded(query, notes)
        with self.opened(query) as connection:
            looking = _Looking(self, connection, query, mode, vector, watch)
            candidates, passages = looking.look(self._wanted(query))
            with watch.part("fetch"):
                hits = looking.snapshot.fetch(passages)
        if looking.snapshot.words_missing and mode != "vector":
            notes.append("Not all words were analysed yet, so some are not found: run `kb index`.")
        if self.reranker is not None and query.rerank and hits:
            with watch.part("rerank"):
                hits = _reranked(self.reranker, query, hits, notes)
        results = Results(
            hits=tuple(hit for hit in hits if _is_good_enough(hit, query))[: query.limit],
            mode=mode,
            space=self.space.name if vector is not None else "",
            provider=self.space.model.provider if vector is not None else "",
            notes=tuple(notes),
            seconds=watch.seconds(),
            generation=looking.snapshot.generation,
        )
        return Found(results, tuple(candidates), looking.words)

    @property
    def vector_weight(self) -> float:
        """The weight of meaning in a convex score."""
        if self.settings.vector_weight is not None:
            return self.settings.vector_weight
        return HASH_VECTOR_WEIGHT if self.space.model.provider == "hash" else VECTOR_WEIGHT

    def _wanted(self, query: Query) -> int:
        reranked = self.reranker is not None and query.rerank
        return max(query.limit, self.rerank_candidates) if reranked else query.limit

    def _embedded(self, query: Query, notes: list[str]) -> tuple[Mode, Vectors | None]:
        """Return the mode that is left, and the question's vector if there is one."""
        if query.mode == "lexical":
            return "lexical", None
        try:
            return query.mode, embed_query(self.embedder, query.text)
        except KbError as error:
            if query.mode == "vector":
                raise
            notes.append(
                "The question could not be embedded, so these were found by words alone. "
                f"{error.what} {error.why}".strip()
            )
            return "lexical", None

    @contextmanager
    def opened(self, query: Query) -> Iterator[psycopg.Connection[Any]]:
        """Lend a transaction that sees what the reader or caller may see."""
        with self.database.transaction() as connection:
            self._prepare(connection, query)
            yield connection

    def _prepare(self, connection: psycopg.Connection[Any], query: Query) -> None:
        in_view = min(MOST_IN_VIEW, max(LEAST_IN_VIEW, query.limit))
        milliseconds = max(1, int(self.settings.timeout_seconds * 1000))
        connection.execute(
            _statements("prepare_search"),
            {"ef_search": str(in_view), "timeout": str(milliseconds)},
            prepare=True,
        )
        if self.scope is not None:
            tags = list(self.scope.tags)
            connection.execute(
                _statements("limit_to_caller"),
                {"source_ids": list(self.scope.source_ids), "tags": tags, "any_tag": not tags},
            )


class _Looking:
    """One query in one snapshot."""

    def __init__(
        self,
        searcher: Searcher,
        connection: psycopg.Connection[Any],
        query: Query,
        mode: Mode,
        vector: Vectors | None,
        watch: Stopwatch,
    ) -> None:
        self._searcher = searcher
        self._query = query
        self._mode = mode
        self._vector = vector
        self._watch = watch
        limited_by_tags = searcher.scope is not None and bool(searcher.scope.tags)
        with watch.part("filter"):
            by_documents = limited_by_tags or query.filters.look_at_documents
            self.snapshot = Snapshot(connection, query.filters, by_documents=by_documents)
        self.words: LexicalScores | None = None
        if mode != "vector":
            with watch.part("lexical"):
                self.words = self.snapshot.score_words(query.text)

    def look(self, wanted: int) -> tuple[list[Candidate], list[Passage]]:
        """Return candidates and passages, best first; fewer only if there are no more."""
        pool = max(POOL, 2 * wanted)
        while True:
            candidates, named = self._candidates(pool)
            passages = passages_of(
                candidates, wanted, merge=self._query.merge, per_document=self._query.per_document
            )
            if len(passages) == wanted or named < pool:
                return candidates, passages
            pool *= 4

    def _candidates(self, pool: int) -> tuple[list[Candidate], int]:
        """Return what both sides name, best first, and how many the more talkative side named."""
        by_key: dict[tuple[int, int], Candidate] = {}
        near = worded = 0
        if self._vector is not None:
            with self._watch.part("vector"):
                near = self._add_neighbours(by_key, self._vector, pool)
        if self.words is not None:
            with self._watch.part("lexical"):
                worded = self._add_worded(by_key, self.words, pool)
        candidates = list(by_key.values())
        fuse(
            candidates,
            mode=self._mode,
            fusion=self._searcher.settings.fusion,
            vector_weight=self._searcher.vector_weight,
        )
        candidates.sort(key=lambda one: (-one.score, one.revision_id, one.ordinal))
        return candidates, max(near, worded)

    def _add_neighbours(
        self, by_key: dict[tuple[int, int], Candidate], vector: Vectors, pool: int
    ) -> int:
        found = self.snapshot.nearest(self._searcher.space, vector, pool)
        for rank, one in enumerate(found, start=1):
            made = Candidate(one.revision_id, one.ordinal, one.similarity, vector_rank=rank)
            by_key[one.revision_id, one.ordinal] = made
            if self.words is None:
                continue
            made.bm25 = made.share = 0.0
            if one.source_id is not None and one.position is not None:
                made.place = one.source_id, one.position
                made.bm25 = self.words.of(one.source_id, one.position)
                made.share = self.words.share(one.source_id, made.bm25)
        return len(found)

    def _add_worded(
        self, by_key: dict[tuple[int, int], Candidate], words: LexicalScores, pool: int
    ) -> int:
        top = words.top(pool)
        new: list[Candidate] = []
        for place, revision_id, ordinal in self.snapshot.chunks_at([one[:2] for one in top]):
            known = by_key.get((revision_id, ordinal))
            if known is None:
                source_id, position, score = top[place - 1]
                share = words.share(source_id, score)
                known = Candidate(revision_id, ordinal, bm25=score, share=share)
                known.place = source_id, position
                by_key[revision_id, ordinal] = known
                new.append(known)
            known.lexical_rank = place
        if new and self._vector is not None:
            near = self.snapshot.similarities(self._searcher.space, self._vector, new)
            for one in new:
                one.similarity = near.get((one.revision_id, one.ordinal))
        return len(top)


@dataclass(frozen=True, slots=True)
class IndexState:
    """What there is to search.

    Attributes:
        space: The space that answers; None before the first run.
        sources: The names of all sources that were ever indexed.
        generation: Grows with everything that changes what a search may find.
    """

    space: Space | None
    sources: frozenset[str]
    generation: int


def index_state(database: Database) -> IndexState:
    """Return what there is to search."""
    with database.transaction() as connection:
        row = connection.execute(_statements("find_index_state"), prepare=True).fetchone()
        assert row is not None
        return IndexState(live_space_in(connection), frozenset(row[1]), row[0])


def source_ids(database: Database, names: Sequence[str]) -> tuple[int, ...]:
    """Return the ids of sources by their names, or of all if none is named."""
    with database.transaction() as connection:
        rows = connection.execute(_statements("find_source_ids"), {"names": list(names)})
        return tuple(source_id for (source_id,) in rows)


def _reranked(
    reranker: Reranker, query: Query, hits: Sequence[Hit], notes: list[str]
) -> tuple[Hit, ...]:
    try:
        scores = reranker.scores(query.text, [hit.text for hit in hits])
    except (ProviderUnavailableError, ProviderRefusedError) as error:
        notes.append(f"Not reranked. {error.what} {error.why}".strip())
        return tuple(hits)
    scored = (
        replace(hit, score=score, rerank_score=score)
        for hit, score in zip(hits, scores, strict=True)
    )
    return tuple(sorted(scored, key=lambda hit: -hit.score))


def _is_good_enough(hit: Hit, query: Query) -> bool:
    return query.min_score is None or hit.score >= query.min_score
