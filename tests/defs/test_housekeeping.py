"""What housekeeping deletes, what it keeps, and what it says of the tables."""

import re
from collections.abc import Iterator
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.events import DagsterEventType
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from kb_assets import KnowledgeBase
from kb_assets.database.connect import DatabaseUrls
from kb_assets.defs.build import build_definitions
from kb_assets.defs.housekeeping import ASSET, CHECK, JOB, storage_is_tended
from kb_assets.defs.instance import dagster_instance
from kb_assets.defs.partitions import range_tags, shard_partitions
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.housekeeping import history
from kb_assets.housekeeping.history import PRUNED_KINDS, Pruned
from kb_assets.housekeeping.stage import HousekeepingReport
from kb_assets.housekeeping.tables import DatabaseState, TableState
from kb_assets.settings import Settings
from tests.defs.conftest import index

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

KEPT_KINDS = {
    "ASSET_MATERIALIZATION",
    "ASSET_OBSERVATION",
    "ASSET_FAILED_TO_MATERIALIZE",
    "ASSET_CHECK_EVALUATION",
    "ASSET_HEALTH_CHANGED",
    "ASSET_WIPED",
    "FRESHNESS_STATE_EVALUATION",
    "FRESHNESS_STATE_CHANGE",
    "CODE_LOCATION_UPDATED",
}
"""What tells of assets. A kind that a new version of Dagster adds belongs here or there."""


@pytest.fixture
def instance(kb: KnowledgeBase) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(kb) as one:
        yield one


@pytest.fixture
def dagster(database_urls: DatabaseUrls) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_urls.dagster, autocommit=True) as one:
        yield one


def keep_house(kb: KnowledgeBase, instance: dg.DagsterInstance) -> dict[str, Any]:
    """Materialize the asset as its job does, and return the metadata."""
    definitions = build_definitions(
        kb.settings, KnowledgeBaseResource(kb.settings, knowledge_base=kb)
    )
    result = definitions.resolve_job_def(JOB).execute_in_process(instance=instance)
    [made] = result.asset_materializations_for_node(ASSET)
    [checked] = result.get_asset_check_evaluations()
    assert (checked.check_name, checked.passed) == (CHECK, True)
    return {name: value.value for name, value in made.metadata.items()}


def age(dagster: psycopg.Connection, days: int = 40) -> None:
    """Let everything have happened so many days earlier."""
    for table, column in (("runs", "update_timestamp"), ("bulk_actions", "timestamp")):
        dagster.execute(f"UPDATE {table} SET {column} = {column} - make_interval(days => {days})")


def count(dagster: psycopg.Connection, table: str) -> int:
    [(rows,)] = dagster.execute(f"SELECT count(*) FROM {table}").fetchall()
    return rows


def story(kb: KnowledgeBase, instance: dg.DagsterInstance) -> dict[str, Any]:
    """What Dagster tells of the knowledge base's assets, but for housekeeping's own."""
    graph = build_definitions(kb.settings).resolve_asset_graph()
    keys = [key for key in graph.get_all_asset_keys() if key.to_user_string() != ASSET]
    checks = [key for key in graph.asset_check_keys if key.asset_key in keys]
    storage = instance.event_log_storage
    told: dict[str, Any] = {}
    for key in keys:
        told[f"{key} made"] = instance.fetch_materializations(key, limit=1000).records
        told[f"{key} seen"] = instance.fetch_observations(key, limit=1000).records
        told[f"{key} record"] = [
            (one.asset_entry.last_materialization, one.asset_entry.last_run_id)
            for one in instance.get_asset_records([key])
        ]
        if isinstance(graph.get(key).partitions_def, dg.StaticPartitionsDefinition):
            storage.wipe_asset_cached_status(key)
            told[f"{key} partitions"] = get_and_update_asset_status_cache_value(
                instance, key, shard_partitions(kb.settings)
            )
    latest = storage.get_latest_asset_check_execution_by_key(checks)
    for check in checks:
        told[f"{check} latest"] = latest.get(check)
        told[f"{check} all"] = storage.get_asset_check_execution_history(check, limit=1000)
    assert any(told.values())
    return told


