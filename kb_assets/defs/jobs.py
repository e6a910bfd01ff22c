"""What all jobs have in common."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kb_assets.defs.failures import NO_RUN_RETRIES


def job_of(
    name: str, selection: dg.AssetSelection, description: str
) -> UnresolvedAssetJobDefinition:
    """Return a job that works in its run's own process, and is not started again if a step fails.

    Starting a process for each step takes longer than most steps do, and what spreads is runs.

    Args:
        name: What runs are found by.
        selection: What a run makes, checks included.
        description: What the UI says of it.
    """
    return dg.define_asset_job(
        name,
        selection=selection,
        executor_def=dg.in_process_executor,
        tags=NO_RUN_RETRIES,
        description=description,
    )
