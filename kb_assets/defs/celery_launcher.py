"""Runs as Celery's tasks: dagster-celery's launcher, and what it leaves open.

Named in `deploy/celery/dagster.yaml`. Needs the extra `celery`.
"""

from collections.abc import Mapping
from typing import Any

from dagster import DagsterRun, Field, StringSource
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._serdes import ConfigurableClassData
from dagster_celery.defaults import broker_transport_options
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

QUEUE = "dagster"
"""The queue all workers take runs from."""

ASK_SECONDS = 5
"""How long a worker may take to say what it is doing; its runs have processes of their own."""

ASK_TIMES = 2

_UNFINISHED = ("STARTED", "PENDING")
"""What a task is that goes on; Celery calls "pending" what it knows nothing of."""

_LONGEST_RUN_SECONDS = 25 * 3600
"""More than `run_monitoring.max_runtime_seconds`: until then a message is not given out again."""

_LARGEST_PROCESS_KB = 1_000_000

_APPLICATION = {
    # A worker that is busy reserves nothing: what waits goes to whoever is free first.
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    # A process that has grown is replaced by a fresh one after its run; a fresh one for each run
    # would take seconds every time.
    "worker_max_memory_per_child": _LARGEST_PROCESS_KB,
    "broker_transport_options": {
        **broker_transport_options,
        "visibility_timeout": _LONGEST_RUN_SECONDS,
    },
    "result_expires": _LONGEST_RUN_SECONDS,
    "broker_connection_retry_on_startup": True,
    "task_default_queue": QUEUE,
}


class CeleryWorkersLauncher(CeleryRunLauncher):
    """Starts each run as a task of Celery, and knows when no worker has it any more.

    dagster-celery looks at the task's result alone. That says "started" for as long as it is kept,
    also when the worker was killed or its machine is gone; and "success" of a process that could
    not tell Dagster how its run ended.
    """

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return what `dagster.yaml` says: where the broker is. The rest has one right answer."""
        return {"broker": Field(StringSource)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> "CeleryWorkersLauncher":
        """Return the launcher; results are kept beside the queue."""
        broker = config_value["broker"]
        return cls(
            default_queue=QUEUE,
            broker=broker,
            backend=broker,
            config_source=_APPLICATION,
            inst_data=inst_data,
        )

    @property
    def supports_resume_run(self) -> bool:
        """Whether a run whose worker died goes on by itself: it fails, and is started anew."""
        return False

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Say whether a worker has a run that is said to go on.

        Whoever asks looks at the run again before believing that its worker is gone.
        """
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "It was started a moment ago.")
        result = self.celery.AsyncResult(task_id)
        if result.state not in _UNFINISHED:
            return CheckRunHealthResult(
                WorkerStatus.FAILED, "Its process ended without a word: the database was away."
            )
        if self._is_held(task_id, result.info):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "No worker has it: one was killed.")

    def terminate(self, run_id: str) -> bool:
        """Stop a run: its step is interrupted, or it never begins."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        return super().terminate(run_id)

    def _is_held(self, task_id: str, started: object) -> bool:
        """Say whether a worker has a task.

        Args:
            task_id: The task.
            started: What the worker noted that began it; without, all are asked.
        """
        host = started.get("hostname") if isinstance(started, dict) else None
        for _ in range(ASK_TIMES):
            asked = self.celery.control.inspect([host] if host else None, timeout=ASK_SECONDS)
            answers = asked.query_task(task_id)
            if answers:
                return any(task_id in tasks for tasks in answers.values())
        return False
