"""A knowledge base as a library: everything the `kb` command and Dagster's assets do."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from kb_assets.chunks.plan import recipe_of
from kb_assets.chunks.stage import ChunkReport, chunk_documents
from kb_assets.database.connect import Database, DatabaseUrls, resolve_urls
from kb_assets.database.migrate import require_current_schema, upgrade
from kb_assets.database.row_security import require_bound
from kb_assets.database.run import Run
from kb_assets.documents.stage import ReadReport, read_documents
from kb_assets.documents.store import registered_sources
from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.open import embedder_for
from kb_assets.embeddings.space import Space, live_space
from kb_assets.embeddings.stage import EmbedReport, embed_chunks
from kb_assets.errors import SettingsError, SpaceError
from kb_assets.fingerprints import Shard
from kb_assets.forecast.forecast import Forecast, forecast
from kb_assets.index.account import Account, Contents, account_for, contents_of
from kb_assets.index.collect import collect_unused_vectors
from kb_assets.index.merge import merge_postings
from kb_assets.index.publish import PublishReport, publish_documents
from kb_assets.index.space import (
    SpaceReport,
    describe_spaces,
    drop_space,
    find_space,
    promote_space,
    require_promotable,
    rollback_space,
)
from kb_assets.index.story import Story, stories_of
from kb_assets.index.vectors import VectorIndexReport, maintain_vector_indexes
from kb_assets.retrieval.answer import Reply, answer
from kb_assets.retrieval.chat import Chat
from kb_assets.retrieval.compare_spaces import Comparison, compare
from kb_assets.retrieval.conditions import Condition
from kb_assets.retrieval.evaluate import EvaluationReport, evaluate, golden_questions
from kb_assets.retrieval.evaluations import Evaluation, past_evaluations
from kb_assets.retrieval.hits import Results
from kb_assets.retrieval.log import QueryLog, forget_old_queries
from kb_assets.retrieval.measurement import DEPTH, Ask, Remembering, Watch
from kb_assets.retrieval.query import Caller, Filters, Mode, Query
from kb_assets.retrieval.rerank import Reranker
from kb_assets.retrieval.search import Scope, Searcher, source_ids
from kb_assets.retrieval.suggest import Dropped, Suggestion, suggest_questions
from kb_assets.retrieval.verdict import LEADING
from kb_assets.retrieval.where import as_condition
from kb_assets.settings import Settings

SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What one run did to one shard, stage by stage."""

    shard: Shard
    read: ReadReport
    chunked: ChunkReport
    embedded: tuple[EmbedReport, ...]
    published: PublishReport


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What one run did.

    Attributes:
        shards: Each shard, in order.
        vectors: The index of each space that is not retired.
        collected: Texts whose vectors were deleted, because nothing had used them for long.
    """

    shards: tuple[ShardReport, ...]
    vectors: tuple[VectorIndexReport, ...]
    collected: int


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """Where a shard's documents are, and what readers can find in it."""

    shard: str
    account: Account
    contents: Contents


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a knowledge base."""

    shards: tuple[ShardStatus, ...]
    spaces: tuple[SpaceReport, ...]

    @property
    def is_settled(self) -> bool:
        """Whether every document is accounted for and nothing waits."""
        return all(shard.account.is_settled for shard in self.shards)


class KnowledgeBase:
    """A knowledge base: its settings, its database, and what can be done with them.

    Safe to use from several threads. Connections are opened when they are needed; close it,
    or use it as a context manager.
    """

    def __init__(self, settings: Settings) -> None:
        """Remember the settings; nothing is connected or started yet."""
        self.settings = settings
        self._embedders: dict[int, Embedder] = {}

    @classmethod
    def open(cls, config: Path | None = None, **overrides: Any) -> "KnowledgeBase":  # noqa: ANN401
        """Return the knowledge base that a `kb.toml` describes.

        Args:
            config: The file; by default `$KB_CONFIG`, or `kb.toml` in the current folder.
            overrides: Top-level settings that win over file and environment.

        Raises:
            SettingsError: The settings cannot be used.
        """
        return cls(Settings.load(config, **overrides))

    @cached_property
    def urls(self) -> DatabaseUrls:
        """Where each role connects; starts the embedded server if no other one is set."""
        return resolve_urls(self.settings)

    @cached_property
    def database(self) -> Database:
        """Where runs write.

        Raises:
            SchemaError: The schema is behind or ahead of this code.
        """
        return _checked(Database(self.urls.writer))

    @cached_property
    def reader(self) -> Database:
        """Where searches read.

        Raises:
            SchemaError: The schema is behind or ahead of this code.
        """
        return _checked(
            Database(self.urls.reader, application_name="kb_assets search", snapshots=True)
        )

    @cached_property
    def callers(self) -> Database:
        """Where searches of callers read, as a role that row-level security binds.

        Raises:
            SettingsError: There is no such role, or it would see everything.
            SchemaError: The schema is behind or ahead of this code.
        """
        if not self.urls.caller:
            raise SettingsError(
                "Nobody can search as a caller.",
                why="KB_CALLER_DATABASE_URL does not say as which role.",
                fix="Make the role kb_caller (docs/deploy.md), and set the variable.",
            )
        return _checked(
            Database(self.urls.caller, application_name="kb_assets caller", snapshots=True),
            is_bound=True,
        )

    @cached_property
    def query_log(self) -> QueryLog:
        """Where searches are noted, for as long as `search.log_days` says."""
        return QueryLog(lambda: self.database, self.settings.search)

    def __enter__(self) -> "KnowledgeBase":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; they are opened again when needed."""
        for name in ("query_log", "database", "reader", "callers"):
            opened = self.__dict__.pop(name, None)
            if opened is not None:
                opened.close()

    def upgrade(self) -> None:
        """Bring the database's schema up to this code."""
        upgrade(self.urls.migrator)

    def run(
        self,
        *,
        run_id: str = "",
        say: Callable[[str], None] = lambda _: None,
        confirm_deletes: bool = False,
        confirm_cost: bool = False,
        verify: bool = False,
    ) -> Run:
        """Return what the stages of one run share.

        Args:
            run_id: Who is at work; made up if it is not given.
            say: Told, in a sentence, what takes long or waits.
            confirm_deletes: Overrule the mass-delete guard.
            confirm_cost: Overrule the cost limit.
            verify: Trust no version token: read and compare everything.
        """
        return Run(
            database=self.database,
            settings=self.settings,
            run_id=run_id or f"library-{uuid.uuid4()}",
            say=say,
            confirm_deletes=confirm_deletes,
            confirm_cost=confirm_cost,
            verify=verify,
        )

    def index(self, shards: tuple[Shard, ...] = (), *, run: Run | None = None) -> IndexReport:
        """Bring shards up to date, all of them by default, and look after the vector indexes.

        Raises:
            KbError: A stage failed, or a new space could not be filled. What was done is kept,
                and the next run goes on.
        """
        run = run or self.run()
        reports = tuple(index_shard(run, shard) for shard in shards or self.settings.shards)
        collected = collect_unused_vectors(
            run.database, self.settings.limits.unused_vector_days * SECONDS_PER_DAY
        )
        merge_postings(run.database)
        forget_old_queries(run.database, self.settings.search.log_days)
        vectors = maintain_vector_indexes(run.database, collected=collected)
        for report in reports:
            for space in report.embedded:
                if space.failure is not None:
                    raise space.failure
        return IndexReport(reports, vectors, collected)

    def plan(self, shards: tuple[Shard, ...] = (), *, run: Run | None = None) -> Forecast:
        """Say what a run would read, split and embed, and what it would cost."""
        return forecast(run or self.run(), shards or self.settings.shards)

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
        caller: Caller | None = None,
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
            caller: For whom the search is made; the database shows what they may see.

        Raises:
            SettingsError: It cannot be searched for, or a source does not exist.
            SpaceError: Nothing was indexed yet.
            ProviderUnavailableError: The question could not be embedded.
        """
        for source in sources:
            self.settings.source(source)
        wanted = sources or self._sources_to_search()
        query = Query(
            text,
            limit,
            Filters(
                wanted,
                path_prefix,
                tags,
                metadata or {},
                where=None if where is None else as_condition(where),
            ),
            mode=mode or self.settings.search.mode,
            per_document=per_document,
            min_score=min_score,
            merge=merge,
            rerank=rerank,
            caller=caller,
        )
        return self._search(query)

    def ask(
        self,
        question: str,
        *,
        sources: tuple[str, ...] = (),
        path_prefix: str = "",
        tags: tuple[str, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        where: str | Mapping[str, Any] | Condition | None = None,
        caller: Caller | None = None,
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

    def status(self) -> Status:
        """Return where all documents are, and how far the spaces are."""
        return Status(
            shards=tuple(
                ShardStatus(
                    shard.key, account_for(self.reader, shard), contents_of(self.reader, shard)
                )
                for shard in self.settings.shards
            ),
            spaces=describe_spaces(self.reader),
        )

    def why(self, path: str, source: str | None = None) -> tuple[Story, ...]:
        """Return the story of the documents with that path.

        Raises:
            NotFoundError: No document has it.
        """
        return stories_of(self.reader, path, source)

    def spaces(self) -> tuple[SpaceReport, ...]:
        """Return every embedding space, oldest first, and how far it is."""
        return describe_spaces(self.reader)

    def promote_space(self, name: str, *, force: bool = False) -> Space:
        """Let a space answer from now on.

        Args:
            name: Its name or number.
            force: Whatever is said against it: it is incomplete, or answers worse.

        Raises:
            NotFoundError: There is no such space.
            SpaceError: It is not complete, has no usable index, or answers the golden questions
                worse than the one that answers now; or the last evaluation failed.
        """
        if not force:
            space = require_promotable(self.database, name)
            if space.state != "live" and self.settings.quality.questions is not None:
                self.compare_space(name).require_no_worse()
        return promote_space(self.database, name, force=force)

    def rollback_space(self) -> Space:
        """Let the space answer again that was live before.

        Raises:
            NotFoundError: No other space was ever live.
            SpaceError: It is not complete any more, or has no usable index.
        """
        return rollback_space(self.database)

    def compare_space(
        self, name: str, *, run_id: str = "", watch: Watch = lambda done, of: None
    ) -> Comparison:
        """Ask a space the golden questions, and the one that answers now, too.

        Args:
            name: Its name or number.
            run_id: Who is at work; made up if it is not given.
            watch: Told how many questions of how many were asked.

        Raises:
            SettingsError: No questions are configured, or they cannot be read.
            NotFoundError: There is no such space.
            SpaceError: It is the one that answers.
        """
        questions, _ = golden_questions(self.settings)
        live, other = self._live_space(), find_space(self.reader, name)
        if live.id == other.id:
            raise SpaceError(
                f"The space {live.name} is live.",
                why="It is what others are compared with.",
                fix="Name another one: `kb space list` shows them.",
            )
        return compare(
            self.database,
            questions,
            self._asking,
            live,
            other,
            self.settings.quality,
            run_id=run_id or f"library-{uuid.uuid4()}",
            watch=watch,
        )

    def evaluate(
        self,
        questions: Path | None = None,
        *,
        run_id: str = "",
        watch: Watch = lambda done, of: None,
    ) -> EvaluationReport:
        """Ask the golden questions, measure the answers, and store them with a verdict.

        Args:
            questions: Other questions than the configured ones; their verdict stops nothing.
            run_id: Who is at work; made up if it is not given.
            watch: Told how many questions of how many were asked.

        Raises:
            SettingsError: There are no questions, or they cannot be read.
            SpaceError: Nothing was indexed yet.
            ProviderUnavailableError: The questions could not be embedded.
        """
        asked, purpose = golden_questions(self.settings, questions)
        space = self._live_space()
        return evaluate(
            self.database,
            asked,
            self._asking(space),
            space,
            self.settings.quality,
            run_id=run_id or f"library-{uuid.uuid4()}",
            purpose=purpose,
            watch=watch,
        )

    def suggest_questions(
        self, number: int = 20, *, seed: int = 0, sources: tuple[str, ...] = ()
    ) -> Iterator[Suggestion | Dropped]:
        """Draw passages, and yield what the chat model would ask about each, as it arrives.

        Args:
            number: How many passages are drawn; each costs a request.
            seed: What decides the draw.
            sources: Only documents of these sources.

        Raises:
            SettingsError: A source does not exist.
            ProviderRefusedError: There is no key for the chat model, or it refuses.
            ProviderUnavailableError: The model cannot be reached, or broke off.
        """
        for source in sources:
            self.settings.source(source)
        wanted = sources or self._sources_to_search()
        return suggest_questions(self.reader, self._chat, number=number, seed=seed, sources=wanted)

    def past_evaluations(self, limit: int = 30) -> tuple[Evaluation, ...]:
        """Return the last evaluations of the configured questions, newest first."""
        return past_evaluations(self.reader, limit)

    def drop_space(self, name: str) -> Space:
        """Delete a space that does not answer, with its vectors.

        Raises:
            NotFoundError: There is no such space.
            SpaceError: It is the one that answers.
        """
        return drop_space(self.database, name)

    def _sources_to_search(self) -> tuple[str, ...]:
        """Return the configured sources if the database has others, too; else none."""
        configured = tuple(source.name for source in self.settings.sources)
        return () if registered_sources(self.reader) <= set(configured) else configured

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.settings.answer)

    def _live_space(self) -> Space:
        space = live_space(self.reader)
        if space is None:
            raise SpaceError(
                "There is nothing to search yet.",
                why="No run has embedded anything.",
                fix="Run `kb index`.",
            )
        return space

    def _asking(self, space: Space) -> Ask:
        """Return who asks a space golden questions: as readers do, past any cache and log."""
        embedder = Remembering(self._embedder(space))
        wanted = Filters(self._sources_to_search())

        def ask(text: str, mode: Mode) -> Results:
            # The one place where evaluation meets search.
            query = Query(text, DEPTH, wanted, mode, merge=False, rerank=mode == LEADING)
            return self._searcher(space, embedder).find(query).results

        return ask

    def _search(self, query: Query) -> Results:
        """Search the space that answers; or return what was found for the same before."""
        space = self._live_space()
        found = self._searcher(space, self._embedder(space), query.caller).find(query)
        self.query_log.add(query, found.results)
        return found.results

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
        """Return what a caller may see; of sources that are not there, nothing."""
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


def index_shard(run: Run, shard: Shard) -> ShardReport:
    """Bring one shard up to date: read, split, embed, publish."""
    return ShardReport(
        shard=shard,
        read=read_documents(run, shard, recipe_of(run.settings.splitting)),
        chunked=chunk_documents(run, shard),
        embedded=embed_chunks(run, shard),
        published=publish_documents(run, shard),
    )


def _checked(database: Database, *, is_bound: bool = False) -> Database:
    try:
        with database.transaction() as connection:
            if is_bound:
                require_bound(connection.execute)
            require_current_schema(connection)
    except BaseException:
        database.close()
        raise
    return database
