"""The vector index: whatever became of it, searches are answered and the next run mends it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from kb_assets.database.cluster import ADMINISTRATOR
from kb_assets.database.connect import DatabaseUrls
from kb_assets.embeddings.space import live_space
from kb_assets.errors import DatabaseUnavailableError
from kb_assets.index.vectors import index_states, is_fit, maintain_vector_indexes
from kb_assets.knowledge_base import KnowledgeBase
from tests.faults.conftest import hash_vector
from tests.faults.shim import Background, wait_until_blocked
from tests.oracle import assert_sound

INDEX = "kb_space.embedding_1_hnsw"


@pytest.fixture(autouse=True)
def _the_index_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few passages there are, of which looking at all would be faster."""
    monkeypatch.setattr("kb_assets.retrieval.vectors._EXACT_FACTOR", 0)


@pytest.fixture
def kb(knowledge_base: KnowledgeBase, folder: Path) -> KnowledgeBase:
    for number in range(30):
        text = f"---\ntags: [tag{number % 10}]\n---\n# Topic {number}\n\nAll about {number}.\n"
        (folder / f"{number:02}.md").write_text(text)
    knowledge_base.index()
    return knowledge_base


@pytest.fixture
def administrator(
    database_urls: DatabaseUrls, servers: Callable[..., object]
) -> Iterator[psycopg.Connection]:
    name = psycopg.conninfo.conninfo_to_dict(database_urls.writer)["dbname"]
    url = servers(16).url(name, ADMINISTRATOR)  # type: ignore[attr-defined]
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def fit(kb: KnowledgeBase) -> bool:
    space = live_space(kb.database)
    assert space is not None
    with kb.database.transaction() as connection:
        states = index_states(connection, space)
        return is_fit(space, states) and len(states) == 1


def assert_answers(kb: KnowledgeBase) -> None:
    assert kb.search("All about 7.", mode="vector")[0].path == "07.md"
    assert len(kb.search("all", limit=30, mode="vector")) == 30


def assert_mended(kb: KnowledgeBase) -> None:
    assert not fit(kb)
    assert_answers(kb)
    (report,) = maintain_vector_indexes(kb.database)
    assert (report.action, report.valid) == ("repaired", True)
    assert fit(kb)
    assert_answers(kb)
    (report,) = maintain_vector_indexes(kb.database)
    assert report.action == "none"
    assert_sound(kb, hash_vector)


def test_an_invalid_index_is_built_anew(
    kb: KnowledgeBase, administrator: psycopg.Connection
) -> None:
    administrator.execute(
        f"update pg_index set indisvalid = false where indexrelid = '{INDEX}'::regclass"
    )
    assert_mended(kb)


@pytest.mark.parametrize("left", ["_new", "_old"])
def test_what_a_killed_build_left_beside_the_index_is_removed(
    kb: KnowledgeBase, administrator: psycopg.Connection, left: str
) -> None:
    administrator.execute(
        f"create index embedding_1_hnsw{left} on kb_space.embedding_1"
        " using hnsw (vector halfvec_cosine_ops)"
    )
    administrator.execute(
        f"update pg_index set indisvalid = false where indexrelid = '{INDEX}{left}'::regclass"
    )
    assert_mended(kb)


def test_an_index_for_another_distance_is_replaced(
    kb: KnowledgeBase, administrator: psycopg.Connection
) -> None:
    administrator.execute(f"drop index {INDEX}")
    administrator.execute(
        "create index embedding_1_hnsw on kb_space.embedding_1 using hnsw (vector halfvec_l2_ops)"
    )
    assert_mended(kb)


def test_a_lost_index_is_built_again_and_exact_search_serves_meanwhile(
    kb: KnowledgeBase, administrator: psycopg.Connection
) -> None:
    administrator.execute(f"drop index {INDEX}")
    assert_answers(kb)
    (report,) = maintain_vector_indexes(kb.database)
    assert (report.action, report.valid) == ("built", True)
    assert_answers(kb)


