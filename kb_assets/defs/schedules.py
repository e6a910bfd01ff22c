"""What starts by the clock: indexing, questions, the archive, backups."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kb_assets.defs.archive_checks import archive_checks
from kb_assets.defs.index_runs import (
    GOING,
    JOB,
    cut_into_runs,
    run_request,
    shards_being_worked_on,
)
from kb_assets.defs.jobs import job_of
from kb_assets.defs.partitions import (
    ARCHIVE,
    BACKUP,
    SHARD_TAG,
    day_key,
    month_key,
    month_partitions,
    month_tags,
    range_tags,
)
from kb_assets.defs.processes import end_abandoned_runs
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import ArchiveSettings, BackupSettings, Settings, SourceSettings

ARCHIVE_JOB = "archive_messages"

BACKUP_JOB = "back_up_database"

QUALITY_JOB = "measure_retrieval"


def index_documents_schedules(
    settings: Settings, job: UnresolvedAssetJobDefinition
) -> Iterator[dg.ScheduleDefinition]:
    """Yield a schedule for each source with a cron of its own, and one for all others."""
    common = [source for source in settings.sources if not source.cron]
    if common or not settings.sources:
        yield _index_schedule(settings, job, f"{JOB}_schedule", settings.schedule.cron, common)
    for source in settings.sources:
        if source.cron:
            yield _index_schedule(settings, job, schedule_of(source), source.cron, [source])


def schedule_of(source: SourceSettings) -> str:
    """Return the name of the schedule that brings a source up to date."""
    return f"{JOB}_{source.name.replace('-', '_')}_schedule" if source.cron else f"{JOB}_schedule"


def _index_schedule(
    settings: Settings,
    job: UnresolvedAssetJobDefinition,
    name: str,
    cron: str,
    sources: Sequence[SourceSettings],
) -> dg.ScheduleDefinition:
    shards = [shard for source in sources for shard in source.all_shards]

    @dg.schedule(
        job=job,
        name=name,
        cron_schedule=cron,
        execution_timezone=settings.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING
        if settings.schedule.enabled
        else dg.DefaultScheduleStatus.STOPPED,
        description=f"Starts {JOB} for {', '.join(source.name for source in sources) or 'nothing'}"
        ": a run for each source, or for each shard in a cluster. What a run still works on is "
        "left out.",
    )
    def schedule(
        context: dg.ScheduleEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if not shards:
            yield dg.SkipReason("kb.toml names no sources.")
            return
        busy = shards_being_worked_on(settings, context.instance)
        runs = cut_into_runs(settings, shards)
        due = [run for run in runs if not busy.intersection(shard.key for shard in run)]
        if not due:
            yield dg.SkipReason("The last run of every shard is still going, or waits its turn.")
        moment = context.scheduled_execution_time.isoformat()
        for run in due:
            yield run_request(run, f"{moment} {range_tags(run)[SHARD_TAG]}")

    return schedule


def measure_retrieval_job() -> UnresolvedAssetJobDefinition:
    """Return the job: the golden questions asked, whether or not anything changed."""
    return job_of(
        QUALITY_JOB,
        selection=dg.AssetSelection.assets("retrieval_quality"),
        description="Asks the golden questions, whether or not anything changed since.",
    )


def measure_retrieval_schedule(
    settings: Settings, job: UnresolvedAssetJobDefinition
) -> dg.ScheduleDefinition:
    """Return the schedule; it runs by itself, for `quality.cron` asks for that."""

    @dg.schedule(
        job=job,
        name=f"{QUALITY_JOB}_schedule",
        cron_schedule=settings.quality.cron,
        execution_timezone=settings.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Asks the golden questions, besides after each change of the index.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if _is_going(QUALITY_JOB, context.instance):
            return dg.SkipReason("The last run is still going, or waits its turn.")
        return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat())

    return schedule


def archive_messages_job() -> UnresolvedAssetJobDefinition:
    """Return the job: months that are old enough go to the archive, and the checks look at it."""
    return job_of(
        ARCHIVE_JOB,
        selection=dg.AssetSelection.assets(ARCHIVE),
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
    return job_of(
        BACKUP_JOB,
        selection=dg.AssetSelection.assets(BACKUP),
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
    going = dg.RunsFilter(job_name=job, statuses=list(GOING))
    return bool(instance.get_runs(going, limit=1))


def _due(
    kb: KnowledgeBase, archive: ArchiveSettings, now: datetime
) -> tuple[tuple[date, ...], bool]:
    """Return the months that are due, and whether anything was archived yet."""
    # Not at module level: pyarrow and DuckDB take a second to load.
    from kb_assets.archive.checks import count_objects
    from kb_assets.archive.stage import months_due

    due = months_due(kb.database, now, archive.retention_days)
    return due, count_objects(kb.database) > 0
