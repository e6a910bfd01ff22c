"""The asset `chunk_embeddings`."""

import dagster as dg

from kb_assets.defs.columns import vector_columns
from kb_assets.defs.metadata import embed_metadata, spaces_note
from kb_assets.defs.options import IndexOptions
from kb_assets.defs.partitions import GROUP, backfill_policy, shard_partitions, shards_of
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.embeddings.stage import embed_chunks
from kb_assets.settings import Settings

DESCRIPTION = """
One vector for each distinct text, in the space that answers and in one that is being built.

A text is paid for once, however many chunks share it and however often it comes back:
**cache_hits** counts those that had a vector already. A run that would cost more than
`limits.max_cost_per_run_usd` stops before it asks for anything, unless `confirm_cost` is set. A
space that is being built and cannot be filled does not keep readers from what is new.
"""


def chunk_embeddings_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with a partition for each shard of the settings' sources."""
    provider = settings.embedding.provider
    kinds = {"postgres", "openai" if provider == "openai" else "python"}

    @dg.asset(
        group_name=GROUP,
        owners=list(settings.owners),
        partitions_def=shard_partitions(settings),
        backfill_policy=backfill_policy(),
        # dagster.yaml limits how many runs ask a provider at once.
        pool=f"embedding_{provider}",
        deps=["document_chunks"],
        description=DESCRIPTION,
        kinds=kinds,
        metadata=vector_columns(),
    )
    def chunk_embeddings(
        context: dg.AssetExecutionContext,
        config: IndexOptions,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.MaterializeResult[None]:
        with knowledge_base.run(context, config) as run:
            for shard in shards_of(settings, context.partition_keys):
                knowledge_base.say(f"{shard.key}: embedding texts without a vector")
                reports = embed_chunks(run, shard)
                context.add_asset_metadata(embed_metadata(reports), partition_key=shard.key)
                knowledge_base.note("chunk_embeddings", shard.key, spaces_note(reports))
                for failure in (one.failure for one in reports if one.failure):
                    knowledge_base.note_failure(failure)
        return dg.MaterializeResult()

    return chunk_embeddings
