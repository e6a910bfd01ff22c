"""Backups in Dagster: the asset, checks that turn red when it is broken, its schedule."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from kb_assets import KnowledgeBase
from kb_assets.defs.build import build_definitions
from kb_assets.defs.partitions import BACKUP, day_key
from kb_assets.defs.processes import process_tags
from kb_assets.defs.schedules import BACKUP_JOB
from kb_assets.settings import Settings
from tests.defs.conftest import evaluate, evaluate_all, job, write_config, write_documents

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

MATCHES, RESTORES, FRESH = CHECKS = (
    "backup_matches_manifest",
    "backup_restores",
    "backup_is_fresh",
)


@pytest.fixture
def kb(environment: None, tmp_path: Path) -> Iterator[KnowledgeBase]:
    """A few documents in the index; backups go beside kb.toml."""
    file = write_config(tmp_path, notes=1)
    write_documents(tmp_path / "notes", 3)
    with KnowledgeBase.open(file, home=tmp_path / "home") as opened:
        opened.index()
        yield opened


def today() -> str:
    return day_key(datetime.now(UTC))


def back_up(kb: KnowledgeBase, *days: str) -> dg.ExecuteInProcessResult:
    """Materialize the asset from the first of these days to the last, with its checks."""
    first, last = (days or (today(),))[0], (days or (today(),))[-1]
    tags = {"dagster/partition": first}
    if first != last:
        ends = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
        tags = dict(zip(ends, (first, last), strict=True))
    return job(kb, dg.AssetSelection.assets(BACKUP)).execute_in_process(
        tags=tags, raise_on_error=False
    )


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {one.check_name: one.passed for one in result.get_asset_check_evaluations()}


def failure(result: dg.ExecuteInProcessResult) -> str:
    (failed,) = result.get_step_failure_events()
    return str(failed.step_failure_data.error)


def files(kb: KnowledgeBase) -> dict[str, Path]:
    """Return the files of the newest backup, the largest first."""
    manifest = kb.backups()[0].manifest
    assert manifest is not None
    named = [(one.name, kb.settings.root / "backups" / one.pieces[0].key) for one in manifest.files]
    return dict(sorted(named, key=lambda one: -one[1].stat().st_size))


def damage(file: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def let_pass(monkeypatch: pytest.MonkeyPatch, span: timedelta) -> None:
    """Set the clock of the checks."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + span

    monkeypatch.setattr("kb_assets.defs.backup_checks.datetime", Clock)


def test_a_backup_is_made_proven_and_its_numbers_are_shown(kb: KnowledgeBase) -> None:
    result = back_up(kb)

    assert result.success
    assert verdicts(result) == dict.fromkeys(CHECKS, True)
    (entry,) = kb.backups()
    manifest = entry.manifest
    assert manifest is not None
    (made,) = result.asset_materializations_for_node(BACKUP)
    shown = {name: one.value for name, one in made.metadata.items()}
    assert shown["backup"] == entry.id
    assert shown["url"] == str(kb.settings.root / "backups" / entry.id)
    assert shown["dagster/row_count"] == manifest.rows > 3
    assert shown["stored_bytes"] == manifest.stored_bytes > 0
    assert shown["database_bytes"] == manifest.database_bytes > 0
    assert "| kb.document | 3 |" in str(shown["tables"]).replace("kb&#46;", "kb.")
    assert (shown["backups_kept"], shown["backups_deleted"]) == (1, 0)
    for step in ("snapshot", "dump", "vectors", "checksums", "upload", "total"):
        assert f"seconds_{step}" in shown
    evaluations = {one.check_name: one.metadata for one in result.get_asset_check_evaluations()}
    drilled = evaluations[RESTORES]
    assert drilled["rto_seconds"].value == drilled["seconds_total"].value > 0  # type: ignore[operator]
    assert 0 < evaluations[FRESH]["rpo_seconds"].value < 600  # type: ignore[operator]
    assert [drill.passed for drill in entry.drills] == [True]


