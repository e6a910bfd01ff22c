"""Shards and months as Dagster partitions: what a run works on, and how runs are cut."""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise

import dagster as dg

from kb_assets.fingerprints import Shard
from kb_assets.settings import ArchiveSettings, BackupSettings, Settings

GROUP = "index"
"""The group of the index's assets."""

QUALITY_GROUP = "quality"
"""The group of what says how good answers are."""

ARCHIVE = "message_archive"
"""The asset of old messages."""

ARCHIVE_GROUP = "archive"
"""The group of what becomes of old messages."""

BACKUP = "database_backup"
"""The asset of backups."""

BACKUP_GROUP = "backup"
"""The group of what outlives the database."""

EXECUTION_VARIABLE = "KB_EXECUTION"
"""`cluster` makes every shard a run of its own, which Dagster's launchers spread."""

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

_DAY, _MONTH = "%Y-%m-%d", "%Y-%m"

SHARD_TAG = "kb/shard"
"""Which shard a run works on, or from which to which: one such run goes at a time."""


def runs_in_cluster() -> bool:
    """Say whether every shard gets a run of its own."""
    return os.environ.get(EXECUTION_VARIABLE, "") == "cluster"


def shard_partitions(settings: Settings) -> dg.StaticPartitionsDefinition:
    """Return the partitions: one for each shard of each source, in the order of `kb.toml`."""
    return dg.StaticPartitionsDefinition([shard.key for shard in settings.shards])


def month_partitions(settings: Settings) -> dg.MonthlyPartitionsDefinition:
    """Return the partitions of the archive: from `archive.first_month` to the current month."""
    first = (settings.archive or ArchiveSettings()).first_month
    return dg.MonthlyPartitionsDefinition(first, timezone="UTC", fmt=_MONTH, end_offset=1)


def month_key(month: date) -> str:
    """Return the partition key of a month, such as `2025-03`."""
    return month.strftime(_MONTH)


def month_of_key(key: str) -> date:
    """Return the first day of a partition's month."""
    return date.fromisoformat(f"{key}-01")


def day_partitions(backup: BackupSettings) -> dg.DailyPartitionsDefinition:
    """Return the partitions of backups: from `backup.first_day` to the current day."""
    return dg.DailyPartitionsDefinition(
        day_key(backup.first_day), timezone=backup.timezone, fmt=_DAY, end_offset=1
    )


def day_key(day: date) -> str:
    """Return the partition key of a day, such as `2025-03-01`."""
    return day.strftime(_DAY)


def backfill_policy() -> dg.BackfillPolicy:
    """Return how many shards one run takes: all on one machine, one each in a cluster."""
    if runs_in_cluster():
        return dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
    return dg.BackfillPolicy.single_run()


def shards_of(settings: Settings, keys: Sequence[str]) -> tuple[Shard, ...]:
    """Return the shards of partition keys."""
    by_key = {shard.key: shard for shard in settings.shards}
    return tuple(by_key[key] for key in keys)


def month_tags(months: Sequence[date]) -> dict[str, str]:
    """Return the tags of one run from the first of these months to the last."""
    first, last = month_key(months[0]), month_key(months[-1])
    if first == last:
        return {PARTITION_TAG: first}
    return {RANGE_START_TAG: first, RANGE_END_TAG: last}


def shards_of_run(settings: Settings, tags: Mapping[str, str]) -> tuple[Shard, ...]:
    """Return the shards a run was started for, by its tags; none if it was for no partition."""
    keys = [shard.key for shard in settings.shards]
    first = tags.get(RANGE_START_TAG) or tags.get(PARTITION_TAG)
    last = tags.get(RANGE_END_TAG) or first
    if first not in keys or last not in keys:
        return ()
    return settings.shards[keys.index(first) : keys.index(last) + 1]


def range_tags(shards: Sequence[Shard]) -> dict[str, str]:
    """Return the tags of one run over neighbouring shards of one source."""
    first, last = shards[0].key, shards[-1].key
    if len(shards) == 1:
        return {PARTITION_TAG: first, SHARD_TAG: first}
    return {RANGE_START_TAG: first, RANGE_END_TAG: last, SHARD_TAG: f"{first}...{last}"}


def runs_of(settings: Settings, shards: Sequence[Shard]) -> Iterator[tuple[Shard, ...]]:
    """Cut shards into runs: neighbours of one source go together.

    A run over a range fails as a whole, so sources do not share one: that a source cannot be
    reached must not keep the others from being brought up to date.
    """
    order = {shard: place for place, shard in enumerate(settings.shards)}
    wanted = sorted(set(shards), key=order.__getitem__)
    cuts = [
        place
        for place, (one, next_) in enumerate(pairwise(wanted), start=1)
        if one.source != next_.source or order[next_] != order[one] + 1
    ]
    for start, end in pairwise([0, *cuts, len(wanted)] if wanted else []):
        yield tuple(wanted[start:end])
