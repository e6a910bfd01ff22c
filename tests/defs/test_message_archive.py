"""The archive in Dagster: its asset, checks that turn red when it is broken, its schedule."""

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from kb_assets import KnowledgeBase, Message
from kb_assets.defs.build import build_definitions
from kb_assets.defs.partitions import month_tags
from kb_assets.defs.processes import process_tags
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.defs.schedules import ARCHIVE_JOB
from kb_assets.errors import ObjectStoreUnavailableError
from kb_assets.settings import Settings
from tests.defs.conftest import evaluate, evaluate_all, job, write_config

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

ARCHIVE = dg.AssetKey("message_archive")
CHECKS = ("archive_matches_manifest", "hot_and_cold_are_disjoint", "nothing_old_is_left_hot")
OLD, OLDER = date(2025, 3, 1), date(2025, 1, 1)
NOW = datetime.now(UTC)
CONTENT = "where is my parcel"


@pytest.fixture
def kb(environment: None, tmp_path: Path) -> Iterator[KnowledgeBase]:
    """Two old months of messages, and this month's; an archive beside kb.toml."""
    file = write_config(tmp_path)
    with file.open("a") as config:
        config.write('\n[archive]\nfirst_month = "2025-01"\n')
    with KnowledgeBase.open(file) as opened:
        for month in (OLDER, OLD, NOW.date().replace(day=1)):
            opened.messages.append(messages(month))
        yield opened


def messages(month: date, count: int = 8, *, name: str = "message") -> list[Message]:
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    return [
        Message(
            id=f"{name}-{number}",
            conversation_id=f"person-{number % 2}",
            created_at=start + timedelta(minutes=number),
            role="user",
            content=f"{CONTENT} {number}",
        )
        for number in range(count)
    ]


