"""How old things may be: Dagster's policies for whole assets, and a check for each source.

A policy judges an asset by its last materialization, whichever partition that was of: one busy
source makes it green for all. So the check looks at each shard.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._utils.schedules import reverse_cron_string_iterator

from kb_assets.defs.automation import each_hour
from kb_assets.defs.index_runs import FRESH, JOB, shards_being_worked_on
from kb_assets.defs.metadata import table
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.settings import Settings, SourceSettings

ARCHIVE_MAX_AGE = timedelta(days=62)
"""A month is due each month; where two in a row were not archived, nobody wrote or none looked."""

_MOST_TOLD = 10


def within(age: timedelta) -> dg.FreshnessPolicy:
    """Return the policy of an asset that is to be made at least once in such a time."""
    return dg.FreshnessPolicy.time_window(fail_window=age)


@dg.asset_check(
    asset=FRESH.asset_key,
    name=FRESH.name,
    automation_condition=each_hour(),
    description="Every shard of every source was looked at since the last tick of its schedule "
    "that is `max_age_hours` under `[schedule]` ago. Looked at each hour, not in the runs of "
    "index_documents: it is about those that are missing. If it is red, look at the last runs and "
    "at the schedule; `kb index` looks now.",
)
def every_source_is_fresh(
    context: dg.AssetCheckExecutionContext,
    knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
) -> dg.AssetCheckResult:
    """Red if nobody looked at a source for too long.

    ERROR, because readers are shown what may no longer be so, and nothing else says it. A shard
    that a run works on, or that waits for its turn since less than that time, is left out.
    """
    settings, now = knowledge_base.settings, datetime.now(UTC)
    since = now - timedelta(hours=settings.schedule.max_age_hours)
    busy = shards_being_worked_on(settings, context.instance, since=since)
    looked = last_looks(context.instance, [shard.key for shard in settings.shards])
    stale = {
        source.name: keys
        for source in settings.sources
        if (keys := _stale(source, settings, looked, busy, now))
    }
    ages = [(now - moment).total_seconds() / 3600 for moment in looked.values()]
    return dg.AssetCheckResult(
        passed=not stale,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_told(settings, stale, looked)
        if stale
        else "Every source was looked at in time.",
        metadata={
            "stale_shards": sum(map(len, stale.values())),
            "oldest_look_hours": round(max(ages, default=0.0), 2),
            "shards": table(
                ["shard", "last looked at"],
                [(shard.key, _when(looked.get(shard.key))) for shard in settings.shards],
            ),
        },
    )


def last_looks(instance: dg.DagsterInstance, shards: Sequence[str]) -> dict[str, datetime]:
    """Return when each shard's source was last listed to the end; none that never was.

    Dagster knows: a listing that is as it was writes nothing into the database.

    Args:
        instance: Where the runs are.
        shards: The keys of shards.
    """
    if not shards:
        return {}
    latest = instance.event_log_storage.get_latest_storage_id_by_partition(
        FRESH.asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(shards)
    )
    if not latest:
        return {}
    wanted = dg.AssetRecordsFilter(FRESH.asset_key, storage_ids=list(latest.values()))
    records = instance.fetch_materializations(wanted, limit=len(latest)).records
    return {
        str(record.partition_key): datetime.fromtimestamp(record.timestamp, UTC)
        for record in records
    }


def due_before(source: SourceSettings, settings: Settings, now: datetime) -> datetime:
    """Return the last tick of a source's schedule that is as old as a look may be, or older."""
    cron = source.cron or settings.schedule.cron
    latest = now - timedelta(hours=settings.schedule.max_age_hours)
    ticks = reverse_cron_string_iterator(latest.timestamp(), cron, settings.schedule.timezone)
    return next(ticks).astimezone(UTC)


def _stale(
    source: SourceSettings,
    settings: Settings,
    looked: Mapping[str, datetime],
    busy: set[str],
    now: datetime,
) -> list[str]:
    due = due_before(source, settings, now)
    keys = [shard.key for shard in source.all_shards]
    return [key for key in keys if key not in busy and not (key in looked and looked[key] >= due)]


def _told(
    settings: Settings, stale: Mapping[str, Sequence[str]], looked: Mapping[str, datetime]
) -> str:
    told = []
    for source, keys in stale.items():
        which = [source] if len(keys) == settings.source(source).shards else keys
        times = [looked[key] for key in keys if key in looked]
        when = _when(min(times) if len(times) == len(keys) else None)
        told.append(f"{_some(which)}: last looked at {when}.")
    return (
        f"{_some(told, ' ')} Look at the last runs of {JOB}, and whether its schedule is on; "
        "`kb index` looks now."
    )


def _some(words: Sequence[str], between: str = ", ") -> str:
    rest = len(words) - _MOST_TOLD
    return between.join(words[:_MOST_TOLD]) + (f" and {rest} more" if rest > 0 else "")


def _when(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
