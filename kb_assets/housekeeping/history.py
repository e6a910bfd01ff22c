"""Dagster's old runs, and what they did step by step: deleted by set, not run by run.

Dagster's own way to delete a run takes the materializations and the results of checks with it:
the history of assets would go with the logs. Here that history stays for ever.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from kb_assets.database.statements import Statements

BATCH_RUNS = 500
"""How many runs go in one transaction."""

PRUNED_KINDS = (
    *("STEP_OUTPUT", "STEP_INPUT", "STEP_FAILURE", "STEP_START", "STEP_SUCCESS", "STEP_SKIPPED"),
    *("STEP_WORKER_STARTING", "STEP_WORKER_STARTED", "STEP_UP_FOR_RETRY", "STEP_RESTARTED"),
    *("RESOURCE_INIT_STARTED", "RESOURCE_INIT_SUCCESS", "RESOURCE_INIT_FAILURE"),
    *("STEP_EXPECTATION_RESULT", "ASSET_MATERIALIZATION_PLANNED", "ASSET_CHECK_EVALUATION_PLANNED"),
    *("PIPELINE_ENQUEUED", "PIPELINE_DEQUEUED", "PIPELINE_STARTING", "PIPELINE_START"),
    *("PIPELINE_SUCCESS", "PIPELINE_FAILURE", "PIPELINE_CANCELING", "PIPELINE_CANCELED"),
    *("RUN_SUSPENDED", "RUN_RESUMED", "OBJECT_STORE_OPERATION", "ASSET_STORE_OPERATION"),
    *("LOADED_INPUT", "HANDLED_OUTPUT", "ENGINE_EVENT", "LOGS_CAPTURED"),
    *("HOOK_COMPLETED", "HOOK_ERRORED", "HOOK_SKIPPED"),
    *("ALERT_START", "ALERT_SUCCESS", "ALERT_FAILURE"),
)
"""Events that tell of a run only. A kind that is not named here is kept."""

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted.

    Attributes:
        runs: The runs' ids.
        events: How many events.
    """

    runs: tuple[str, ...] = ()
    events: int = 0


def prune_history(connection: psycopg.Connection, before: datetime) -> Pruned:
    """Delete runs that ended before a moment, and what is not an asset's history of their events.

    Stopped between two batches, it goes on from there the next time.

    Args:
        connection: To Dagster's database, in autocommit mode.
        before: A moment, with its time zone.
    """
    present = connection.execute(_statements("has_dagster_tables")).fetchone()
    if not present or not present[0]:
        return Pruned()
    # Dagster's times have no zone, and are UTC.
    moment = {"before": before.astimezone(UTC).replace(tzinfo=None)}
    runs = [row[0] for row in connection.execute(_statements("find_old_runs"), moment)]
    events = 0
    for start in range(0, len(runs), BATCH_RUNS):
        named = {"run_ids": runs[start : start + BATCH_RUNS]}
        with connection.transaction():
            kinds = {"kinds": list(PRUNED_KINDS)}
            events += connection.execute(_statements("delete_events"), named | kinds).rowcount
            connection.execute(_statements("delete_runs"), named)
    connection.execute(_statements("delete_backfills"), moment)
    return Pruned(tuple(runs), events)
