"""What is too old is told: which source, since when; and the policies that Dagster looks at."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from kb_assets import KnowledgeBase
from kb_assets.defs.automation import SENSOR as AUTOMATION
from kb_assets.defs.build import build_definitions
from kb_assets.defs.freshness import due_before
from kb_assets.defs.index_runs import FRESH, JOB
from kb_assets.defs.instance import dagster_instance
from kb_assets.defs.partitions import range_tags
from kb_assets.defs.processes import process_tags
from kb_assets.settings import Settings
from tests.defs.conftest import index, job, write_config

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

NOW = datetime.now(UTC)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def look(instance: dg.DagsterInstance, shard: str, hours_ago: float) -> None:
    """Pretend that a run looked at a shard."""
    with freeze_time(NOW - timedelta(hours=hours_ago)):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(FRESH.asset_key, partition=shard)
        )


def evaluate(kb: KnowledgeBase, instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    result = job(kb, dg.AssetSelection.checks(FRESH)).execute_in_process(instance=instance)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def going(kb: KnowledgeBase, instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(
        build_definitions(kb.settings).resolve_job_def(JOB),
        tags={**range_tags(kb.settings.shards), **process_tags()},
    )
    instance.report_run_canceling(run)


def test_the_shard_that_was_not_looked_at_is_named(
    kb: KnowledgeBase, instance: dg.DagsterInstance
) -> None:
    """Another shard that is looked at all the time makes none of the others fresh."""
    for shard, hours in (("01", 2), ("02", 30), ("03", 2), ("04", 25)):
        look(instance, f"wiki-{shard}-of-04", hours)
    look(instance, "wiki-01-of-04", 1)

    said = evaluate(kb, instance)

    assert not said.passed
    assert said.description is not None
    moment = (NOW - timedelta(hours=30)).strftime("%Y-%m-%d %H:%M")
    expected = f"wiki-02-of-04, wiki-04-of-04: last looked at {moment} UTC."
    assert said.description.startswith(expected)
    assert said.metadata["stale_shards"].value == 2
    since = (datetime.now(UTC) - NOW) / timedelta(hours=1)
    assert said.metadata["oldest_look_hours"].value == pytest.approx(30 + since, abs=0.2)


def test_a_source_nobody_looked_at_is_named_as_a_whole(
    kb: KnowledgeBase, instance: dg.DagsterInstance
) -> None:
    said = evaluate(kb, instance)

    assert not said.passed
    assert (said.description or "").startswith("wiki: last looked at never.")


def test_it_is_green_once_a_run_looked_even_if_nothing_had_changed(kb: KnowledgeBase) -> None:
    index(kb)
    with dagster_instance(kb) as instance:
        assert evaluate(kb, instance).passed
        index(kb)
        assert evaluate(kb, instance).passed


def test_what_a_run_works_on_is_left_out_unless_it_has_for_too_long(
    kb: KnowledgeBase, instance: dg.DagsterInstance
) -> None:
    with freeze_time(NOW - timedelta(hours=30)):
        going(kb, instance)
    assert not evaluate(kb, instance).passed

    going(kb, instance)
    assert evaluate(kb, instance).passed


def test_a_source_with_a_slow_schedule_is_judged_by_that(tmp_path: Path) -> None:
    file = write_config(tmp_path, weekly=1, often=1)
    text = file.read_text().replace('uri = "weekly"', 'uri = "weekly"\ncron = "0 3 * * 0"')
    file.write_text(text)
    settings = Settings.load(file)
    weekly, often = settings.sources

    def due(source, *moment: int) -> datetime:
        return due_before(source, settings, datetime(2026, 11, *moment, tzinfo=UTC))

    sunday, last = datetime(2026, 11, 22, 3, tzinfo=UTC), datetime(2026, 11, 15, 3, tzinfo=UTC)
    assert due(weekly, 27, 12) == sunday
    assert due(weekly, 23, 2) == last
    assert due(weekly, 23, 3, 1) == sunday
    assert due(often, 23, 3, 1) == datetime(2026, 11, 22, 3, tzinfo=UTC)


def test_runs_of_the_job_leave_it_out_and_the_sensor_asks_for_it_each_hour(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build_definitions(settings)
    assert FRESH not in definitions.resolve_job_def(JOB).asset_layer.asset_graph.asset_check_keys

    sensor = definitions.resolve_sensor_def(AUTOMATION)

    def asked(at: datetime, cursor: object = None) -> tuple[int, object]:
        found = dg.evaluate_automation_conditions(
            defs=definitions,
            instance=instance,
            asset_selection=sensor.asset_selection,
            cursor=cursor,
            evaluation_time=at,
        )
        return sum(one.true_subset.size for one in found.results if one.key == FRESH), found.cursor

    start = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
    first, cursor = asked(start)
    before, cursor = asked(start + timedelta(minutes=9), cursor)
    after, cursor = asked(start + timedelta(minutes=11), cursor)
    again, cursor = asked(start + timedelta(minutes=12), cursor)
    later, cursor = asked(start + timedelta(minutes=71), cursor)

    assert [first, before, after, again, later] == [0, 0, 1, 0, 1]


def test_assets_say_how_old_they_may_be(tmp_path: Path) -> None:
    questions = tmp_path / "questions.yaml"
    questions.write_text("[]")
    settings = Settings.load(
        write_config(tmp_path, wiki=1),
        schedule={"max_age_hours": 5},
        backup={"max_age_hours": 7},
        quality={"questions": questions},
        archive={"uri": "archive"},
    )
    specs = {
        spec.key.to_user_string(): spec
        for spec in build_definitions(settings).resolve_all_asset_specs()
    }

    hours = {
        name: spec.freshness_policy.fail_window.to_timedelta().total_seconds() / 3600
        for name, spec in specs.items()
        if spec.freshness_policy is not None
    }

    assert hours == {
        "published_documents": 5,
        "retrieval_quality": 5,
        "database_backup": 7,
        "message_archive": 62 * 24,
    }
