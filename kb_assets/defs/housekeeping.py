"""The asset `housekeeping`: Dagster's old runs go, tables are vacuumed, and sizes are noted."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kb_assets.defs.jobs import job_of
from kb_assets.defs.metadata import Metadata, counts, table
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.housekeeping.stage import HousekeepingReport, tend
from kb_assets.housekeeping.tables import DatabaseState, TableState
from kb_assets.settings import HousekeepingSettings, Settings

ASSET = "housekeeping"

GROUP = "operations"
"""The group of what keeps the rest running."""

JOB = "keep_house"

CHECK = "storage_is_tended"

MOST_DEAD_SHARE = 0.5
LEAST_DEAD_ROWS = 10_000
"""Fewer are no trouble, whatever their share."""

LONGEST_UNVACUUMED_SECONDS = 86_400.0

MOST_FREEZE_DELAYS = 2
"""Rows older than so many times `autovacuum_freeze_max_age` mean that something holds them."""

_MOST_TABLES = 30

DESCRIPTION = """
What a database needs now and then. Dagster's runs that ended more than `keep_runs_days` ago
(`[housekeeping]`) are deleted, with their logs. What became of assets stays for ever:
materializations, observations, results of checks. So do runs that still say something: the last
one of each asset, and one that failed if nothing came after it.

Then tables are vacuumed where the server's own thresholds say so, if the role may; `vacuum_is_due`
tells what is left to autovacuum. Sizes are plotted: `database_bytes`, `dagster_bytes`, `dead_rows`.

If **storage_is_tended** is red, its text says what holds the server back: docs/operations.md.
"""


def housekeeping_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with its check."""

    @dg.asset(
        name=ASSET,
        group_name=GROUP,
        owners=list(settings.owners),
        description=DESCRIPTION,
        kinds={"postgres"},
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=ASSET,
                description="No table is mostly dead rows that nobody vacuums, and no row waits "
                "so long to be frozen that the server would stop writing in the end. If it is "
                "red, its text says what to run.",
            )
        ],
    )
    def housekeeping(
        context: dg.AssetExecutionContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> Iterator[dg.MaterializeResult[None]]:
        keep_days = settings.housekeeping.keep_runs_days
        with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
            knowledge_base.sign(context)
            report = tend(kb.urls, keep_days)
        for run_id in report.pruned.runs:
            context.instance.compute_log_manager.delete_logs(prefix=[run_id])
        yield dg.MaterializeResult(
            metadata=housekeeping_metadata(report), check_results=[storage_is_tended(report)]
        )

    return housekeeping


def housekeeping_job() -> UnresolvedAssetJobDefinition:
    """Return the job: the asset and its check."""
    return job_of(
        JOB,
        selection=dg.AssetSelection.assets(ASSET),
        description="Deletes Dagster's old runs, vacuums what is due, and notes sizes.",
    )


def housekeeping_schedule(
    housekeeping: HousekeepingSettings, job: UnresolvedAssetJobDefinition
) -> dg.ScheduleDefinition:
    """Return the schedule; it runs by itself."""
    return dg.ScheduleDefinition(
        name=f"{JOB}_schedule",
        job=job,
        cron_schedule=housekeeping.cron,
        execution_timezone=housekeeping.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Starts keep_house.",
    )


def housekeeping_metadata(report: HousekeepingReport) -> Metadata:
    """Return what the materialization shows: numbers that are plotted, and each table."""
    tables = [*report.knowledge.tables, *report.dagster.tables]
    tended = ", ".join(".".join(name) for name in report.tended)
    owed = ", ".join(".".join(one.name) for one in tables if one.is_due and not one.is_ours)
    return {
        **counts(
            {
                "database_bytes": report.knowledge.size_bytes,
                "dagster_bytes": sum(one.total_bytes for one in report.dagster.tables),
                "index_bytes": sum(one.index_bytes for one in report.knowledge.tables),
                "rows": sum(one.rows for one in report.knowledge.tables),
                "dead_rows": sum(one.dead_rows for one in tables),
                "runs_deleted": len(report.pruned.runs),
                "events_deleted": report.pruned.events,
                "tables_vacuumed": len(report.tended),
                "seconds": report.seconds,
            }
        ),
        "vacuumed": dg.MetadataValue.text(tended or "none was due"),
        "vacuum_is_due": dg.MetadataValue.text(owed or "none"),
        "tables": _sizes(report.knowledge),
        "dagster_tables": _sizes(report.dagster),
    }


def storage_is_tended(report: HousekeepingReport) -> dg.AssetCheckResult:
    """Return the check: red for what somebody has to look at, for the server does not get on."""
    told = [
        words
        for name, one in (("knowledge base", report.knowledge), ("Dagster", report.dagster))
        for words in _troubles(name, one)
    ]
    is_late = any(
        _freeze_is_late(one, 2 * MOST_FREEZE_DELAYS) for one in (report.knowledge, report.dagster)
    )
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not told,
        severity=dg.AssetCheckSeverity.ERROR if is_late else dg.AssetCheckSeverity.WARN,
        description=" ".join(told) or "The server keeps up.",
        metadata=counts(
            {
                "oldest_row_transactions": report.knowledge.oldest_row_transactions,
                "longest_transaction_seconds": report.knowledge.longest_transaction_seconds,
            }
        ),
    )


def _troubles(name: str, state: DatabaseState) -> list[str]:
    told = [
        f"{'.'.join(one.name)} has {one.dead_rows:,} dead rows ({one.dead_share:.0%}), and was not "
        "vacuumed for a day. Run VACUUM as its owner."
        for one in state.tables
        if _is_neglected(one)
    ]
    if _freeze_is_late(state, MOST_FREEZE_DELAYS):
        told.append(
            f"The oldest row of the database of {name} is {state.oldest_row_transactions:,} "
            "transactions old, and is not frozen; the server stops writing at 2 billion. Run "
            "VACUUM FREEZE as its owner."
        )
    if told:
        told.append(
            "End what holds dead rows: a transaction that was left open (the longest: "
            f"{state.longest_transaction_seconds:,.0f} seconds), a prepared one, or a replication "
            "slot nobody reads."
        )
    return told


def _is_neglected(one: TableState) -> bool:
    since = one.seconds_since_vacuum
    return (
        one.dead_rows >= LEAST_DEAD_ROWS
        and one.dead_share > MOST_DEAD_SHARE
        and (since is None or since > LONGEST_UNVACUUMED_SECONDS)
    )


def _freeze_is_late(state: DatabaseState, times: int) -> bool:
    return state.oldest_row_transactions > times * state.freeze_after_transactions


def _sizes(state: DatabaseState) -> dg.MarkdownMetadataValue:
    heads = ["table", "rows", "table bytes", "index bytes", "bytes", "dead rows"]
    rows = [
        (
            ".".join(one.name),
            f"{one.rows:,}",
            f"{one.table_bytes:,}",
            f"{one.index_bytes:,}",
            f"{one.total_bytes:,}",
            f"{one.dead_share:.0%}",
        )
        for one in state.tables[:_MOST_TABLES]
    ]
    return table(heads, rows)
