"""The daemon's own functions with a clock that stands: missed ticks, ticks twice, two daemons."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.storage.tags import SCHEDULED_EXECUTION_TIME_TAG
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget, freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler import scheduler

from kb_assets.defs.index_runs import JOB
from kb_assets.defs.partitions import SHARD_TAG
from tests.defs.conftest import write_config, write_documents

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

SHARDS = ["handbook", "wiki-01-of-04...wiki-04-of-04"]
MONDAY = datetime(2026, 11, 23, 3, 50, tzinfo=UTC)
LOGGER = logging.getLogger("ticks")

DEFINITIONS = """
from pathlib import Path
from kb_assets.defs.build import build_definitions
from kb_assets.settings import Settings
defs = build_definitions(Settings.load(Path({file!r})))
"""


class Daemon:
    """What one daemon does in an iteration; runs are created, and never executed."""

    def __init__(self, context: WorkspaceProcessContext) -> None:
        self._context = context
        self._times: dict = {}

    def schedules(self, at: datetime) -> None:
        for error in scheduler.launch_scheduled_runs(self._context, LOGGER, at, self._times):
            assert error is None, error

    def sensors(self) -> None:
        for error in execute_sensor_iteration(self._context, LOGGER, None, None):
            assert error is None, error


@contextmanager
def daemon(instance: dg.DagsterInstance, file: Path) -> Iterator[Daemon]:
    module = file.with_name("definitions_of_test.py")
    module.write_text(DEFINITIONS.format(file=str(file)))
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(python_file=str(module), attribute="defs")
    )
    with WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(origin)) as context:
        yield Daemon(context)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    launcher = {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"}
    with dg.instance_for_test(overrides={"run_launcher": launcher}) as made:
        yield made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two sources, indexed each day at four; backups, which are of now, are out of the way."""
    file = write_config(tmp_path, handbook=1, wiki=4)
    rest = '\n[schedule]\ncron = "0 4 * * *"\n[backup]\ncron = "0 0 1 1 *"\n'
    file.write_text(file.read_text() + rest)
    return file


def runs(instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    """Return when runs of the job were due, and over what, and end them."""
    found = instance.get_runs(dg.RunsFilter(job_name=JOB))
    for run in found:
        if not run.is_finished:
            instance.report_run_canceled(run)
    return sorted(
        (one.tags[SCHEDULED_EXECUTION_TIME_TAG][:10], one.tags[SHARD_TAG]) for one in found
    )


def test_a_daemon_that_was_away_for_days_makes_up_for_the_last_of_them(
    instance: dg.DagsterInstance, config: Path
) -> None:
    with daemon(instance, config) as first, freeze_time(MONDAY):
        first.schedules(MONDAY)
    with freeze_time(MONDAY + timedelta(minutes=11)), daemon(instance, config) as first:
        first.schedules(MONDAY + timedelta(minutes=11))
    assert runs(instance) == [("2026-11-23", shard) for shard in SHARDS]

    thursday = MONDAY + timedelta(days=3, hours=9)
    with freeze_time(thursday), daemon(instance, config) as restarted:
        restarted.schedules(thursday)

    days = ["2026-11-23"] * 2 + ["2026-11-26"] * 2
    assert runs(instance) == list(zip(days, SHARDS * 2, strict=True))


def test_a_daemon_that_was_killed_in_a_tick_goes_on_with_it(
    instance: dg.DagsterInstance, config: Path
) -> None:
    due = MONDAY + timedelta(minutes=11)
    with daemon(instance, config) as first:
        with freeze_time(MONDAY):
            first.schedules(MONDAY)
        with freeze_time(due), pytest.MonkeyPatch.context() as patch:
            submit, submitted = scheduler._submit_run_request, []

            def killed(*arguments: object, **named: object) -> object:
                if submitted:
                    raise KeyboardInterrupt
                submitted.append(1)
                return submit(*arguments, **named)

            patch.setattr(scheduler, "_submit_run_request", killed)
            with pytest.raises(KeyboardInterrupt):
                first.schedules(due)
    assert len(instance.get_runs()) == 1

    with freeze_time(due + timedelta(minutes=1)), daemon(instance, config) as restarted:
        restarted.schedules(due + timedelta(minutes=1))

    assert runs(instance) == [("2026-11-23", shard) for shard in SHARDS]


def test_a_second_daemon_in_the_middle_of_a_tick_starts_nothing_twice(
    instance: dg.DagsterInstance, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = MONDAY + timedelta(minutes=11)
    with daemon(instance, config) as one, daemon(instance, config) as other:
        with freeze_time(MONDAY):
            one.schedules(MONDAY)
        submit, submitted = scheduler._submit_run_request, []

        def second_comes(*arguments: object, **named: object) -> object:
            submitted.append(arguments)
            if len(submitted) == 2:
                other.schedules(due)
            return submit(*arguments, **named)

        monkeypatch.setattr(scheduler, "_submit_run_request", second_comes)
        with freeze_time(due):
            one.schedules(due)

    assert len(submitted) > 2
    assert runs(instance) == [("2026-11-23", shard) for shard in SHARDS]


def test_two_daemons_start_what_changed_once(
    environment: None, instance: dg.DagsterInstance, config: Path
) -> None:
    write_documents(config.parent / "wiki", 3)
    with daemon(instance, config) as one, daemon(instance, config) as other:
        with freeze_time(MONDAY):
            one.sensors()
            other.sensors()
        shards = [run.tags.get(SHARD_TAG) for run in instance.get_runs()]

    assert sorted(filter(None, shards)) == SHARDS
