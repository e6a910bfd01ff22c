"""The code location as Dagster's server loads it, and what people see of it."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import PoolGranularity

import kb_assets
from kb_assets.defs.build import build_definitions
from kb_assets.defs.partitions import EXECUTION_VARIABLE
from kb_assets.settings import Settings
from tests.defs.conftest import write_config

REPOSITORY = Path(kb_assets.__file__).parents[1]
DEAD = "postgresql://nobody@127.0.0.1:9/nothing"
ASSETS = {
    "raw_documents",
    "document_chunks",
    "chunk_embeddings",
    "published_documents",
    "vector_index",
}
ARCHIVE, BACKUP, HOUSEKEEPING = "message_archive", "database_backup", "housekeeping"
CHECKS = {
    "every_source_is_fresh",
    "no_document_vanished_by_accident",
    "vectors_are_sound",
    "every_document_is_accounted_for",
    "every_chunk_is_embedded",
    "new_space_is_filled",
    "index_is_valid",
    "index_recall_holds",
}
ARCHIVE_CHECKS = {
    "archive_matches_manifest",
    "hot_and_cold_are_disjoint",
    "nothing_old_is_left_hot",
}
BACKUP_CHECKS = {"backup_matches_manifest", "backup_restores", "backup_is_fresh"}
HEAVY = (
    *("openai", "pyarrow", "duckdb", "obstore", "adbc_driver_postgresql"),
    *("torch", "trafilatura", "onnxruntime", "pypdfium2"),
)


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def specs(settings: Settings) -> dict[str, dg.AssetSpec]:
    return {
        spec.key.to_user_string(): spec
        for spec in build_definitions(settings).resolve_all_asset_specs()
    }


def test_the_repository_passes_dagsters_own_check_without_a_database() -> None:
    dg_command = str(Path(sys.executable).with_name("dg"))

    checked = run(REPOSITORY, dg_command, "check", "defs", KB_DATABASE_URL=DEAD)

    assert checked.returncode == 0, checked.stderr[-2000:]


def test_definitions_load_without_a_database_and_without_heavy_imports(tmp_path: Path) -> None:
    write_config(tmp_path, wiki=4)
    program = (
        "import sys; from kb_assets.definitions import defs;"
        "defs.get_repository_def().load_all_definitions();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    loaded = run(tmp_path, sys.executable, "-c", program, KB_DATABASE_URL=DEAD)

    assert loaded.stdout.strip() == "[]", loaded.stderr[-2000:]
    assert not loaded.stderr, "nothing is warned of"


def test_without_a_kb_toml_loading_says_what_to_do(tmp_path: Path) -> None:
    loaded = run(tmp_path, sys.executable, "-c", "import kb_assets.definitions")

    assert loaded.returncode != 0
    assert "There is no kb.toml" in loaded.stderr
    assert "kb init" in loaded.stderr


def test_a_kb_toml_without_sources_is_valid(tmp_path: Path) -> None:
    settings = Settings.load(write_config(tmp_path))

    build_definitions(settings).get_repository_def().load_all_definitions()


def test_all_assets_and_checks_are_there(settings: Settings) -> None:
    definitions = build_definitions(settings)

    assert set(specs(settings)) == {*ASSETS, ARCHIVE, BACKUP, HOUSEKEEPING}
    checks = definitions.resolve_asset_graph().asset_check_keys
    assert {key.name for key in checks} == {
        *CHECKS,
        *ARCHIVE_CHECKS,
        *BACKUP_CHECKS,
        "storage_is_tended",
    }


def test_every_asset_says_what_it_is_and_whose(settings: Settings) -> None:
    for name, spec in specs(settings).items():
        assert spec.description and len(spec.description) > 80, name
        assert spec.owners == ["team:docs"], name
        assert "postgres" in spec.kinds, name
        groups = {ARCHIVE: "archive", BACKUP: "backup", HOUSEKEEPING: "operations"}
        assert spec.group_name == groups.get(name, "index"), name


def test_every_asset_shows_described_columns(settings: Settings) -> None:
    for name, spec in specs(settings).items():
        if name in (BACKUP, HOUSEKEEPING):  # have no table of their own
            continue
        columns = spec.metadata["dagster/column_schema"].columns
        assert all(column.description and column.type for column in columns), name


def test_every_check_says_what_it_asserts(settings: Settings) -> None:
    graph = build_definitions(settings).resolve_asset_graph()

    for key in graph.asset_check_keys:
        assert "If it is red, " in (graph.get_check_spec(key).description or ""), key.name


def test_only_unsound_vectors_block(settings: Settings) -> None:
    graph = build_definitions(settings).resolve_asset_graph()

    blocking = {key.name for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}

    assert blocking == {"vectors_are_sound"}


def test_every_shard_is_a_partition_of_every_asset_of_documents(settings: Settings) -> None:
    partitions = {name: spec.partitions_def for name, spec in specs(settings).items()}

    assert partitions.pop("vector_index") is None
    assert partitions.pop(HOUSEKEEPING) is None
    assert isinstance(partitions.pop(ARCHIVE), dg.MonthlyPartitionsDefinition)
    assert isinstance(partitions.pop(BACKUP), dg.DailyPartitionsDefinition)
    for definition in partitions.values():
        assert definition is not None
        assert definition.get_partition_keys() == [f"wiki-{n:02}-of-04" for n in range(1, 5)]


@pytest.mark.parametrize(("execution", "shards_of_a_run"), [("", None), ("cluster", 1)])
def test_a_run_takes_all_shards_or_one_each(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, execution: str, shards_of_a_run: int | None
) -> None:
    monkeypatch.setenv(EXECUTION_VARIABLE, execution)

    graph = build_definitions(settings).resolve_asset_graph()

    policy = graph.get(dg.AssetKey("raw_documents")).backfill_policy
    assert policy is not None
    assert policy.max_partitions_per_run == shards_of_a_run


def test_the_job_runs_in_its_own_process_and_is_not_retried_for_a_failed_step(
    settings: Settings,
) -> None:
    job = build_definitions(settings).resolve_job_def("index_documents")

    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == ASSETS
    assert job.executor_def is dg.in_process_executor
    assert job.tags["dagster/retry_on_asset_or_op_failure"] == "false"


@pytest.mark.parametrize("provider", ["hash", "my_models.fast:make"])
def test_runs_that_embed_with_a_provider_are_counted_and_limited(
    settings: Settings, provider: str
) -> None:
    embedding = settings.embedding.model_copy(update={"provider": provider})
    graph = build_definitions(settings.model_copy(update={"embedding": embedding}))
    pools = {
        node.key.to_user_string(): node.pools
        for node in graph.resolve_asset_graph().asset_nodes
        if node.pools
    }
    assert pools == {"chunk_embeddings": {f"embedding_{provider}"}}

    file = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
    with dg.instance_for_test(overrides={"concurrency": file["concurrency"]}) as instance:
        limited = instance.get_concurrency_config().pool_config
    # By the step, a run that was killed would hold its place for ever where there is no daemon.
    assert limited.pool_granularity == PoolGranularity.RUN
    assert limited.default_pool_limit == 16


def test_launching_by_hand_offers_what_can_be_confirmed(settings: Settings) -> None:
    job = build_definitions(settings).resolve_job_def("index_documents")

    for step in ("raw_documents", "chunk_embeddings"):
        fields = job.graph.node_named(step).definition.config_schema.config_type.fields
        assert set(fields) == {"confirm_deletes", "confirm_cost", "verify"}
        assert all(field.description for field in fields.values())


def test_no_module_postpones_its_annotations() -> None:
    for file in (REPOSITORY / "kb_assets" / "defs").glob("*.py"):
        assert "from __future__ import annotations" not in file.read_text(), file.name