def test_a_build_that_is_killed_is_taken_up_by_the_next_run(
    kb: KnowledgeBase, administrator: psycopg.Connection
) -> None:
    administrator.execute(f"drop index {INDEX}")
    with psycopg.connect(kb.settings.database_url) as holding:
        # A concurrent build waits for whoever writes to the table, and so can be caught in it.
        holding.execute("delete from kb_space.embedding_1 where false")
        holding.execute("lock table kb_space.embedding_1 in row exclusive mode")
        building = Background(lambda: maintain_vector_indexes(kb.database))
        wait_until_blocked(kb)
        administrator.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where datname = current_database() and query like 'create index concurrently%%'"
        )
        with pytest.raises(DatabaseUnavailableError):
            building.result()
    assert_mended(kb)


def test_two_builders_at_once_build_one_index(
    kb: KnowledgeBase, administrator: psycopg.Connection
) -> None:
    administrator.execute(f"drop index {INDEX}")
    builders = [Background(lambda: maintain_vector_indexes(kb.database)) for _ in range(2)]
    actions = sorted(builder.result()[0].action for builder in builders)  # type: ignore[index]
    assert actions == ["built", "none"]
    assert fit(kb)
    assert_answers(kb)


def test_an_index_with_many_dead_entries_is_rebuilt_beside_the_old(
    kb: KnowledgeBase, folder: Path
) -> None:
    (report,) = maintain_vector_indexes(kb.database, collected=20)
    assert (report.action, report.valid) == ("rebuilt", True)
    assert fit(kb)
    assert_answers(kb)


def test_a_build_that_outgrows_its_memory_says_so(
    kb: KnowledgeBase, administrator: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    administrator.execute(
        "insert into kb_space.embedding_1 select sha256(n::text::bytea),"
        " (select array_agg(sin(n * d)) from generate_series(1, 384) d)::halfvec(384)"
        " from generate_series(1, 1500) n"
    )
    administrator.execute(f"drop index {INDEX}")
    (report,) = maintain_vector_indexes(kb.database)
    assert (report.action, report.vectors, report.fits_memory) == ("built", 1530, True)
    administrator.execute(f"drop index {INDEX}")
    monkeypatch.setattr("kb_assets.index.vectors._LEAST_MEMORY_BYTES", 1 << 20)
    monkeypatch.setattr("kb_assets.index.vectors._MOST_MEMORY_BYTES", 1 << 20)
    (report,) = maintain_vector_indexes(kb.database)
    assert (report.action, report.fits_memory, report.memory_bytes) == ("built", False, 1 << 20)
    assert_answers(kb)


def test_no_vector_is_looked_at_when_nothing_is_to_be_done(
    kb: KnowledgeBase, administrator: psycopg.Connection
) -> None:
    administrator.execute("revoke select on kb_space.embedding_1 from kb_writer")
    (report,) = maintain_vector_indexes(kb.database)
    assert (report.action, report.vectors, report.valid) == ("none", 30, True)
    assert report.index_bytes > 0


def test_a_narrow_filter_still_returns_as_many_hits_as_there_are(
    kb: KnowledgeBase,
    folder: Path,
    administrator: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kb_assets.retrieval.search.POOL", 1)
    monkeypatch.setattr("kb_assets.retrieval.search.LEAST_IN_VIEW", 1)
    for number in range(30, 330):
        (folder / f"{number}.md").write_text(f"# Topic {number}\n\nAll about {number}.\n")
    kb.index()
    database = administrator.info.dbname
    # The index gives up early, as it does where very many passages are nearer than those wanted.
    for setting in ("hnsw.max_scan_tuples = 1", "enable_seqscan = off", "enable_sort = off"):
        administrator.execute(f"alter database {database} set {setting}")
    kb.close()
    for number in range(30):
        tag = f"tag{(number + 5) % 10}"
        hits = kb.search(f"All about {number}.", limit=1, tags=(tag,), mode="vector")
        assert [hit.tags for hit in hits] == [(tag,)]
        hits = kb.search(f"All about {number}.", limit=3, tags=(tag,), mode="vector")
        assert [hit.tags for hit in hits] == [(tag,)] * 3
    assert len(kb.search("all", limit=10, tags=("tag3",), mode="vector")) == 3
    assert len(kb.search("all", limit=10, path_prefix="07", mode="vector")) == 1
    assert kb.search("all", limit=10, tags=("no such tag",), mode="vector").hits == ()
