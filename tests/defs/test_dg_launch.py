"""`dg launch` over a range of shards, as a person types it."""

import shutil
import sys
from pathlib import Path

import dagster as dg

from kb_assets import KnowledgeBase
from kb_assets.defs.instance import dagster_instance
from tests.defs.test_definitions import REPOSITORY, run


def test_a_range_of_shards_is_launched_and_the_index_with_it(kb: KnowledgeBase) -> None:
    folder = kb.settings.root
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    command = (str(Path(sys.executable).with_name("dg")), "launch", "-m", "kb_assets.definitions")
    shards = ("--job", "index_documents", "--partition-range", "wiki-02-of-04...wiki-04-of-04")

    launched = run(folder, *command, *shards, DAGSTER_HOME=str(folder))

    assert launched.returncode == 0, launched.stderr[-2000:]
    with dagster_instance(kb) as instance:
        (done,) = instance.get_runs()
        published = instance.get_materialized_partitions(dg.AssetKey("published_documents"))
        index = instance.get_latest_materialization_event(dg.AssetKey("vector_index"))
    assert done.is_success
    assert published == {f"wiki-{number:02}-of-04" for number in (2, 3, 4)}
    assert index is not None
