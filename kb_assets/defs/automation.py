"""What follows by itself: the vector index after publishing, and quality after the index."""

from collections.abc import Sequence

import dagster as dg

SENSOR = "after_publishing"


def after_publishing() -> dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]:
    """Look after the index once shards were published without it.

    `index_documents` ends with the vector index on one machine, and this finds nothing to do.
    It is for the rest: runs of one shard each in a cluster, and documents published by hand.

    - *any_deps_updated … since_last_handled*: once for any number of shards, not once for each.
    - *not any_deps_in_progress*: building while shards still load makes each insert pay for the
      graph; a bulk load is several times faster without it.
    - *not in_progress*: the run that publishes may have the index as its next step.
    """
    return _once_those_before_rest(SENSOR)


def after_indexing() -> dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]:
    """Measure retrieval once the index was looked after, whoever did that."""
    return _once_those_before_rest("after_indexing")


def each_hour() -> dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]:
    """Look each hour, for what is wrong when no run looks is seen by none.

    The minute is one at which a schedule of each quarter of an hour has done its work.
    """
    passed: dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]
    passed = dg.AutomationCondition.cron_tick_passed("10 * * * *")
    return passed.since_last_handled().with_label("each_hour")


def automation_sensor(
    *assets: str, checks: Sequence[dg.AssetCheckKey] = ()
) -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the conditions; the one Dagster adds itself is stopped.

    Args:
        assets: Those that have a condition.
        checks: And these.
    """
    return dg.AutomationConditionSensorDefinition(
        SENSOR,
        target=dg.AssetSelection.assets(*assets) | dg.AssetSelection.checks(*checks),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Looks after the vector index when shards were published without it, "
        "measures retrieval when the index was looked after, and looks each hour whether every "
        "source is fresh.",
    )


def _once_those_before_rest(label: str) -> dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]:
    updated = dg.AutomationCondition.any_deps_updated().since_last_handled()
    return (
        updated
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    ).with_label(label)
