"""The assets `published_documents` and `vector_index`."""

import time
from dataclasses import asdict
from datetime import timedelta

import dagster as dg

from kb_assets.defs.automation import after_publishing
from kb_assets.defs.columns import document_columns, vector_columns
from kb_assets.defs.freshness import within
from kb_assets.defs.metadata import publish_metadata, vector_metadata
from kb_assets.defs.options import IndexOptions
from kb_assets.defs.partitions import GROUP, backfill_policy, shard_partitions, shards_of
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.defs.unchanged import shown_before, with_counts
from kb_assets.defs.whole import find_whole, whole_metadata
from kb_assets.index.collect import collect_unused_vectors
from kb_assets.index.merge import merge_postings
from kb_assets.index.publish import publish_documents
from kb_assets.index.vectors import maintain_vector_indexes
from kb_assets.knowledge_base import SECONDS_PER_DAY
from kb_assets.retrieval.log import forget_old_queries
from kb_assets.settings import Settings

PUBLISHED = """
What readers can search: each document whole, all old or all new.

Makes revisions live of which every text is embedded or in quarantine, and takes away documents
that left their source, in one transaction each time. **waiting** documents lack vectors and go
live with the next run; until then their old revision answers. The row count is documents live.
"""

INDEX = """
The HNSW index over each space's vectors: built after a bulk load, looked after, rebuilt when due.

Also deletes vectors nothing has used for `limits.unused_vector_days`, and questions asked more than
`search.log_days` ago, and merges the rows that words are found by. It has no partitions: all
shards share it. Without a usable index searches are exact, and slow.

So it shows what all shards have together: **growth** plots it over time, and **spending** what
embeddings cost and what was saved because chunks share texts (tokens, where nothing costs money).
"""


def published_documents_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with a partition for each shard of the settings' sources."""

    @dg.asset(
        group_name=GROUP,
        owners=list(settings.owners),
        partitions_def=shard_partitions(settings),
        backfill_policy=backfill_policy(),
        deps=["chunk_embeddings"],
        freshness_policy=within(timedelta(hours=settings.schedule.max_age_hours)),
        description=PUBLISHED,
        kinds={"postgres"},
        metadata=document_columns(),
    )
    def published_documents(
        context: dg.AssetExecutionContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.MaterializeResult[None]:
        with knowledge_base.run(context, IndexOptions()) as run:
            for shard in shards_of(settings, context.partition_keys):
                knowledge_base.say(f"{shard.key}: publishing what is complete")
                report = publish_documents(run, shard)
                shown = with_counts(context, run, shard, report, publish_metadata)
                context.add_asset_metadata(shown, partition_key=shard.key)
                knowledge_base.note("published_documents", shard.key, asdict(report))
        return dg.MaterializeResult()

    return published_documents


def vector_index_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        group_name=GROUP,
        owners=list(settings.owners),
        # Out of place without partitions, and needed: `dg launch` takes a range of partitions
        # only if every asset of the job has this policy.
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=["published_documents"],
        automation_condition=after_publishing(),
        description=INDEX,
        kinds={"postgres"},
        metadata=vector_columns(),
    )
    def vector_index(
        context: dg.AssetExecutionContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.MaterializeResult[None]:
        started = time.monotonic()
        with knowledge_base.run(context, IndexOptions()) as run:
            knowledge_base.say("looking after the vector index")
            days = settings.limits.unused_vector_days
            collected = collect_unused_vectors(run.database, days * SECONDS_PER_DAY)
            merged = merge_postings(run.database)
            forget_old_queries(run.database, settings.search.log_days)
            reports = maintain_vector_indexes(run.database, collected=collected)
            whole = find_whole(run.database, settings.shards, reports)
        for report in reports:
            knowledge_base.note("vector_index", report.space, asdict(report))
        seconds = time.monotonic() - started
        shown = vector_metadata(reports, collected, seconds)
        return dg.MaterializeResult(
            metadata={
                **shown,
                "lexical_sources_merged": dg.MetadataValue.int(merged),
                **whole_metadata(whole, shown_before(context)),
            }
        )

    return vector_index
