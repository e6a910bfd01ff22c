"""What assets and checks say of a schema that is not the one this code needs."""

from collections.abc import Mapping

import dagster as dg
import psycopg
import pytest

from kb_assets import KnowledgeBase
from kb_assets.database import migrate
from kb_assets.defs.partitions import range_tags
from tests.defs.conftest import job

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


def read_documents(kb: KnowledgeBase) -> Mapping[str, dg.MetadataValue]:
    """Materialize a shard's documents, and return what the step failed with."""
    (shard, *_) = kb.settings.shards
    result = job(kb, dg.AssetSelection.assets("raw_documents")).execute_in_process(
        tags=range_tags([shard]), raise_on_error=False
    )
    (failed,) = result.get_step_failure_events()
    assert failed.step_failure_data.user_failure_data is not None
    return failed.step_failure_data.user_failure_data.metadata


def test_a_database_that_is_ahead_is_left_alone(kb: KnowledgeBase) -> None:
    with psycopg.connect(kb.urls.migrator) as connection:
        connection.execute("update kb.alembic_version set version_num = '9999'")

    told = read_documents(kb)

    assert told["fix"].value == "Upgrade kb_assets."
    assert "9999" in str(told["what"].value)
    with psycopg.connect(kb.urls.migrator) as connection:
        assert connection.execute("select count(*) from kb.document").fetchone() == (0,)


def test_a_database_that_is_behind_is_not_changed(kb: KnowledgeBase) -> None:
    *_, earlier, last = migrate.revisions()
    migrate.downgrade(kb.urls.migrator, earlier)

    told = read_documents(kb)

    assert told["fix"].value == "Run `kb upgrade`."
    assert earlier in str(told["what"].value)
    kb.upgrade()
    assert migrate.head() == last