def archive(
    kb: KnowledgeBase, *months: date, instance: dg.DagsterInstance | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize the asset from the first of these months to the last, with its checks."""
    return job(kb, dg.AssetSelection.assets(ARCHIVE)).execute_in_process(
        tags=month_tags(months), instance=instance, raise_on_error=False
    )


def shown(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, object]]:
    """Return the values of each month's metadata."""
    return {
        str(event.partition): {name: one.value for name, one in event.metadata.items()}
        for event in result.asset_materializations_for_node("message_archive")
    }


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {one.check_name: one.passed for one in result.get_asset_check_evaluations()}


def execute(kb: KnowledgeBase, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(kb.urls.migrator, autocommit=True) as connection:
        found = connection.execute(statement.encode())
        return found.fetchall() if found.description else []


def hot_rows(kb: KnowledgeBase, month: date) -> int:
    ((rows,),) = execute(
        kb,
        f"select count(*) from kb.message where created_at >= '{month}' and"
        f" created_at < date '{month}' + interval '1 month'",
    )
    assert isinstance(rows, int)
    return rows


def objects(kb: KnowledgeBase) -> list[Path]:
    return sorted((kb.settings.root / "archive").rglob("*.parquet"))


def test_a_due_month_leaves_the_database_and_its_numbers_are_shown(kb: KnowledgeBase) -> None:
    result = archive(kb, OLD)

    assert result.success
    assert hot_rows(kb, OLD) == 0
    assert hot_rows(kb, OLDER) == 8, "only what was asked for"
    metadata = shown(result)["2025-03"]
    assert metadata["rows"] == metadata["dagster/row_count"] == 8
    assert metadata["bytes_before"] > 0  # type: ignore[operator]
    (file,) = objects(kb)
    assert metadata["bytes_after"] == metadata["archived_bytes"] == file.stat().st_size
    assert metadata["ratio"] == pytest.approx(
        metadata["bytes_after"] / metadata["bytes_before"],  # type: ignore[operator]
        abs=1e-3,
    )
    for step in ("copy", "upload", "verify", "commit"):
        assert metadata[f"seconds_{step}"] > 0  # type: ignore[operator]
    assert metadata["objects"] == 1
    (row,) = metadata["object_urls"].records  # type: ignore[attr-defined]
    assert row.data == {
        "url": str(file),
        "source": "month",
        "rows": 8,
        "bytes": file.stat().st_size,
    }
    assert verdicts(result) == {**dict.fromkeys(CHECKS, True), CHECKS[2]: False}


def test_the_sample_shows_neither_content_nor_ids(kb: KnowledgeBase) -> None:
    sample = str(shown(archive(kb, OLD))["2025-03"]["sample"])

    assert sample.count("\n") == 1 + 5
    assert "user" in sample
    assert "2025\N{NON-BREAKING HYPHEN}03\N{NON-BREAKING HYPHEN}01 00" in sample
    assert str(len(f"{CONTENT} 0")) in sample
    for secret in (CONTENT, "person-", "message-"):
        assert secret not in sample


def test_one_run_takes_a_range_and_leaves_what_is_not_due(kb: KnowledgeBase) -> None:
    this = NOW.date().replace(day=1)

    result = archive(kb, OLDER, this)

    metadata = shown(result)
    assert [metadata[key]["rows"] for key in ("2025-01", "2025-02", "2025-03")] == [8, 0, 8]
    assert "nothing of it" in str(metadata["2025-02"]["note"])
    assert metadata[f"{this:%Y-%m}"]["rows"] == 0
    assert "not old enough" in str(metadata[f"{this:%Y-%m}"]["note"])
    assert hot_rows(kb, this) == 8
    assert verdicts(result) == dict.fromkeys(CHECKS, True)


def test_a_month_that_is_held_is_left_alone(kb: KnowledgeBase) -> None:
    execute(
        kb,
        f"update kb.archive_month set hold_until = now() + interval '1 day' where month = '{OLD}'",
    )

    result = archive(kb, OLDER, OLD)

    assert "held until" in str(shown(result)["2025-03"]["note"])
    assert hot_rows(kb, OLD) == 8
    assert verdicts(result)["nothing_old_is_left_hot"]


def test_again_moves_nothing_and_what_was_moved_stands(kb: KnowledgeBase) -> None:
    with dg.instance_for_test() as instance:
        first = shown(archive(kb, OLD, instance=instance))["2025-03"]
        again = shown(archive(kb, OLD, instance=instance))["2025-03"]
    unseen = shown(archive(kb, OLD))["2025-03"]

    assert "nothing of it" in str(again.pop("note"))
    assert again == first
    assert (unseen["rows"], unseen["dagster/row_count"], unseen["objects"]) == (0, 8, 1)


def test_a_restored_month_is_in_the_archive_no_more(kb: KnowledgeBase) -> None:
    with dg.instance_for_test() as instance:
        archive(kb, OLDER, OLD, instance=instance)
        kb.restore_month(OLD)
        result = archive(kb, OLD, instance=instance)

    metadata = shown(result)["2025-03"]
    assert "held until" in str(metadata["note"])
    assert (metadata["dagster/row_count"], metadata["objects"]) == (0, 0)
    assert "object_urls" not in metadata
    assert verdicts(result) == dict.fromkeys(CHECKS, True)


def test_late_messages_follow_in_an_object_of_their_own(kb: KnowledgeBase) -> None:
    archive(kb, OLDER, OLD)
    kb.messages.append([*messages(OLD), *messages(OLD, 3, name="late")])

    result = archive(kb, OLD)

    metadata = shown(result)["2025-03"]
    assert (metadata["rows"], metadata["dagster/row_count"], metadata["objects"]) == (3, 11, 2)
    assert metadata["repeats_deleted"] == 8
    assert verdicts(result) == dict.fromkeys(CHECKS, True)


def test_partitions_are_made_ahead(kb: KnowledgeBase) -> None:
    archive(kb, OLD)

    months = execute(kb, f"select month from kb.archive_month where month > '{NOW:%Y-%m-01}'")
    assert len(months) == 2


def test_a_month_another_run_is_at_is_left_to_it_and_the_run_ends_well(kb: KnowledgeBase) -> None:
    from kb_assets.archive.lease import month_lease
    from kb_assets.archive.relation import MESSAGES

    with month_lease(kb.archiver, MESSAGES, OLD, run_id="another"):
        result = archive(kb, OLD)

    assert result.success
    assert "busy" in str(shown(result)["2025-03"]["note"])
    assert hot_rows(kb, OLD) == 8


def test_a_month_that_fails_keeps_no_other_from_being_archived(kb: KnowledgeBase) -> None:
    archive(kb, OLDER)
    damage(objects(kb)[0])
    kb.messages.append(messages(OLDER, 3, name="late"))

    result = archive(kb, OLDER, OLD)

    assert not result.success
    assert hot_rows(kb, OLD) == 0
    assert shown(result)["2025-03"]["rows"] == 8
    assert "2025-01" not in shown(result)
    ((late,),) = execute(kb, "select count(*) from kb.message_late")
    assert late == 3


def test_an_erasure_that_broke_off_is_finished(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(kb, OLDER, OLD)

    def broken_off(*_: object) -> None:
        raise ObjectStoreUnavailableError("The store went away.")

    with monkeypatch.context() as patched, pytest.raises(ObjectStoreUnavailableError):
        patched.setattr("kb_assets.erasure.erase.rewrite_archive", broken_off)
        kb.erase(conversation="person-1")
    result = archive(kb, OLDER, OLD)

    assert [one.finished_at is not None for one in kb.erasures()] == [True]
    assert [one["dagster/row_count"] for one in shown(result).values()] == [4, 0, 4]
    assert verdicts(result) == dict.fromkeys(CHECKS, True)


def test_without_a_section_for_it_nothing_is_deleted(kb: KnowledgeBase, tmp_path: Path) -> None:
    settings = kb.settings.model_copy(update={"archive": None})
    with KnowledgeBase(settings) as other:
        result = archive(other, OLD)

    (failed,) = result.get_step_failure_events()
    assert "[archive]" in str(failed.step_failure_data.user_failure_data)
    assert hot_rows(kb, OLD) == 8


def damage(file: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_checks_are_green_before_anything_is_archived(kb: KnowledgeBase) -> None:
    shutil.rmtree(kb.settings.root / "archive", ignore_errors=True)

    red = {
        name
        for name, one in evaluate_all(kb, *(("message_archive", name) for name in CHECKS)).items()
        if not one.passed
    }

    assert red == {"nothing_old_is_left_hot"}


@pytest.mark.parametrize("broken", ["bit", "gone", "manifest"])
def test_a_damaged_object_is_named(kb: KnowledgeBase, broken: str) -> None:
    archive(kb, OLDER, OLD)
    file = objects(kb)[0]
    if broken == "bit":
        damage(file)
    elif broken == "gone":
        file.unlink()
    else:
        file = file.with_suffix(".json")
        file.write_text(file.read_text().replace("message", "massage"))

    red = evaluate(kb, "message_archive", "archive_matches_manifest")

    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.ERROR
    assert str(file) in (red.description or "")
    assert (red.metadata["objects"].value, red.metadata["fetched"].value) == (2, 2)


def test_every_object_has_its_turn_within_thirty_days(kb: KnowledgeBase) -> None:
    from kb_assets.archive.checks import NEWEST, TURNS, examine

    archive(kb, OLD)
    for number in range(7):
        kb.messages.append(messages(OLD, 1, name=f"late-{number}"))
        archive(kb, OLD)
    damage(objects(kb)[0])
    days = [NOW.date() + timedelta(days=number) for number in range(TURNS)]

    seen = [examine(kb.reader, lambda: kb.archive_store, day) for day in days]

    assert sum(len(one.damaged) for _, one in seen) == 1
    assert all(NEWEST <= len(one.segments) < objects == 8 for objects, one in seen)


def test_a_row_that_was_put_back_by_hand_is_in_two_places(kb: KnowledgeBase) -> None:
    archive(kb, OLD)
    execute(kb, f"select kb.add_month('message', '{OLD}')")
    execute(
        kb,
        "insert into kb.message (id, conversation_id, created_at, role, content, token_count)"
        f" values ('message-3', 'person-1', '{OLD}T00:03Z', 'user', 'other', 1),"
        f" ('new', 'person-1', '{OLD}T00:03Z', 'user', 'other', 1)",
    )

    red = evaluate(kb, "message_archive", "hot_and_cold_are_disjoint")

    assert not red.passed
    assert red.metadata["rows_in_both"].value == 1
    assert "2025-03" in (red.description or "")


def test_a_late_message_that_repeats_an_archived_one_is_no_overlap(kb: KnowledgeBase) -> None:
    archive(kb, OLD)
    kb.messages.append(messages(OLD))

    assert evaluate(kb, "message_archive", "hot_and_cold_are_disjoint").passed


def test_what_is_due_for_more_than_a_week_must_not_be_left(kb: KnowledgeBase) -> None:
    archive(kb, OLDER)

    red = evaluate(kb, "message_archive", "nothing_old_is_left_hot")

    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.WARN
    assert "2025-03" in (red.description or "")
    assert "2025-01" not in (red.description or "")


def test_late_messages_that_nobody_archives_are_red_after_a_week(kb: KnowledgeBase) -> None:
    archive(kb, OLDER, OLD)
    kb.messages.append(messages(OLD, 3, name="late"))

    fresh = evaluate(kb, "message_archive", "nothing_old_is_left_hot")
    execute(
        kb,
        "update kb.archive_segment set committed_at = committed_at - interval '8 days';"
        "update kb.archive_month set closed_at = closed_at - interval '8 days'",
    )
    red = evaluate(kb, "message_archive", "nothing_old_is_left_hot")

    assert fresh.passed
    assert not red.passed
    assert "3 of 2025-03" in (red.description or "")


def test_an_erasure_that_does_not_finish_is_an_error_after_a_day(kb: KnowledgeBase) -> None:
    archive(kb, OLDER, OLD)
    insert = "insert into kb.erasure (scope, subject_hash, run_id, requested_at) values"
    execute(kb, f"{insert} ('user', 'x', 'r', now() - interval '23 hours')")
    fresh = evaluate(kb, "message_archive", "nothing_old_is_left_hot")
    execute(kb, f"{insert} ('user', 'y', 'r', now() - interval '25 hours')")

    red = evaluate(kb, "message_archive", "nothing_old_is_left_hot")

    assert fresh.passed
    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.ERROR
    assert red.metadata["open_erasures"].value == 1


def test_partitions_are_months_from_the_first_to_this_one(kb: KnowledgeBase) -> None:
    definition = build_definitions(kb.settings).resolve_asset_graph().get(ARCHIVE).partitions_def
    assert definition is not None
    keys = definition.get_partition_keys()

    assert keys[:2] == ["2025-01", "2025-02"]
    assert keys[-1] == f"{NOW:%Y-%m}"


def test_there_is_a_schedule_only_with_a_section_for_it(kb: KnowledgeBase) -> None:
    without = build_definitions(kb.settings.model_copy(update={"archive": None}))
    told = {"cron": "5 4 * * *", "timezone": "Europe/Berlin"}
    archive = kb.settings.archive
    assert archive is not None
    with_it = build_definitions(
        kb.settings.model_copy(update={"archive": archive.model_copy(update=told)})
    )

    made = with_it.resolve_schedule_def(f"{ARCHIVE_JOB}_schedule")

    assert made.cron_schedule == "5 4 * * *"
    assert made.execution_timezone == "Europe/Berlin"
    assert made.default_status == dg.DefaultScheduleStatus.RUNNING
    assert {one.name for one in without.schedules or ()} == {
        "index_documents_schedule",
        "back_up_database_schedule",
        "keep_house_schedule",
    }
    assert without.resolve_asset_graph().has(ARCHIVE)


def tick(
    kb: KnowledgeBase, instance: dg.DagsterInstance, at: datetime = NOW
) -> tuple[dg.RunRequest | None, str]:
    resource = KnowledgeBaseResource(kb.settings, knowledge_base=kb)
    definitions = build_definitions(kb.settings, resource)
    schedule = definitions.resolve_schedule_def(f"{ARCHIVE_JOB}_schedule")
    with dg.build_schedule_context(
        instance=instance,
        repository_def=definitions.get_repository_def(),
        scheduled_execution_time=at,
        resources={"knowledge_base": resource},
    ) as context:
        data = schedule.evaluate_tick(context)
    (request,) = data.run_requests or [None]
    return request, data.skip_message or ""


def test_a_tick_asks_for_the_due_months_as_one_run(kb: KnowledgeBase) -> None:
    with dg.instance_for_test() as instance:
        request, _ = tick(kb, instance)
        result = (
            build_definitions(kb.settings, KnowledgeBaseResource(kb.settings, knowledge_base=kb))
            .resolve_job_def(ARCHIVE_JOB)
            .execute_in_process(tags=dict(request.tags) if request else {}, instance=instance)
        )

    assert request is not None
    assert request.tags["dagster/asset_partition_range_start"] == "2025-01"
    assert request.tags["dagster/asset_partition_range_end"] == "2025-03"
    assert {key for key, one in shown(result).items() if one["rows"]} == {"2025-01", "2025-03"}
    assert verdicts(result) == dict.fromkeys(CHECKS, True)


def test_a_tick_with_nothing_due_looks_at_what_is_archived(kb: KnowledgeBase) -> None:
    archive(kb, OLDER, OLD)

    with dg.instance_for_test() as instance:
        request, _ = tick(kb, instance)

    assert request is not None
    assert request.asset_selection == []
    assert {key.name for key in request.asset_check_keys or ()} == set(CHECKS)


def test_a_tick_with_nothing_at_all_says_so(kb: KnowledgeBase) -> None:
    with dg.instance_for_test() as instance:
        request, skipped = tick(kb, instance, datetime(2025, 2, 1, tzinfo=UTC))

    assert request is None
    assert "No month is due" in skipped


def test_a_tick_waits_for_the_last_run(kb: KnowledgeBase) -> None:
    definitions = build_definitions(kb.settings)
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(
            definitions.resolve_job_def(ARCHIVE_JOB), tags=process_tags()
        )
        instance.report_run_canceling(run)
        request, skipped = tick(kb, instance)

    assert request is None
    assert "still going" in skipped


def test_a_month_before_the_first_is_no_partition_and_stays_red(
    kb: KnowledgeBase, settings: Settings
) -> None:
    kb.messages.append(messages(date(2020, 5, 1), name="ancient"))
    archive(kb, OLDER, OLD)

    with dg.instance_for_test() as instance:
        request, _ = tick(kb, instance)
    red = evaluate(kb, "message_archive", "nothing_old_is_left_hot")

    assert request is not None
    assert request.asset_selection == []
    assert "2020-05" in (red.description or "")
