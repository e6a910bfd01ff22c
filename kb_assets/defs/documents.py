"""The asset `raw_documents`."""

from dataclasses import asdict

import dagster as dg

from kb_assets.chunks.plan import recipe_of
from kb_assets.defs.columns import revision_columns
from kb_assets.defs.metadata import place, read_metadata
from kb_assets.defs.options import IndexOptions
from kb_assets.defs.partitions import GROUP, backfill_policy, shard_partitions, shards_of
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.defs.unchanged import with_counts
from kb_assets.documents.stage import read_documents
from kb_assets.settings import Settings

DESCRIPTION = """
Each document as its source has it, in normalised text with title, tags and metadata.

Lists the source, and reads what may have changed since: version tokens first, then SHA-256.
A new or changed document gets a *revision* that waits; readers keep the old one until
`published_documents` has the new one complete.

- **found** = unchanged + touched (read, and the same) + added + changed + reverted + quarantined
- **quarantined**: found unreadable by this run; **in_quarantine** counts earlier ones, too, which
  are tried again when they or the settings change
- **withheld**: gone from the source, but too many at once; `no_document_vanished_by_accident`
  says how to confirm that
"""


def raw_documents_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with a partition for each shard of the settings' sources."""
    where = {
        one.name: one.uri if one.in_object_store else str(settings.root / one.uri)
        for one in settings.sources
    }

    @dg.asset(
        group_name=GROUP,
        owners=list(settings.owners),
        partitions_def=shard_partitions(settings),
        backfill_policy=backfill_policy(),
        description=DESCRIPTION,
        kinds={"python", "postgres"},
        metadata=revision_columns(),
    )
    def raw_documents(
        context: dg.AssetExecutionContext,
        config: IndexOptions,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.MaterializeResult[None]:
        recipe = recipe_of(settings.splitting)
        with knowledge_base.run(context, config) as run:
            for shard in shards_of(settings, context.partition_keys):
                knowledge_base.say(f"{shard.key}: reading what may have changed")
                report = read_documents(run, shard, recipe)
                shown = with_counts(context, run, shard, report, read_metadata)
                shown["source"] = place(where[shard.source])
                context.add_asset_metadata(shown, partition_key=shard.key)
                knowledge_base.note("raw_documents", shard.key, asdict(report))
        return dg.MaterializeResult()

    return raw_documents