def test_runs_and_their_logs_go_and_what_became_of_assets_stays(
    kb: KnowledgeBase, instance: dg.DagsterInstance, dagster: psycopg.Connection
) -> None:
    first = index(kb)
    last = index(kb)
    age(dagster)
    before, events = story(kb, instance), count(dagster, "event_logs")

    told = keep_house(kb, instance)

    assert told["runs_deleted"] == 1
    assert not instance.has_run(first.run_id)
    assert instance.has_run(last.run_id), "what the assets' pages show as their last run"
    assert story(kb, instance) == before
    assert told["events_deleted"] > events / 4
    left = {
        record[0]
        for record in dagster.execute(
            "SELECT DISTINCT dagster_event_type FROM event_logs WHERE run_id = %s", [first.run_id]
        )
    }
    assert left <= KEPT_KINDS
    orphans = "SELECT count(*) FROM run_tags WHERE run_id = %s"
    assert dagster.execute(orphans, [first.run_id]).fetchone() == (0,)

    again = keep_house(kb, instance)
    assert (again["runs_deleted"], again["events_deleted"]) == (0, 0)


def test_what_is_young_or_not_over_stays(
    kb: KnowledgeBase, instance: dg.DagsterInstance, dagster: psycopg.Connection
) -> None:
    going = instance.create_run_for_job(build_definitions(kb.settings).resolve_job_def(JOB))
    age(dagster)
    young = instance.create_run_for_job(build_definitions(kb.settings).resolve_job_def(JOB))
    instance.report_run_failed(young)
    age(dagster, 29)

    assert keep_house(kb, instance)["runs_deleted"] == 0

    assert instance.has_run(going.run_id)
    assert instance.has_run(young.run_id)


def test_a_shard_that_failed_last_stays_failed(
    kb: KnowledgeBase, instance: dg.DagsterInstance, dagster: psycopg.Connection
) -> None:
    """Without its run nobody could tell a shard that failed from one that was never loaded."""
    shard = kb.settings.shards[0]
    definitions = build_definitions(
        kb.settings, KnowledgeBaseResource(kb.settings, knowledge_base=kb)
    )
    loading = definitions.resolve_job_def("index_documents")
    (kb.settings.root / "wiki").rename(kb.settings.root / "elsewhere")
    failed = loading.execute_in_process(
        instance=instance,
        partition_key=shard.key,
        tags=range_tags([shard]),
        asset_selection=[dg.AssetKey("raw_documents")],
        raise_on_error=False,
    )
    assert not failed.success
    (kb.settings.root / "elsewhere").rename(kb.settings.root / "wiki")
    others = kb.settings.shards[1:]
    assert loading.execute_in_process(
        instance=instance, tags=range_tags(others), asset_selection=[dg.AssetKey("raw_documents")]
    ).success
    age(dagster)
    before = story(kb, instance)

    keep_house(kb, instance)

    assert story(kb, instance) == before
    assert instance.has_run(failed.run_id)
    status = get_and_update_asset_status_cache_value(
        instance, dg.AssetKey("raw_documents"), shard_partitions(kb.settings)
    )
    assert status is not None
    subset = status.deserialize_failed_partition_subsets(shard_partitions(kb.settings))
    assert list(subset.get_partition_keys()) == [shard.key]


def test_it_goes_on_where_it_was_stopped(
    kb: KnowledgeBase,
    instance: dg.DagsterInstance,
    dagster: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "BATCH_RUNS", 2)
    pipeline = build_definitions(kb.settings).resolve_job_def(JOB)
    for _ in range(5):
        instance.report_run_failed(instance.create_run_for_job(pipeline))
    age(dagster)
    dagster.execute(
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF (SELECT count(*) FROM runs) <= 2 THEN RAISE 'stopped'; END IF; "
        "RETURN NULL; END $$"
    )
    dagster.execute(
        "CREATE TRIGGER stop AFTER DELETE ON runs FOR EACH STATEMENT EXECUTE FUNCTION stop()"
    )
    with pytest.raises(psycopg.errors.RaiseException):
        keep_house(kb, instance)
    silent = "SELECT count(*) FROM runs WHERE run_id NOT IN (SELECT run_id FROM event_logs)"
    assert dagster.execute(silent).fetchone() == (0,), "a run goes with its events, or not at all"

    dagster.execute("DROP TRIGGER stop ON runs")
    told = keep_house(kb, instance)

    assert told["runs_deleted"] == 3
    assert told["events_deleted"] > 0


