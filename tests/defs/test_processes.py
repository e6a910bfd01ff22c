"""Which runs are taken for abandoned, and which are not."""

from collections.abc import Iterator

import dagster as dg
import pytest

from kb_assets.defs.processes import PROCESS_TAG, end_abandoned_runs, process_tags, sign

GONE = {**process_tags(), PROCESS_TAG: "999999999@1"}


@dg.job
def nothing() -> None: ...


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def going(instance: dg.DagsterInstance, **options: object) -> dg.DagsterRun:
    run = instance.create_run_for_job(nothing, **options)
    instance.report_run_canceling(run)
    return run


def test_a_run_whose_process_is_gone_is_ended(instance: dg.DagsterInstance) -> None:
    dead, alive = going(instance, tags=GONE), going(instance, tags=process_tags())

    assert end_abandoned_runs(instance) == [dead.run_id]
    assert instance.get_run_by_id(dead.run_id).is_finished
    assert not instance.get_run_by_id(alive.run_id).is_finished


def test_a_run_of_another_machine_is_left_to_that(instance: dg.DagsterInstance) -> None:
    going(instance, tags={**GONE, "kb/host": "elsewhere"})

    assert end_abandoned_runs(instance) == []


def test_a_run_that_is_started_again_is_not_taken_for_the_one_that_died(
    instance: dg.DagsterInstance,
) -> None:
    dead = going(instance, tags=GONE)
    end_abandoned_runs(instance)
    # As Dagster makes it: with the tags of the first, until its first step signs it.
    again = going(instance, tags=GONE, parent_run_id=dead.run_id, root_run_id=dead.run_id)

    assert end_abandoned_runs(instance) == []
    sign(instance, instance.get_run_by_id(again.run_id))
    assert instance.get_run_by_id(again.run_id).tags[PROCESS_TAG] == process_tags()[PROCESS_TAG]


def test_the_same_number_on_another_machine_is_another_process(
    instance: dg.DagsterInstance,
) -> None:
    run = going(instance, tags={**process_tags(), "kb/host": "elsewhere"})
    sign(instance, run)

    assert instance.get_run_by_id(run.run_id).tags["kb/host"] == process_tags()["kb/host"]
