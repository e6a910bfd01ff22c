"""The asset `document_chunks`."""

from dataclasses import asdict

import dagster as dg

from kb_assets.chunks.stage import chunk_documents
from kb_assets.defs.columns import chunk_columns
from kb_assets.defs.metadata import chunk_metadata
from kb_assets.defs.options import IndexOptions
from kb_assets.defs.partitions import GROUP, backfill_policy, shard_partitions, shards_of
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.defs.unchanged import with_counts
from kb_assets.settings import Settings

DESCRIPTION = """
Spans of each revision's text, small enough to embed, with byte offsets and the headings they
stand under.

Splits only revisions that have no chunks yet, in a process of its own. The numbers are what
this run split; the row count is all chunks of the shard.
"""


def document_chunks_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with a partition for each shard of the settings' sources."""

    @dg.asset(
        group_name=GROUP,
        owners=list(settings.owners),
        partitions_def=shard_partitions(settings),
        backfill_policy=backfill_policy(),
        deps=["raw_documents"],
        description=DESCRIPTION,
        kinds={"python", "postgres"},
        metadata=chunk_columns(),
    )
    def document_chunks(
        context: dg.AssetExecutionContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.MaterializeResult[None]:
        with knowledge_base.run(context, IndexOptions()) as run:
            for shard in shards_of(settings, context.partition_keys):
                knowledge_base.say(f"{shard.key}: splitting new revisions")
                report = chunk_documents(run, shard)
                shown = with_counts(context, run, shard, report, chunk_metadata)
                context.add_asset_metadata(shown, partition_key=shard.key)
                knowledge_base.note("document_chunks", shard.key, asdict(report))
        return dg.MaterializeResult()

    return document_chunks
