"""Searching past a cache: what was found for the same before, in the same state of the index."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from kb_assets.embeddings.space import Space
from kb_assets.retrieval.cache.keys import cache_key
from kb_assets.retrieval.cache.stores import Cache
from kb_assets.retrieval.cache.values import bytes_of_results, results_of_bytes
from kb_assets.retrieval.hits import Results
from kb_assets.retrieval.query import Query
from kb_assets.retrieval.stopwatch import Stopwatch
from kb_assets.settings import Settings


@dataclass(frozen=True, slots=True)
class CachedSearch:
    """Answers repeated searches from a cache.

    Attributes:
        cache: Where answers are kept.
        settings: What decides an answer besides the query.
        space: The space that answers.
        generation: The state of the index, read before the search.
    """

    cache: Cache
    settings: Settings
    space: Space
    generation: int

    def find(self, query: Query, search: Callable[[Query], Results]) -> Results:
        """Return an earlier answer, or search and keep what was found.

        An answer is kept under the state it was found in, which may be later than the one read
        before. One that had to do without something is not kept.
        """
        watch = Stopwatch()
        value = self.cache.get(self._key(query, self.generation))
        known = None if value is None else results_of_bytes(value)
        if known is not None:
            return replace(known, cached=True, seconds={"embed": 0.0, **watch.seconds()})
        results = search(query)
        if not results.notes:
            self.cache.put(self._key(query, results.generation), bytes_of_results(results))
        return results

    def _key(self, query: Query, generation: int) -> bytes:
        return cache_key(
            query,
            generation=generation,
            space_id=self.space.id,
            search=self.settings.search,
            rerank=self.settings.rerank,
        )
