"""Where nothing changed nothing is written or counted again; what went wrong is still found."""

import dagster as dg
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from kb_assets import KnowledgeBase
from kb_assets.chunks.plan import recipe_of
from kb_assets.database.lease import shard_lease
from kb_assets.database.names import SPACE_SCHEMA
from kb_assets.defs import unchanged
from kb_assets.defs.build import build_definitions
from kb_assets.defs.partitions import range_tags
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.defs.schedules import JOB
from kb_assets.defs.unchanged import find_state
from kb_assets.documents.stage import read_documents
from kb_assets.fingerprints import Shard
from tests.defs.conftest import job, write_config, write_documents
from tests.golden import table_of

pytestmark = pytest.mark.usefixtures("an_hour_later")

STANDING = {
    "no_document_vanished_by_accident",
    "every_document_is_accounted_for",
    "every_chunk_is_embedded",
    "index_is_valid",
    "index_recall_holds",
}
COUNTED = ("raw_documents", "document_chunks", "published_documents")


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def settled(kb: KnowledgeBase, instance: dg.DagsterInstance) -> KnowledgeBase:
    """Loaded, and counted when there was nothing left to do."""
    for _ in range(2):
        run(kb, instance)
    return kb


def run(
    kb: KnowledgeBase, instance: dg.DagsterInstance, shards: tuple[Shard, ...] = ()
) -> dg.ExecuteInProcessResult:
    resource = KnowledgeBaseResource(kb.settings, knowledge_base=kb)
    definitions = build_definitions(kb.settings, resource)
    return definitions.resolve_job_def(JOB).execute_in_process(
        instance=instance, tags=range_tags(shards or kb.settings.shards)
    )


def shown(result: dg.ExecuteInProcessResult, asset: str) -> dict[str | None, dict[str, object]]:
    """Return what the materialization of each shard shows."""
    return {
        made.partition: {name: one.value for name, one in made.metadata.items()}
        for made in result.asset_materializations_for_node(asset)
    }


def total(result: dg.ExecuteInProcessResult, asset: str, name: str) -> int:
    return sum(int(str(one[name])) for one in shown(result, asset).values())