def test_what_a_drill_took_and_what_would_be_lost_is_plotted(kb: KnowledgeBase) -> None:
    with dg.instance_for_test() as instance:
        back_up_in(kb, instance)
        records = instance.fetch_observations(dg.AssetKey(BACKUP), limit=2).records

    assert len(records) == 1
    seen = records[0].asset_observation
    assert seen is not None
    assert seen.partition == today()
    assert set(seen.metadata) == {"rto_seconds", "rpo_seconds"}


def back_up_in(kb: KnowledgeBase, instance: dg.DagsterInstance) -> None:
    done = job(kb, dg.AssetSelection.assets(BACKUP)).execute_in_process(
        tags={"dagster/partition": today()}, instance=instance
    )
    assert done.success


def test_one_flipped_bit_turns_checks_red_that_name_the_file(kb: KnowledgeBase) -> None:
    assert back_up(kb).success
    name, file = next(iter(files(kb).items()))
    damage(file)

    red = evaluate_all(kb, (BACKUP, MATCHES), (BACKUP, RESTORES))

    assert set(red) == {MATCHES, RESTORES}
    for one in red.values():
        assert not one.passed
        assert one.severity == dg.AssetCheckSeverity.ERROR
        assert f"is damaged. {name}: {file} holds other bytes" in (one.description or "")
        assert (one.description or "").count(kb.backups()[0].id) == 2  # its own, and the file's


def test_what_could_not_be_restored_is_no_measure_of_what_can(kb: KnowledgeBase) -> None:
    assert back_up(kb).success
    assert back_up(kb).success
    damage(next(iter(files(kb).values())))

    red = evaluate_all(kb, (BACKUP, RESTORES), (BACKUP, FRESH))

    newest, older = (datetime.fromisoformat(name[:16]) for name in (b.id for b in kb.backups()))
    assert not red[RESTORES].passed
    assert "rto_seconds" not in red[RESTORES].metadata
    assert red[FRESH].passed
    assert kb.backups()[1].id in (red[FRESH].description or "")
    lost = red[FRESH].metadata["rpo_seconds"].value
    assert lost > (datetime.now(UTC) - newest).total_seconds()  # type: ignore[operator]
    assert lost < (datetime.now(UTC) - older).total_seconds() + 5  # type: ignore[operator]


def test_the_only_backup_whose_drill_failed_is_not_fresh(kb: KnowledgeBase) -> None:
    assert back_up(kb).success
    damage(next(iter(files(kb).values())))

    red = evaluate_all(kb, (BACKUP, RESTORES), (BACKUP, FRESH))

    assert not red[FRESH].passed
    assert "no whole backup" in (red[FRESH].description or "")


def test_what_would_have_been_lost_just_before_is_told(kb: KnowledgeBase) -> None:
    kb.back_up()
    kb.back_up()
    newest, older = (one.manifest for one in kb.backups())

    worst = evaluate(kb, BACKUP, FRESH).metadata["rpo_worst_seconds"].value

    assert newest is not None
    assert older is not None
    between = datetime.fromisoformat(newest.snapshot_at) - datetime.fromisoformat(older.snapshot_at)
    assert worst == pytest.approx(between.total_seconds(), abs=0.001)


def test_a_damaged_manifest_does_not_let_an_older_backup_stand_for_it(kb: KnowledgeBase) -> None:
    assert back_up(kb).success
    assert back_up(kb).success
    newest = kb.backups()[0].id
    damage(kb.settings.root / "backups" / newest / "manifest.json")

    found = evaluate_all(kb, *((BACKUP, name) for name in CHECKS))

    assert {name: one.passed for name, one in found.items()} == {
        **dict.fromkeys((MATCHES, RESTORES), False),
        FRESH: True,
    }
    for name in (MATCHES, RESTORES):
        assert newest in (found[name].description or "")


