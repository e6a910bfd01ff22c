"""Searching, and answering from what was found."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.open import embedder_for
from kb_assets.embeddings.space import Space
from kb_assets.errors import SpaceError
from kb_assets.knowledge_base.connections import Connections, opened_once
from kb_assets.retrieval.answer import Reply, answer
from kb_assets.retrieval.cache.cached import CachedSearch
from kb_assets.retrieval.cache.open import open_cache
from kb_assets.retrieval.cache.stores import Cache
from kb_assets.retrieval.chat import Chat
from kb_assets.retrieval.conditions import Condition
from kb_assets.retrieval.explain import Explanation, explain
from kb_assets.retrieval.hits import Results
from kb_assets.retrieval.query import Caller, Filters, Mode, Query
from kb_assets.retrieval.rerank import Reranker
from kb_assets.retrieval.search import IndexState, Scope, Searcher, index_state, source_ids
from kb_assets.retrieval.where import as_condition


class Searching(Connections):
    """Searching, and answering from what was found."""

    def search(
        self,
        text: str,
        *,
        limit: int = 10,
        sources: tuple[str, ...] = (),
        path_prefix: str = "",
        tags: tuple[str, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        where: str | Mapping[str, Any] | Condition | None = None,
        mode: Mode | None = None,
        per_document: int = 0,
        min_score: float | None = None,
        merge: bool = True,
        rerank: bool = True,
        caller: Caller | str | None = None,
    ) -> Results:
        """Return the live passages that answer a question best, best first.

        Args:
            text: The question.
            limit: The most hits wanted, 1 to 1000; fewer come back only if there are no more.
            sources: Only documents of one of these sources.
            path_prefix: Only documents whose path starts with this.
            tags: Only documents with all of these tags.
            metadata: Only documents whose metadata contains this: equal values, and for lists
                and objects at least what is given.
            where: Only documents of which this is true: text such as
                `tags has "api" and metadata.year >= 2024`, the same as JSON, or a condition.
            mode: `hybrid`, `vector` or `lexical`; by default what the settings say.
            per_document: The most hits from one document; 0 sets no bound.
            min_score: Only hits with at least this score.
            merge: Whether chunks that stand side by side and are both found become one passage.
            rerank: Whether the reranker is asked, if there is one.
            caller: For whom the search is made, or the name of one in the settings; the database
                shows what they may see.

        Raises:
            SettingsError: It cannot be searched for, or a source does not exist.
            SpaceError: Nothing was indexed yet.
            ProviderUnavailableError: The question could not be embedded.
        """
        query, searcher, generation = self._prepared(
            text,
            sources=sources,
            path_prefix=path_prefix,
            tags=tags,
            metadata=metadata,
            where=where,
            limit=limit,
            mode=mode,
            per_document=per_document,
            min_score=min_score,
            merge=merge,
            rerank=rerank,
            caller=caller,
        )

        def search(query: Query) -> Results:
            return searcher.find(query).results

        if self._cache is None:
            results = search(query)
        else:
            cached = CachedSearch(self._cache, self.settings, searcher.space, generation)
            results = cached.find(query, search)
        self.query_log.add(query, results)
        return results

    def explain(self, text: str, *, limit: int = 10, **chosen: Any) -> Explanation:  # noqa: ANN401
        """Search as `search` does, and say how each hit came to be one; nothing is cached.

        Args:
            text: The question.
            limit: The most hits wanted, 1 to 1000.
            chosen: What else `search` takes.

        Raises:
            KbError: What `search` raises.
        """
        query, searcher, _ = self._prepared(text, limit=limit, **chosen)
        return explain(searcher, query)

    def ask(
        self,
        question: str,
        *,
        sources: tuple[str, ...] = (),
        path_prefix: str = "",
        tags: tuple[str, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        where: str | Mapping[str, Any] | Condition | None = None,
        caller: Caller | str | None = None,
    ) -> Reply:
        """Return the chat model's answer from the passages that `search` finds, with its sources.

        The filters are those of `search`. The model is not asked if nothing reaches
        `answer.min_score`.

        Raises:
            SettingsError: It cannot be searched for, or a source does not exist.
            SpaceError: Nothing was indexed yet.
            ProviderRefusedError: There is no key for the chat model, or it refuses.
            ProviderUnavailableError: The question could not be embedded, or the model not asked.
        """
        question = Query(question).text
        chat = self._chat
        results = self.search(
            question,
            limit=self.settings.answer.passages,
            sources=sources,
            path_prefix=path_prefix,
            tags=tags,
            metadata=metadata,
            where=where,
            caller=caller,
        )
        return answer(question, results, chat)

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.settings.answer)

    @opened_once
    def _cache(self) -> Cache | None:
        return open_cache(self.settings.cache, lambda: self.database, self.urls.reader)

    def _live_space(self) -> Space:
        return _live(index_state(self.reader))

    def _prepared(
        self,
        text: str,
        *,
        mode: Mode | None = None,
        **chosen: Any,  # noqa: ANN401
    ) -> tuple[Query, Searcher, int]:
        """Return a question as it is asked, who answers it, and the index's generation."""
        query = self._query(text, mode=mode or self.settings.search.mode, **chosen)
        state = index_state(self.reader)
        space = _live(state)
        searcher = self._searcher(space, self._embedder(space), query.caller)
        return _among(query, self._sources_to_search(state)), searcher, state.generation

    def _query(
        self,
        text: str,
        *,
        sources: tuple[str, ...] = (),
        path_prefix: str = "",
        tags: tuple[str, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        where: str | Mapping[str, Any] | Condition | None = None,
        caller: Caller | str | None = None,
        **chosen: Any,  # noqa: ANN401
    ) -> Query:
        for source in sources:
            self.settings.source(source)
        condition = None if where is None else as_condition(where)
        filters = Filters(sources, path_prefix, tags, metadata or {}, condition)
        if isinstance(caller, str):
            known = self.settings.caller(caller)
            caller = Caller(known.sources, known.tags, known.name)
        return Query(text, filters=filters, caller=caller, **chosen)

    def _searcher(self, space: Space, embedder: Embedder, caller: Caller | None = None) -> Searcher:
        return Searcher(
            database=self.reader if caller is None else self.callers,
            space=space,
            embedder=embedder,
            settings=self.settings.search,
            reranker=self._reranker,
            rerank_candidates=self.settings.rerank.candidates,
            scope=None if caller is None else self._scope(caller),
        )

    def _scope(self, caller: Caller) -> Scope:
        """Return what a caller may see; of sources that no run has indexed yet, nothing."""
        for source in caller.sources:
            self.settings.source(source)
        return Scope(source_ids(self.reader, caller.sources), caller.tags)

    @cached_property
    def _reranker(self) -> Reranker | None:
        return Reranker(self.settings.rerank) if self.settings.rerank.url else None

    def _embedder(self, space: Space) -> Embedder:
        if space.id not in self._embedders:
            self._embedders[space.id] = embedder_for(space.model, self.settings.embedding)
        return self._embedders[space.id]

    def _sources_to_search(self, state: IndexState) -> tuple[str, ...]:
        """Return the configured sources if the database has others, too; else none."""
        configured = tuple(source.name for source in self.settings.sources)
        return () if state.sources <= set(configured) else configured


def _live(state: IndexState) -> Space:
    if state.space is None:
        raise SpaceError(
            "There is nothing to search yet.",
            why="No run has embedded anything.",
            fix="Run `kb index`.",
        )
    return state.space


def _among(query: Query, sources: tuple[str, ...]) -> Query:
    """Return a query that is for these sources, unless it names some itself."""
    if query.filters.sources or not sources:
        return query
    return replace(query, filters=replace(query.filters, sources=sources))