def test_every_kind_of_event_is_known() -> None:
    kinds = {kind.value for kind in DagsterEventType}

    assert set(PRUNED_KINDS) | KEPT_KINDS == kinds
    assert not set(PRUNED_KINDS) & KEPT_KINDS


def make_dead_rows(urls: DatabaseUrls) -> None:
    with psycopg.connect(urls.migrator, autocommit=True) as owner:
        owner.execute("CREATE TABLE kb.wasted (id int) WITH (autovacuum_enabled = false)")
        owner.execute("INSERT INTO kb.wasted SELECT generate_series(1, 1000)")
        owner.execute("ANALYZE kb.wasted")
        owner.execute("DELETE FROM kb.wasted WHERE id > 100")


def test_a_table_that_is_due_is_vacuumed(
    kb: KnowledgeBase, instance: dg.DagsterInstance, database_urls: DatabaseUrls
) -> None:
    make_dead_rows(database_urls)

    told = keep_house(kb, instance)

    assert "kb.wasted" in told["vacuumed"]
    assert "wasted" not in told["vacuum_is_due"]
    [line] = [line for line in told["tables"].splitlines() if "wasted" in line]
    assert line.endswith("| 0% |")
    assert told["database_bytes"] > told["index_bytes"] > 0
    assert told["dagster_bytes"] > 0


def test_where_the_owner_is_not_known_it_says_what_is_due(
    kb: KnowledgeBase,
    instance: dg.DagsterInstance,
    database_urls: DatabaseUrls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_dead_rows(database_urls)
    monkeypatch.setenv("KB_MIGRATION_DATABASE_URL", database_urls.writer)

    with KnowledgeBase(Settings.load(kb.settings.root / "kb.toml")) as as_writer:
        told = keep_house(as_writer, instance)

    assert "kb.wasted" not in told["vacuumed"]
    assert "kb.wasted" in told["vacuum_is_due"]


def report(**facts: Any) -> HousekeepingReport:
    table = TableState(
        name=("kb", "chunk"),
        rows=facts.pop("rows", 10_000),
        dead_rows=facts.pop("dead_rows", 0),
        table_bytes=0,
        index_bytes=0,
        vacuum_is_due=True,
        analyze_is_due=False,
        is_ours=False,
        seconds_since_vacuum=facts.pop("seconds_since_vacuum", None),
    )
    state = DatabaseState(0, facts.pop("oldest", 0), 200_000_000, 7200.0, (table,))
    return HousekeepingReport(Pruned(), state, state, (), 0.0)


@pytest.mark.parametrize(
    ("facts", "passed", "severity", "words"),
    [
        ({"dead_rows": 9_999, "rows": 10}, True, None, "keeps up"),
        ({"dead_rows": 10_001}, False, "WARN", r"kb\.chunk has 10,001 dead rows \(50%\)"),
        ({"dead_rows": 10_001, "seconds_since_vacuum": 60.0}, True, None, "keeps up"),
        ({"dead_rows": 20_000, "seconds_since_vacuum": 1e6}, False, "WARN", "7,200 seconds"),
        ({"oldest": 400_000_000}, True, None, "keeps up"),
        ({"oldest": 400_000_001}, False, "WARN", "VACUUM FREEZE"),
        ({"oldest": 900_000_000}, False, "ERROR", "stops writing at 2 billion"),
    ],
)
def test_the_check_is_red_for_what_somebody_can_mend(
    facts: dict[str, Any], passed: bool, severity: str | None, words: str
) -> None:
    said = storage_is_tended(report(**facts))

    assert said.passed is passed
    assert severity is None or said.severity.value == severity
    assert re.search(words, said.description or "")


def test_it_runs_by_itself(settings: Settings) -> None:
    schedule = build_definitions(settings).resolve_schedule_def(f"{JOB}_schedule")

    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == settings.housekeeping.cron
