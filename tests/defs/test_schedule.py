"""What the schedule starts, and when it leaves something out."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from kb_assets.defs.build import build_definitions
from kb_assets.defs.partitions import EXECUTION_VARIABLE, range_tags
from kb_assets.defs.processes import process_tags
from kb_assets.defs.schedules import JOB
from kb_assets.settings import Settings
from tests.defs.conftest import write_config

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(write_config(tmp_path, handbook=1, wiki=4))


def tick(
    settings: Settings, instance: dg.DagsterInstance
) -> tuple[list[dg.RunRequest], str | None]:
    definitions = build_definitions(settings)
    schedule = definitions.resolve_schedule_def(f"{JOB}_schedule")
    with dg.build_schedule_context(
        instance=instance,
        repository_def=definitions.get_repository_def(),
        scheduled_execution_time=datetime(2026, 11, 21, tzinfo=UTC),
    ) as context:
        data = schedule.evaluate_tick(context)
    return list(data.run_requests or []), data.skip_message


def shards(request: dg.RunRequest) -> str:
    return request.tags["kb/shard"]


def going(instance: dg.DagsterInstance, settings: Settings, **tags: str) -> dg.DagsterRun:
    """Pretend that a run over the first source has started."""
    run = instance.create_run_for_job(
        build_definitions(settings).resolve_job_def(JOB),
        tags={**range_tags(settings.shards[:1]), **tags},
    )
    instance.report_run_canceling(run)
    return run


def test_every_source_is_a_run(settings: Settings) -> None:
    with dg.instance_for_test() as instance:
        requests, skipped = tick(settings, instance)

    assert skipped is None
    assert [shards(one) for one in requests] == ["handbook", "wiki-01-of-04...wiki-04-of-04"]
    assert all(one.asset_selection is None for one in requests)


def test_in_a_cluster_every_shard_is_a_run_and_the_index_follows_by_itself(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXECUTION_VARIABLE, "cluster")

    with dg.instance_for_test() as instance:
        requests, _ = tick(settings, instance)

    assert [shards(one) for one in requests] == [shard.key for shard in settings.shards]
    for request in requests:
        assert dg.AssetKey("vector_index") not in (request.asset_selection or [])


def test_a_source_whose_run_is_still_going_is_left_out(settings: Settings) -> None:
    with dg.instance_for_test() as instance:
        going(instance, settings, **process_tags())
        requests, _ = tick(settings, instance)

    assert [shards(one) for one in requests] == ["wiki-01-of-04...wiki-04-of-04"]


def test_a_run_whose_process_is_gone_keeps_nothing_out(settings: Settings) -> None:
    with dg.instance_for_test() as instance:
        dead = going(instance, settings, **{**process_tags(), "kb/process": "999999999@1"})
        requests, _ = tick(settings, instance)
        run = instance.get_run_by_id(dead.run_id)

    assert len(requests) == 2
    assert run is not None
    assert run.is_failure_or_canceled


def test_it_says_why_it_starts_nothing(tmp_path: Path) -> None:
    one = Settings.load(write_config(tmp_path, handbook=1))
    none = Settings.load(write_config(tmp_path))

    with dg.instance_for_test() as instance:
        going(instance, one, **process_tags())

        assert "still going" in (tick(one, instance)[1] or "")
        assert "no sources" in (tick(none, instance)[1] or "")


@pytest.mark.parametrize("enabled", [True, False])
def test_it_runs_by_itself_only_if_settings_say_so(tmp_path: Path, enabled: bool) -> None:
    file = write_config(tmp_path, handbook=1)
    schedule = {"enabled": enabled, "cron": "5 4 * * *", "timezone": "Europe/Berlin"}
    settings = Settings.load(file, schedule=schedule)

    made = build_definitions(settings).resolve_schedule_def(f"{JOB}_schedule")

    assert made.cron_schedule == "5 4 * * *"
    assert made.execution_timezone == "Europe/Berlin"
    assert (made.default_status == dg.DefaultScheduleStatus.RUNNING) is enabled


def test_the_index_follows_when_shards_were_published_without_it(settings: Settings) -> None:
    definitions = build_definitions(settings)
    published, index = dg.AssetKey("published_documents"), dg.AssetKey("vector_index")
    with dg.DagsterInstance.ephemeral() as instance:
        first = dg.evaluate_automation_conditions(defs=definitions, instance=instance)
        instance.report_runless_asset_event(
            dg.AssetMaterialization(published, partition="handbook")
        )
        second = dg.evaluate_automation_conditions(
            defs=definitions, instance=instance, cursor=first.cursor
        )
        instance.report_runless_asset_event(dg.AssetMaterialization(index))
        third = dg.evaluate_automation_conditions(
            defs=definitions, instance=instance, cursor=second.cursor
        )

    assert [run.get_num_requested(index) for run in (first, second, third)] == [0, 1, 0]


def test_the_index_is_not_asked_for_twice(settings: Settings) -> None:
    """One run that publishes and then looks after the index leaves nothing to do."""
    definitions = build_definitions(settings)
    index = dg.AssetKey("vector_index")
    with dg.DagsterInstance.ephemeral() as instance:
        before = dg.evaluate_automation_conditions(defs=definitions, instance=instance)
        for key, partition in (("published_documents", "handbook"), ("vector_index", None)):
            made = dg.AssetMaterialization(dg.AssetKey(key), partition=partition)
            instance.report_runless_asset_event(made)
        after = dg.evaluate_automation_conditions(
            defs=definitions, instance=instance, cursor=before.cursor
        )

    assert after.get_num_requested(index) == 0
