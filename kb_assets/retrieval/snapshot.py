"""One search in one snapshot: which chunks may be found, which are best, and what they say."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import psycopg
from psycopg.sql import SQL, Composable

from kb_assets.database.statements import Statements
from kb_assets.embeddings.embedder import Vectors
from kb_assets.embeddings.space import Space
from kb_assets.retrieval.fusion import Candidate
from kb_assets.retrieval.hits import Hit
from kb_assets.retrieval.lexical import (
    Integers,
    LexicalScores,
    SourceWords,
    ranges_of,
    score_chunks,
)
from kb_assets.retrieval.passages import Passage
from kb_assets.retrieval.query import Filters
from kb_assets.retrieval.vectors import (
    Neighbour,
    exact_is_faster,
    nearest_by_index,
    nearest_exactly,
    vector_parameter,
)

_statements = Statements.beside(__file__)


@dataclass(slots=True)
class Matching:
    """What a filter admits.

    Attributes:
        revision_ids: Live revisions.
        ranges: Of each source, first ordinals and numbers of their chunks.
    """

    revision_ids: list[int] = field(default_factory=list)
    ranges: dict[int, Integers] = field(default_factory=dict)

    @property
    def chunks(self) -> int:
        """How many chunks they have."""
        return sum(int(pairs[:, 1].sum()) for pairs in self.ranges.values())


class Snapshot:
    """The state of the index that a transaction sees, as far as filters admit it.

    Args:
        connection: In the transaction.
        filters: What may be found.
        by_documents: Whether single documents must be looked at, not only their sources.

    Attributes:
        generation: The state of the index.
        words_missing: Whether a source's words were not analysed yet.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], filters: Filters, *, by_documents: bool
    ) -> None:
        self._connection = connection
        self._filters = filters
        self._source_ids: list[int] = []
        self._words: list[SourceWords] = []
        self.generation = 0
        self._find_sources()
        self.words_missing = len(self._words) < len(self._source_ids)
        self._matching: Matching | None = None
        if by_documents:
            condition, named = filters.condition()
            self._matching = self._match(condition, named)

    def score_words(self, question: str) -> LexicalScores | None:
        """Score all chunks by the words of a question; None if none were ever analysed."""
        if not self._words:
            return None
        wanted = None if self._matching is None else self._matching.ranges
        return score_chunks(self._connection, self._words, question, wanted)

    def nearest(self, space: Space, vector: Vectors, count: int) -> list[Neighbour]:
        """Return the chunks nearest to a vector; fewer than `count` only if there are no more."""
        named = {"vector": vector_parameter(space, vector), "limit": count}
        found: list[Neighbour] = []
        if not self._few_enough(space, count):
            found = self._by_index(space, named)
        if len(found) < count:
            admitted = self._matching or self._match(SQL("true"), {})
            found = nearest_exactly(self._connection, space, admitted.revision_ids, named)
        return found

    def similarities(
        self, space: Space, vector: Vectors, candidates: Sequence[Candidate]
    ) -> dict[tuple[int, int], float]:
        """Return how near candidates are, by revision and ordinal; not of those without vector."""
        rows = self._connection.execute(
            _statements("find_similarities", embeddings=space.table),
            {
                "vector": vector_parameter(space, vector),
                "revision_ids": [one.revision_id for one in candidates],
                "ordinals": [one.ordinal for one in candidates],
            },
            prepare=True,
        )
        return {(revision_id, ordinal): near for revision_id, ordinal, near in rows}

    def chunks_at(self, places: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
        """Return which chunks ordinals of sources stand for: place, revision and its ordinal."""
        return self._connection.execute(
            _statements("find_chunks_by_position"),
            {"source_ids": [one for one, _ in places], "positions": [at for _, at in places]},
            prepare=True,
        ).fetchall()

    def fetch(self, passages: Sequence[Passage]) -> tuple[Hit, ...]:
        """Return what passages say, and where they stand, in their order."""
        rows = self._connection.execute(
            _statements("fetch_passages"),
            {
                "revision_ids": [one.revision_id for one in passages],
                "bests": [one.best.ordinal for one in passages],
                "firsts": [one.first for one in passages],
                "lasts": [one.last for one in passages],
            },
            prepare=True,
        ).fetchall()
        return tuple(_hit(passage, row) for passage, row in zip(passages, rows, strict=True))

    def _find_sources(self) -> None:
        rows = self._connection.execute(
            _statements("find_searched_sources"),
            {"names": list(self._filters.sources)},
            prepare=True,
        )
        for source_id, language, chunks, tokens, next_ordinal, generation in rows:
            self.generation = generation
            self._source_ids.append(source_id)
            if language is not None:
                self._words.append(SourceWords(source_id, language, chunks, tokens, next_ordinal))

    def _match(self, condition: Composable, named: dict[str, Any]) -> Matching:
        statement = "find_matching_documents" if self.words_missing else "find_matching"
        rows = self._connection.execute(
            _statements(statement, condition=condition),
            named | {"source_ids": self._source_ids},
            binary=True,
        )
        matching = Matching()
        for source_id, revisions, ranges in rows:
            matching.revision_ids += numpy.frombuffer(revisions, ">i8").tolist()
            matching.ranges[source_id] = ranges_of(ranges or b"")
        return matching

    def _few_enough(self, space: Space, count: int) -> bool:
        """Say whether so few chunks may be found that looking at all of them is faster."""
        if self.words_missing:
            return not self._source_ids
        chunks = self._matching.chunks if self._matching else sum(one.chunks for one in self._words)
        return exact_is_faster(self._connection, space, chunks, count)

    def _by_index(self, space: Space, named: dict[str, Any]) -> list[Neighbour]:
        if self._matching is not None:
            condition, values = self._filters.condition()
            named = named | values
            return nearest_by_index(self._connection, space, named, condition, on_documents=True)
        condition = SQL("true")
        if self._filters.sources:
            condition = SQL("c.source_id = any(%(source_ids)s)")
            named = named | {"source_ids": self._source_ids}
        return nearest_by_index(self._connection, space, named, condition, on_documents=False)


def _hit(passage: Passage, row: tuple[Any, ...]) -> Hit:
    source, path, headings, start, end, text, title, tags, metadata = row
    best = passage.best
    return Hit(
        source=source,
        path=path,
        heading_path=tuple(headings),
        byte_start=start,
        byte_end=end,
        score=best.score,
        text=text,
        title=title,
        tags=tuple(tags),
        metadata=metadata,
        revision_id=passage.revision_id,
        ordinal=passage.first,
        last_ordinal=passage.last,
        vector_score=best.similarity,
        lexical_score=best.bm25,
        fused_score=best.fused,
    )
