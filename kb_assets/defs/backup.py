"""The asset `database_backup`: the database as it was at one moment of a day."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from kb_assets.defs.backup_metadata import backup_metadata
from kb_assets.defs.freshness import within
from kb_assets.defs.metadata import Metadata
from kb_assets.defs.partitions import BACKUP, BACKUP_GROUP, day_key, day_partitions
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.errors import KbError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings

DESCRIPTION = """
The database as it was at one moment: definitions, rows, roles, and a manifest with the hash of
every file and the checksum of every table. `uri` under `[backup]` says where.

A backup is of now: only today's partition can be made (**Latest**), and days that were missed stay
missing. Then backups that are kept no longer are deleted; the last one whose drill passed never is.

It counts once it was restored: **backup_restores** does that, on a server of its own. If that check
or **backup_matches_manifest** is red, make another backup at once, and find out what became of this
one. `kb backup list` shows what there is, `kb backup restore` brings it back: docs/backup.md.
"""


def database_backup_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with a partition for each day."""

    @dg.asset(
        name=BACKUP,
        group_name=BACKUP_GROUP,
        owners=list(settings.owners),
        partitions_def=day_partitions(settings.backup),
        backfill_policy=dg.BackfillPolicy.single_run(),
        freshness_policy=within(timedelta(hours=settings.backup.max_age_hours)),
        description=DESCRIPTION,
        kinds={"postgres"},
    )
    def database_backup(
        context: dg.AssetExecutionContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.MaterializeResult[None]:
        today = day_key(datetime.now(ZoneInfo(settings.backup.timezone)))
        if context.partition_keys != [today]:
            raise dg.Failure(
                f"A backup is of now: of all days, only {today} can be made.",
                allow_retries=False,
            )
        with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
            knowledge_base.sign(context)
            return dg.MaterializeResult(metadata=_back_up(kb, context))

    return database_backup


def _back_up(kb: KnowledgeBase, context: dg.AssetExecutionContext) -> Metadata:
    report = kb.back_up(run_id=context.run_id)
    shown = backup_metadata(report, kb.backup_store.url(report.manifest.id))
    try:
        plan = kb.prune_backups()
    except KbError as error:
        # There is a backup all the same, and it is to be proven.
        context.log.error(str(error))
        return {**shown, "not_pruned": dg.MetadataValue.text(str(error))}
    counted = {"backups_kept": len(plan.keep), "backups_deleted": len(plan.delete)}
    return {**shown, **{name: dg.MetadataValue.int(count) for name, count in counted.items()}}