def checked(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def counted_at(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    """Return since when what stands does, by check and by asset and shard."""
    moments: dict[str, object] = {
        f"{asset} of {shard}": one.get("counted_at")
        for asset in COUNTED
        for shard, one in shown(result, asset).items()
    }
    checks = {name: checked(result)[name] for name in STANDING}
    return moments | {name: one.metadata.get("counted_at") for name, one in checks.items()}


def by_itself(
    kb: KnowledgeBase, instance: dg.DagsterInstance, asset: str, check: str
) -> dg.AssetCheckEvaluation:
    keys = dg.AssetCheckKey(dg.AssetKey(asset), check)
    result = job(kb, dg.AssetSelection.checks(keys)).execute_in_process(instance=instance)
    return checked(result)[check]


def execute(kb: KnowledgeBase, statement: str) -> None:
    with psycopg.connect(kb.urls.migrator, autocommit=True) as connection:
        connection.execute(statement.encode())


def rows(kb: KnowledgeBase) -> dict[str, str]:
    """Return what differs, for each table of the knowledge base, once a row was written."""
    with psycopg.connect(kb.urls.migrator) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname = any(%s)",
            (["kb", SPACE_SCHEMA],),
        ).fetchall()
        versions = SQL("select coalesce(string_agg(t.xmin::text || t.ctid, ' '), '') from {} t")
        found: dict[str, str] = {}
        for table in tables:
            row = connection.execute(versions.format(Identifier(*table))).fetchone()
            found[".".join(table)] = str(row)
    return found


def test_a_run_with_nothing_changed_writes_no_row(
    settled: KnowledgeBase, instance: dg.DagsterInstance
) -> None:
    before = rows(settled)
    run(settled, instance)
    after = rows(settled)

    assert len(before) > 10
    assert {table for table in before if before[table] != after[table]} == set()


def test_events_do_not_grow_with_the_corpus(
    environment: None, tmp_path_factory: pytest.TempPathFactory, instance: dg.DagsterInstance
) -> None:
    folder = tmp_path_factory.mktemp("two")
    file = write_config(folder, few=2, many=2)
    write_documents(folder / "few", 4)
    write_documents(folder / "many", 240)

    with KnowledgeBase.open(file) as kb:
        few, many = kb.settings.shards[:2], kb.settings.shards[2:]
        runs = [run(kb, instance, shards) for shards in (few, many, few, many)]

    events = [len(instance.all_logs(one.run_id)) for one in runs]
    assert [total(one, "raw_documents", "found") for one in runs] == [4, 240, 4, 240]
    assert events[0] == events[1]
    assert events[2] == events[3]


def test_numbers_stand_until_something_changes(
    settled: KnowledgeBase, instance: dg.DagsterInstance
) -> None:
    first, second = run(settled, instance), run(settled, instance)
    write_documents(settled.settings.root / "wiki", 40)
    third = run(settled, instance)

    moments = [counted_at(one) for one in (first, second, third)]
    assert all(moments[0].values())
    assert moments[0] == moments[1]
    assert all(moments[1][name] != moments[2][name] for name in moments[1])
    for asset, factor in zip(COUNTED, (1, 2, 1), strict=True):
        assert total(second, asset, "dagster/row_count") == 12 * factor
        assert total(third, asset, "dagster/row_count") == 40 * factor
    assert total(second, "raw_documents", "unchanged") == 12
    assert total(second, "raw_documents", "added") == 0
    assert all(one.passed for one in checked(second).values())


def test_what_another_run_did_is_counted(
    settled: KnowledgeBase, instance: dg.DagsterInstance
) -> None:
    (settled.settings.root / "wiki" / "broken.pdf").write_bytes(b"not a PDF")
    settled.index()

    assert total(run(settled, instance), "raw_documents", "in_quarantine") == 1


def test_what_leaves_out_shards_does_not_stand(
    settled: KnowledgeBase, instance: dg.DagsterInstance
) -> None:
    what = ("published_documents", "every_document_is_accounted_for")
    shard = settled.settings.shards[0]
    with shard_lease(settled.database, shard, run_id="another", wait_seconds=0):
        during = by_itself(settled, instance, *what)
    after = by_itself(settled, instance, *what)

    assert "counted_at" not in during.metadata
    assert "counted_at" in after.metadata


def test_where_documents_wait_nothing_stands(
    settled: KnowledgeBase, instance: dg.DagsterInstance
) -> None:
    write_documents(settled.settings.root / "wiki", 40)
    for shard in settled.settings.shards:
        read_documents(settled.run(), shard, recipe_of(settled.settings.splitting))

    assert all(find_state(settled.database, [one]) is None for one in settled.settings.shards)
    settled.index()
    assert all(find_state(settled.database, [one]) for one in settled.settings.shards)


def test_a_lost_index_is_found_at_once(
    settled: KnowledgeBase, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb_assets.defs.index.maintain_vector_indexes", lambda *_, **__: ())
    execute(settled, f"drop index {table_of(settled)}_hnsw")

    assert not checked(run(settled, instance))["index_is_valid"].passed


def test_lost_vectors_are_found_by_the_check_itself_and_by_runs_from_then_on(
    settled: KnowledgeBase, instance: dg.DagsterInstance
) -> None:
    execute(settled, f"delete from {table_of(settled)}")

    before = checked(run(settled, instance))["every_chunk_is_embedded"]
    red = by_itself(settled, instance, "published_documents", "every_chunk_is_embedded")
    after = checked(run(settled, instance))["every_chunk_is_embedded"]

    assert (before.passed, red.passed, after.passed) == (True, False, False)


def test_lost_vectors_are_found_by_a_run_of_the_next_day(
    settled: KnowledgeBase, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(settled, f"delete from {table_of(settled)}")
    monkeypatch.setattr(unchanged, "STANDS_SECONDS", 0)

    assert not checked(run(settled, instance))["every_chunk_is_embedded"].passed
