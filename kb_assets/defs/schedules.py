"""The jobs: the index brought up to date, messages archived, the database backed up."""

from collections.abc import Iterator
from datetime import date, datetime
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kb_assets.defs.archive_checks import archive_checks
from kb_assets.defs.failures import NO_RUN_RETRIES
from kb_assets.defs.partitions import (
    ARCHIVE,
    BACKUP,
    SHARD_TAG,
    day_key,
    month_key,
    month_partitions,
    month_tags,
    range_tags,
    runs_in_cluster,
    runs_of,
    shards_of_run,
)
from kb_assets.defs.processes import end_abandoned_runs
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.fingerprints import Shard
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import ArchiveSettings, BackupSettings, Settings

JOB = "index_documents"

ARCHIVE_JOB = "archive_messages"

BACKUP_JOB = "back_up_database"

SHARD_ASSETS = ("raw_documents", "document_chunks", "chunk_embeddings", "published_documents")

_GOING = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def index_documents_job() -> UnresolvedAssetJobDefinition:
    """Return the job: from a source's listing to an index that is looked after.

    Its executor works in the run's own process: starting a process for each step takes longer
    than most steps do, and what spreads is runs, one for each shard.
    """
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(*SHARD_ASSETS, "vector_index"),
        executor_def=dg.in_process_executor,
        tags=NO_RUN_RETRIES,
        description="Brings shards up to date: read, split, embed, publish; then looks after the "
        "vector index. What did not change costs nothing.",
    )


def index_documents_schedule(
    settings: Settings, job: UnresolvedAssetJobDefinition
) -> dg.ScheduleDefinition:
    """Return the schedule; it runs by itself only if `schedule.enabled` says so."""

    @dg.schedule(
        job=job,
        name=f"{JOB}_schedule",
        cron_schedule=settings.schedule.cron,
        execution_timezone=settings.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING
        if settings.schedule.enabled
        else dg.DefaultScheduleStatus.STOPPED,
        description="Starts index_documents for every shard: a run for each source, or for each "
        "shard in a cluster. A source or shard whose last run is still going is left out.",
    )
    def schedule(
        context: dg.ScheduleEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if not settings.shards:
            yield dg.SkipReason("kb.toml names no sources.")
            return
        busy = _shards_being_worked_on(settings, context.instance)
        runs = _cut(settings)
        due = [shards for shards in runs if not busy.intersection(shard.key for shard in shards)]
        if not due:
            yield dg.SkipReason("The last run of every shard is still going, or waits its turn.")
        for shards in due:
            tags = range_tags(shards)
            key = f"{context.scheduled_execution_time.isoformat()} {tags[SHARD_TAG]}"
            yield dg.RunRequest(run_key=key, tags=tags, asset_selection=_selected())

    return schedule


def archive_messages_job() -> UnresolvedAssetJobDefinition:
    """Return the job: months that are old enough go to the archive, and the checks look at it."""
    return dg.define_asset_job(
        ARCHIVE_JOB,
        selection=dg.AssetSelection.assets(ARCHIVE),
        executor_def=dg.in_process_executor,
        tags=NO_RUN_RETRIES,
        description="Archives the months of its partitions that are due, and checks the archive. "
        "What is not due stays where it is.",
    )


def archive_messages_schedule(
    settings: Settings, archive: ArchiveSettings, job: UnresolvedAssetJobDefinition
) -> dg.ScheduleDefinition:
    """Return the schedule; it runs by itself, for `[archive]` asks for that."""

    @dg.schedule(
        job=job,
        name=f"{ARCHIVE_JOB}_schedule",
        cron_schedule=archive.cron,
        execution_timezone=archive.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Starts archive_messages: one run from the first month that is due to the "
        "last. Where none is, the checks look at what is archived.",
    )
    def schedule(
        context: dg.ScheduleEvaluationContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.RunRequest | dg.SkipReason:
        moment = context.scheduled_execution_time
        if _is_going(ARCHIVE_JOB, context.instance):
            return dg.SkipReason("The last run is still going, or waits its turn.")
        with knowledge_base.opened() as kb:
            due, is_used = _due(kb, archive, moment)
        known = month_partitions(settings).get_partition_keys(moment)
        months = [month for month in due if month_key(month) in known]
        if months:
            return dg.RunRequest(run_key=moment.isoformat(), tags=month_tags(months))
        if not is_used:
            return dg.SkipReason("No month is due, and nothing was archived yet.")
        checks = [key for check in archive_checks() for key in check.check_keys]
        return dg.RunRequest(
            run_key=moment.isoformat(), asset_selection=[], asset_check_keys=checks
        )

    return schedule


def back_up_database_job() -> UnresolvedAssetJobDefinition:
    """Return the job: a backup of now, and the drill that proves it."""
    return dg.define_asset_job(
        BACKUP_JOB,
        selection=dg.AssetSelection.assets(BACKUP),
        executor_def=dg.in_process_executor,
        tags=NO_RUN_RETRIES,
        description="Backs the database up, deletes backups that are kept no longer, reads the "
        "new one back, and restores it into a server of its own.",
    )


def back_up_database_schedule(
    backup: BackupSettings, job: UnresolvedAssetJobDefinition
) -> dg.ScheduleDefinition:
    """Return the schedule; it runs by itself, for who loses a database has not asked for that."""

    @dg.schedule(
        job=job,
        name=f"{BACKUP_JOB}_schedule",
        cron_schedule=backup.cron,
        execution_timezone=backup.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Starts back_up_database for today. A day that was missed stays without: a "
        "backup is of now.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if _is_going(BACKUP_JOB, context.instance):
            return dg.SkipReason("The last run is still going, or waits its turn.")
        today = day_key(datetime.now(ZoneInfo(backup.timezone)))
        return dg.RunRequest(
            run_key=context.scheduled_execution_time.isoformat(), partition_key=today
        )

    return schedule


def _is_going(job: str, instance: dg.DagsterInstance) -> bool:
    end_abandoned_runs(instance)
    going = dg.RunsFilter(job_name=job, statuses=list(_GOING))
    return bool(instance.get_runs(going, limit=1))


def _cut(settings: Settings) -> list[tuple[Shard, ...]]:
    if runs_in_cluster():
        return [(shard,) for shard in settings.shards]
    return list(runs_of(settings, settings.shards))


def _selected() -> list[dg.AssetKey] | None:
    """Return what a scheduled run makes; None is everything.

    In a cluster the vector index is left out, and follows by its automation condition when no
    shard is being loaded any more.
    """
    return [dg.AssetKey(name) for name in SHARD_ASSETS] if runs_in_cluster() else None


def _due(
    kb: KnowledgeBase, archive: ArchiveSettings, now: datetime
) -> tuple[tuple[date, ...], bool]:
    """Return the months that are due, and whether anything was archived yet."""
    # Not at module level: pyarrow and DuckDB take a second to load.
    from kb_assets.archive.checks import count_objects
    from kb_assets.archive.stage import months_due

    due = months_due(kb.database, now, archive.retention_days)
    return due, count_objects(kb.database) > 0


def _shards_being_worked_on(settings: Settings, instance: dg.DagsterInstance) -> set[str]:
    end_abandoned_runs(instance)
    runs = instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=list(_GOING)))
    return {shard.key for run in runs for shard in shards_of_run(settings, run.tags)}
