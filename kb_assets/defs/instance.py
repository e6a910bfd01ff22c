"""Dagster's instance for runs in this process."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dagster as dg
from dagster._core.instance import InstanceType
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.run_coordinator import DefaultRunCoordinator
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage

from kb_assets.defs.storage import KnowledgeBaseStorage, storage_must_answer
from kb_assets.knowledge_base import KnowledgeBase

_BATCH = "DAGSTER_EVENT_BATCH_SIZE"


@contextmanager
def dagster_instance(knowledge_base: KnowledgeBase) -> Iterator[dg.DagsterInstance]:
    """Lend an instance that keeps its runs where the UI finds them.

    It differs from the one `dagster.yaml` describes in what a run in this process needs: it
    holds connections open instead of making one for each event, writes events in batches, and
    leaves the console alone.

    Raises:
        DatabaseUnavailableError: Its database cannot be reached.
    """
    state = knowledge_base.settings.home_folder / "dagster"
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(storage_must_answer())
        storage = KnowledgeBaseStorage.at(knowledge_base.urls.dagster)
        storage.keep_connections()
        yield stack.enter_context(
            dg.DagsterInstance(
                # Not "persistent", which means that other processes can be told how to make it.
                instance_type=InstanceType.EPHEMERAL,
                local_artifact_storage=LocalArtifactStorage(str(state)),
                run_storage=storage.run_storage,
                event_storage=storage.event_log_storage,
                schedule_storage=storage.schedule_storage,
                compute_log_manager=NoOpComputeLogManager(),
                run_coordinator=DefaultRunCoordinator(),
                run_launcher=DefaultRunLauncher(),
                settings={"telemetry": {"enabled": False}},
            )
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dagster's messages off the console, and its writes in batches, for a while."""
    before = os.environ.get(_BATCH)
    os.environ.setdefault(_BATCH, "100")
    logger = logging.getLogger("dagster")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    root = logging.getLogger()
    root.addFilter(_is_from_a_named_logger)
    try:
        yield
    finally:
        root.removeFilter(_is_from_a_named_logger)
        logger.setLevel(level)
        if before is None:
            os.environ.pop(_BATCH, None)


def _is_from_a_named_logger(record: logging.LogRecord) -> bool:
    """Say whether a record is not one of those dagster_postgres says to nobody in particular."""
    return record.name != "root"
