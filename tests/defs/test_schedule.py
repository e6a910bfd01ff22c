"""What the schedule starts, and when it leaves something out."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from kb_assets.defs.build import build_definitions
from kb_assets.defs.index_runs import JOB
from kb_assets.defs.partitions import EXECUTION_VARIABLE, range_tags
from kb_assets.defs.processes import process_tags
from kb_assets.errors import SettingsError
from kb_assets.settings import Settings
from tests.defs.conftest import write_config

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(write_config(tmp_path, handbook=1, wiki=4))


def tick(
    settings: Settings, instance: dg.DagsterInstance, name: str = f"{JOB}_schedule"
) -> tuple[list[dg.RunRequest], str | None]:
    definitions = build_definitions(settings)
    schedule = definitions.resolve_schedule_def(name)
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
        checks = {key.name for key in request.asset_check_keys or []}
        assert "every_document_is_accounted_for" in checks
        assert checks.isdisjoint({"every_source_is_fresh", "index_is_valid"})


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


def with_crons(file: Path, **crons: str) -> Settings:
    text = file.read_text()
    for name, cron in crons.items():
        text = text.replace(f'name = "{name}"', f'name = "{name}"\ncron = "{cron}"')
    file.write_text(text)
    return Settings.load(file)


def test_a_source_with_a_cron_has_a_schedule_of_its_own_and_is_no_part_of_the_common_one(
    tmp_path: Path,
) -> None:
    file = write_config(tmp_path, documents=1, wiki=4)
    settings = with_crons(file, documents="30 2 * * *")
    schedules = {one.name: one for one in build_definitions(settings).schedules or []}

    own = schedules["index_documents_documents_schedule"]
    assert own.cron_schedule == "30 2 * * *"
    assert own.default_status == dg.DefaultScheduleStatus.RUNNING
    with dg.instance_for_test() as instance:
        assert [shards(one) for one in tick(settings, instance, own.name)[0]] == ["documents"]
        assert [shards(one) for one in tick(settings, instance)[0]] == [
            "wiki-01-of-04...wiki-04-of-04"
        ]


def test_where_every_source_has_a_cron_there_is_no_common_schedule(tmp_path: Path) -> None:
    settings = with_crons(write_config(tmp_path, wiki=1), wiki="30 2 * * *")

    names = {one.name for one in build_definitions(settings).schedules or []}

    assert "index_documents_wiki_schedule" in names
    assert f"{JOB}_schedule" not in names


def test_schedules_of_two_sources_have_two_names(tmp_path: Path) -> None:
    file = write_config(tmp_path, **{"a-b": 1, "a_b": 1})
    Settings.load(file)

    with pytest.raises(SettingsError, match="differ in - and _"):
        with_crons(file, **{"a-b": "0 2 * * *", "a_b": "0 3 * * *"})


def test_questions_are_asked_by_the_clock_only_if_that_is_set(tmp_path: Path) -> None:
    (tmp_path / "questions.yaml").write_text("[]")
    file = write_config(tmp_path, wiki=1)

    def asked(cron: str) -> list[dg.RunRequest] | None:
        quality = {"questions": "questions.yaml", "cron": cron}
        settings = Settings.load(file, quality=quality)
        names = {one.name for one in build_definitions(settings).schedules or []}
        if "measure_retrieval_schedule" not in names:
            return None
        with dg.instance_for_test() as instance:
            return tick(settings, instance, "measure_retrieval_schedule")[0]

    assert asked("") is None
    (request,) = asked("0 6 * * *") or []
    assert request.run_key == "2026-11-21T00:00:00+00:00"


def test_a_run_of_another_job_for_a_shard_keeps_it_out(settings: Settings) -> None:
    """Such as one that the UI started for some of the assets."""
    by_hand = dg.define_asset_job("by_hand", dg.AssetSelection.assets("raw_documents"))
    definitions = dg.Definitions.merge(build_definitions(settings), dg.Definitions(jobs=[by_hand]))
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(
            definitions.resolve_job_def("by_hand"),
            tags={"dagster/partition": "handbook", **process_tags()},
        )
        instance.report_run_canceling(run)
        requests, _ = tick(settings, instance)

    assert [shards(one) for one in requests] == ["wiki-01-of-04...wiki-04-of-04"]


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
