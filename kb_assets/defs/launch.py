"""`kb index`: Dagster's job in this process, in the same history as the UI's runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEventType, JobFailureData, RunFailureReason

from kb_assets.defs.build import build_definitions
from kb_assets.defs.index_runs import JOB, SHARD_ASSETS, checks_of_runs
from kb_assets.defs.instance import dagster_instance
from kb_assets.defs.options import IndexOptions
from kb_assets.defs.partitions import range_tags, runs_of
from kb_assets.defs.processes import end_abandoned_runs, process_tags
from kb_assets.defs.resources import KnowledgeBaseResource, Observer
from kb_assets.errors import KbError
from kb_assets.fingerprints import Shard
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.knowledge_base.garbage import seldom_collected
from kb_assets.processes import kept_processes

INDEX_ASSET = "vector_index"

_SILENT = {"console": {"config": {"log_level": "CRITICAL"}}}

_NO_SECOND_START = {"dagster/max_retries": "0"}
"""Somebody started the run by hand; if it is killed, they start it again."""


@dataclass(frozen=True, slots=True)
class IndexRun:
    """What Dagster did to bring shards up to date.

    Attributes:
        run_id: The run that failed first, or else the last one.
        run_ids: Every run: one for each source, and one for the index if there are several.
        succeeded: Whether all of them did; checks that failed do not count.
        reports: What each asset reported, by asset and then by shard or space; JSON-safe.
        failed_checks: Names of the checks that are red.
        error: What ended the first run that failed.
    """

    run_id: str
    run_ids: tuple[str, ...]
    succeeded: bool
    reports: dict[str, dict[str, dict[str, Any]]]
    failed_checks: tuple[str, ...]
    error: KbError | None


def run_index(
    kb: KnowledgeBase,
    shards: tuple[Shard, ...],
    *,
    confirm_deletes: bool = False,
    confirm_cost: bool = False,
    verify: bool = False,
    on_event: Callable[[str], None],
) -> IndexRun:
    """Run `index_documents` in this process over shards of one or more sources.

    Every source is a run of its own, so that one that cannot be reached keeps no other from
    being brought up to date.

    Args:
        kb: The knowledge base; it stays open.
        shards: What to bring up to date.
        confirm_deletes: Overrule the mass-delete guard.
        confirm_cost: Overrule the cost limit.
        verify: Trust no version token: read and compare everything.
        on_event: Told, in a sentence, what begins, takes long or waits.

    Raises:
        DatabaseUnavailableError: Dagster's own database cannot be reached.
        KeyboardInterrupt: The user stopped it; the run is marked as canceled.
    """
    options = IndexOptions(
        confirm_deletes=confirm_deletes, confirm_cost=confirm_cost, verify=verify
    )
    observer = Observer(on_event)
    resource = KnowledgeBaseResource(kb.settings, knowledge_base=kb, observer=observer)
    definitions = build_definitions(kb.settings, resource)
    with dagster_instance(kb) as instance, kept_processes(), seldom_collected():
        end_abandoned_runs(instance)
        launcher = _Launcher(instance, definitions.resolve_job_def(JOB), options)
        for tags, assets in _runs(list(runs_of(kb.settings, shards))):
            launcher.launch(tags, assets)
    return _result(launcher.results, observer)


def _runs(ranges: Sequence[Sequence[Shard]]) -> list[tuple[dict[str, str], tuple[str, ...]]]:
    """Return the tags and assets of each run; the index comes last, and once."""
    if len(ranges) == 1:
        return [(range_tags(ranges[0]), (*SHARD_ASSETS, INDEX_ASSET))]
    return [*((range_tags(shards), SHARD_ASSETS) for shards in ranges), ({}, (INDEX_ASSET,))]


class _Launcher:
    """Executes runs of one job, one after the other."""

    def __init__(
        self, instance: dg.DagsterInstance, job: dg.JobDefinition, options: IndexOptions
    ) -> None:
        self._instance = instance
        self._job = job
        self._options = options.model_dump()
        self.results: list[dg.ExecuteInProcessResult] = []

    def launch(self, tags: dict[str, str], assets: Sequence[str]) -> None:
        """Execute a run.

        Raises:
            KeyboardInterrupt: The user stopped it.
        """
        told = [name for name in ("raw_documents", "chunk_embeddings") if name in assets]
        keys = frozenset(dg.AssetKey(name) for name in assets)
        job = self._job.get_subset(asset_selection=keys, asset_check_selection=checks_of_runs(keys))
        result = job.execute_in_process(
            run_config={
                "loggers": _SILENT,
                "ops": {name: {"config": self._options} for name in told},
            },
            instance=self._instance,
            tags={**tags, **process_tags(), **_NO_SECOND_START},
            raise_on_error=False,
        )
        self._stop_if_interrupted(result)
        self.results.append(result)

    def _stop_if_interrupted(self, result: dg.ExecuteInProcessResult) -> None:
        """Dagster swallows an interrupt, and calls one between two steps a failure."""
        last = result.all_events[-1]
        data = last.event_specific_data
        if isinstance(data, JobFailureData) and (
            data.failure_reason == RunFailureReason.UNEXPECTED_TERMINATION
        ):
            self._instance.report_run_canceled(result.dagster_run)
        elif last.event_type != DagsterEventType.RUN_CANCELED:
            return
        raise KeyboardInterrupt


def _result(results: Sequence[dg.ExecuteInProcessResult], observer: Observer) -> IndexRun:
    failed = [result for result in results if not result.success]
    error = observer.failures[0] if observer.failures else None
    if error is not None and not isinstance(error, KbError):
        raise error
    red = {
        evaluation.check_name: None
        for result in results
        for evaluation in result.get_asset_check_evaluations()
        if not evaluation.passed
    }
    return IndexRun(
        run_id=(failed[0] if failed else results[-1]).run_id,
        run_ids=tuple(result.run_id for result in results),
        succeeded=not failed,
        reports=observer.reports,
        failed_checks=tuple(red),
        error=error,
    )