def test_a_backup_that_is_not_signed_by_us_is_red(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert back_up(kb).success
    monkeypatch.setenv("KB_BACKUP_KEY", "a key of more than sixteen characters")

    with KnowledgeBase(kb.settings) as keyed:
        found = evaluate_all(keyed, *((BACKUP, name) for name in CHECKS))

    assert {name: one.passed for name, one in found.items()} == dict.fromkeys(CHECKS, False)
    assert "not signed" in (found[RESTORES].description or "")


def test_without_a_backup_every_check_is_red(kb: KnowledgeBase) -> None:
    found = evaluate_all(kb, *((BACKUP, name) for name in CHECKS))

    assert {name: one.passed for name, one in found.items()} == dict.fromkeys(CHECKS, False)
    assert all("kb backup run" in (one.description or "") for one in found.values())


def test_a_backup_and_its_drill_grow_old(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb.back_up()
    undrilled = evaluate(kb, BACKUP, FRESH)
    kb.drill()
    fresh = evaluate(kb, BACKUP, FRESH)
    let_pass(monkeypatch, timedelta(hours=27))
    old = evaluate(kb, BACKUP, FRESH)
    let_pass(monkeypatch, timedelta(days=9))
    older = evaluate(kb, BACKUP, FRESH)

    assert [one.passed for one in (undrilled, fresh, old, older)] == [False, True, False, False]
    assert "passed its last drill" in (undrilled.description or "")
    assert "27.0 hours old" in (old.description or "")
    assert "last drill that passed" not in (old.description or "")
    assert "last drill that passed" in (older.description or "")


def test_what_is_from_the_future_is_not_fresh(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb.back_up()
    let_pass(monkeypatch, timedelta(days=-3))
    undrilled = evaluate(kb, BACKUP, FRESH)
    kb.drill()
    drilled = evaluate(kb, BACKUP, FRESH)

    for red in (undrilled, drilled):
        assert not red.passed
        assert "from the future" in (red.description or "")


def test_what_cannot_be_pruned_is_told_and_the_backup_is_proven(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kb_assets.errors import SettingsError

    def refused(_: KnowledgeBase) -> None:
        raise SettingsError("Nothing is deleted: the newest backup is of the future.")

    monkeypatch.setattr(KnowledgeBase, "prune_backups", refused)

    result = back_up(kb)

    (made,) = result.asset_materializations_for_node(BACKUP)
    assert "of the future" in str(made.metadata["not_pruned"].value)
    assert verdicts(result) == dict.fromkeys(CHECKS, True)


@pytest.mark.parametrize("days", [("2026-01-02",), ("2026-01-02", "today")])
def test_no_day_but_today_can_be_made(kb: KnowledgeBase, days: tuple[str, ...]) -> None:
    result = back_up(kb, *(today() if day == "today" else day for day in days))

    assert not result.success
    assert f"only {today()} can be made" in failure(result)
    assert kb.backups() == ()


def test_partitions_are_days_up_to_today(settings: Settings) -> None:
    graph = build_definitions(settings).resolve_asset_graph()
    definition = graph.get(dg.AssetKey(BACKUP)).partitions_def
    assert definition is not None
    keys = definition.get_partition_keys()

    assert (keys[0], keys[-1]) == ("2026-01-01", today())


def tick(settings: Settings, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    schedule = build_definitions(settings).resolve_schedule_def(f"{BACKUP_JOB}_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime.now(UTC) - timedelta(days=3),
        repository_def=build_definitions(settings).get_repository_def(),
    ) as context:
        found = schedule(context)
    assert isinstance(found, dg.RunRequest | dg.SkipReason)
    return found


def test_the_schedule_runs_by_itself_and_asks_for_today(settings: Settings) -> None:
    with dg.instance_for_test() as instance:
        asked = tick(settings, instance)
        instance.create_run_for_job(
            build_definitions(settings).resolve_job_def(BACKUP_JOB),
            status=dg.DagsterRunStatus.STARTED,
            tags=process_tags(),
        )
        beside = tick(settings, instance)

    assert isinstance(asked, dg.RunRequest)
    assert asked.partition_key == today()
    assert isinstance(beside, dg.SkipReason)
