"""Which process a run lives in, so that runs whose process was killed do not stay "started"."""

import os
import socket
from collections.abc import Sequence
from functools import cache

import dagster as dg
import psutil

HOST_TAG = "kb/host"
PROCESS_TAG = "kb/process"
"""The process's number and when it began: numbers come again."""

_UNFINISHED = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@cache
def process_tags(process: int | None = None) -> dict[str, str]:
    """Return the tags of a run that a process executes; this one by default."""
    number = os.getpid() if process is None else process
    began = psutil.Process(number).create_time()
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: f"{number}@{began:.0f}"}


def sign(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Note on a run which process executes it."""
    tags = process_tags()
    if tags.items() - run.tags.items():
        instance.add_run_tags(run.run_id, tags)


def end_abandoned_runs(instance: dg.DagsterInstance) -> Sequence[str]:
    """Mark runs as failed whose process on this machine is gone, and return which.

    What such a run had stored is kept; the next one goes on from there. Runs on other machines are
    left to those: their processes cannot be seen from here.
    """
    here = dg.RunsFilter(statuses=list(_UNFINISHED), tags={HOST_TAG: socket.gethostname()})
    ended = []
    for run in instance.get_runs(here):
        if not (_is_alive(run.tags.get(PROCESS_TAG, "")) or _is_unsigned(instance, run)):
            instance.report_run_failed(run, message="Its process was killed, or the machine went.")
            ended.append(run.run_id)
    return ended


def _is_alive(signature: str) -> bool:
    number = signature.partition("@")[0]
    try:
        return process_tags.__wrapped__(int(number))[PROCESS_TAG] == signature
    except (psutil.NoSuchProcess, ValueError):
        return False


def _is_unsigned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Say whether a run that is made from another one carries nothing but that one's signature.

    Dagster copies tags when it starts a run again, and the first step signs only once it begins.
    """
    made_from = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return made_from is not None and made_from.tags.get(PROCESS_TAG) == run.tags.get(PROCESS_TAG)
