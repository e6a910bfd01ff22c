"""Celery's application: `celery --app kb_assets.defs.celery_worker worker`.

It is the one that `$DAGSTER_HOME/dagster.yaml` describes for the launcher, so that who sends and
who receives cannot disagree.
"""

import os
import signal
from typing import Any

import dagster as dg
from celery.signals import task_prerun, worker_ready  # type: ignore[import-untyped]
from dagster._core.instance.ref import InstanceRef
from dagster_celery.tasks import create_execute_job_task

# Loaded before each run's process is made as a copy of this one: it then starts at once.
import kb_assets.defs.build  # noqa: F401
from kb_assets.defs.celery_launcher import CeleryWorkersLauncher
from kb_assets.defs.processes import end_abandoned_runs
from kb_assets.errors import DatabaseUnavailableError, SettingsError

_TRIED_AGAIN: Any = {
    # Only what is raised before the run has begun comes out of the task.
    "autoretry_for": (DatabaseUnavailableError,),
    "max_retries": None,
    # Seconds: the first pause, which doubles, and the longest.
    "retry_backoff": 2,
    "retry_backoff_max": 60,
}


def _launcher() -> CeleryWorkersLauncher:
    """Return the launcher without connecting to anything: processes are copied from this one.

    Raises:
        SettingsError: Dagster's home is not named, or its runs are not Celery's.
    """
    home = os.environ.get("DAGSTER_HOME", "")
    launcher = InstanceRef.from_dir(home).run_launcher if home else None
    if isinstance(launcher, CeleryWorkersLauncher):
        return launcher
    raise SettingsError(
        "There is nothing to work for.",
        why=f"dagster.yaml in {home} has another run_launcher."
        if home
        else "DAGSTER_HOME is not set.",
        fix="Let DAGSTER_HOME name the folder of deploy/celery/dagster.yaml: docs/celery.md.",
    )


app = _launcher().celery
create_execute_job_task(app, **_TRIED_AGAIN)


@worker_ready.connect  # type: ignore[untyped-decorator]
def end_runs_of_the_killed(**_: Any) -> None:  # noqa: ANN401
    """End runs that a killed worker of this machine had: nobody needs to ask for it first."""
    with dg.DagsterInstance.get() as instance:
        end_abandoned_runs(instance)


@task_prerun.connect  # type: ignore[untyped-decorator]
def end_when_told(**_: Any) -> None:  # noqa: ANN401
    """Undo what a run before in this process left: Dagster lets it ignore to be terminated."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
