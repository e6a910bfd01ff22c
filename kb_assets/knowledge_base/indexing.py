"""Bringing the index up to date, and saying how far it is."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from kb_assets.chunks.plan import recipe_of
from kb_assets.chunks.stage import ChunkReport, chunk_documents
from kb_assets.database.run import Run
from kb_assets.documents.stage import ReadReport, read_documents
from kb_assets.embeddings.stage import EmbedReport, embed_chunks
from kb_assets.fingerprints import Shard
from kb_assets.forecast.forecast import Forecast, forecast
from kb_assets.index.account import Account, Contents, account_for, contents_of
from kb_assets.index.collect import collect_unused_vectors
from kb_assets.index.merge import merge_postings
from kb_assets.index.publish import PublishReport, publish_documents
from kb_assets.index.space import (
    SpaceReport,
    describe_spaces,
)
from kb_assets.index.story import Story, stories_of
from kb_assets.index.vectors import VectorIndexReport, maintain_vector_indexes
from kb_assets.knowledge_base.connections import Connections
from kb_assets.knowledge_base.garbage import seldom_collected
from kb_assets.processes import kept_processes
from kb_assets.retrieval.log import forget_old_queries

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


class Indexing(Connections):
    """Bringing the index up to date, and saying how far it is."""

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
            archiver=lambda: self.archiver,
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


def index_shard(run: Run, shard: Shard) -> ShardReport:
    """Bring one shard up to date: read, split, embed, publish."""
    with kept_processes(), seldom_collected():
        return ShardReport(
            shard=shard,
            read=read_documents(run, shard, recipe_of(run.settings.splitting)),
            chunked=chunk_documents(run, shard),
            embedded=embed_chunks(run, shard),
            published=publish_documents(run, shard),
        )
