"""The job `index_documents`, and its runs: which shards each takes, and which are busy."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kb_assets.defs.checks import index_checks
from kb_assets.defs.jobs import job_of
from kb_assets.defs.partitions import range_tags, runs_in_cluster, runs_of, shards_of_run
from kb_assets.defs.processes import end_abandoned_runs
from kb_assets.fingerprints import Shard
from kb_assets.settings import Settings

JOB = "index_documents"

SHARD_ASSETS = ("raw_documents", "document_chunks", "chunk_embeddings", "published_documents")

FRESH = dg.AssetCheckKey(dg.AssetKey("raw_documents"), "every_source_is_fresh")
"""The check of what no run looked at, and therefore none of the job's."""

GOING = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
"""What a run is that will end by itself."""


def index_documents_job() -> UnresolvedAssetJobDefinition:
    """Return the job: from a source's listing to an index that is looked after."""
    return job_of(
        JOB,
        selection=dg.AssetSelection.assets(*SHARD_ASSETS, "vector_index")
        - dg.AssetSelection.checks(FRESH),
        description="Brings shards up to date: read, split, embed, publish; then looks after the "
        "vector index. What did not change costs nothing.",
    )


def cut_into_runs(settings: Settings, shards: Sequence[Shard]) -> list[tuple[Shard, ...]]:
    """Return which shards go together: a source's neighbours, or in a cluster each by itself."""
    if runs_in_cluster():
        return [(shard,) for shard in shards]
    return list(runs_of(settings, shards))


def run_request(shards: Sequence[Shard], key: str) -> dg.RunRequest:
    """Return the request of a run over shards that go together.

    In a cluster the vector index is left out, and follows by its automation condition when no
    shard is being loaded any more.

    Args:
        shards: What it brings up to date.
        key: Dagster starts one run of the same key, however often it is asked for.
    """
    tags = range_tags(shards)
    if not runs_in_cluster():
        return dg.RunRequest(run_key=key, tags=tags)
    assets = [dg.AssetKey(name) for name in SHARD_ASSETS]
    checks = checks_of_runs(assets)
    return dg.RunRequest(
        run_key=key, tags=tags, asset_selection=assets, asset_check_keys=list(checks)
    )


def checks_of_runs(assets: Iterable[dg.AssetKey]) -> frozenset[dg.AssetCheckKey]:
    """Return the checks that a run of these assets makes; unasked, Dagster takes all there are."""
    wanted = set(assets)
    keys = {key for check in index_checks() for key in check.check_keys}
    return frozenset(key for key in keys if key.asset_key in wanted)


def shards_being_worked_on(
    settings: Settings, instance: dg.DagsterInstance, *, since: datetime | None = None
) -> set[str]:
    """Return the keys of shards that a run holds or waits for, whoever started it.

    Args:
        settings: Of the knowledge base.
        instance: Where the runs are.
        since: Leaves out runs that were asked for earlier.
    """
    end_abandoned_runs(instance)
    runs = instance.get_runs(dg.RunsFilter(statuses=list(GOING), created_after=since))
    return {shard.key for run in runs for shard in shards_of_run(settings, run.tags)}
