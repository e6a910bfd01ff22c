"""How a knowledge base is: estimated where it is large, and what should be done about it."""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from kb_assets import Message
from kb_assets.database.connect import DatabaseUrls
from kb_assets.fingerprints import Shard
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.knowledge_base.health import Health, looks
from kb_assets.settings import Settings
from tests.acceptance.command_line import write


@pytest.fixture(autouse=True)
def history(database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_DAGSTER_DATABASE_URL", database_urls.dagster)


def about(health: Health, name: str) -> list[str]:
    return [one.words for one in health.concerns if one.about == name]


def test_a_large_one_is_estimated_and_not_counted(
    knowledge_base: KnowledgeBase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, **{f"n{number}": f"# {number}\n\nNumber {number}." for number in range(50)})
    knowledge_base.index()
    exact = knowledge_base.health()
    with psycopg.connect(knowledge_base.urls.migrator, autocommit=True) as owner:
        owner.execute("analyze kb.chunk")
    monkeypatch.setattr(looks, "_COUNTED_BYTES", 0)
    monkeypatch.setattr(looks, "contents_of", None)
    monkeypatch.setattr(looks, "describe_spaces", None)
    about = knowledge_base.health()
    assert (exact.is_exact, about.is_exact) == (True, False)
    assert about.chunks == exact.chunks == 50
    assert about.spaces[0].indexed
    assert (about.shards[0].contents, about.spaces[0].missing) == (None, None)
    assert about.shards[0].account == exact.shards[0].account


def test_nobody_is_called_while_a_run_is_at_work(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, a="# A\n\nA.")
    [shard] = knowledge_base.settings.shards
    idle = knowledge_base.health()
    assert [one.is_urgent for one in idle.concerns if one.about == "notes"] == [True]
    knowledge_base.index()
    with knowledge_base.database.transaction() as connection:
        connection.execute("update kb.document set pending_revision_id = live_revision_id")
    with knowledge_base.run().lease(shard):
        busy = knowledge_base.health()
    assert busy.shards[0].is_busy
    assert [one.is_urgent for one in busy.concerns if one.about == "notes"] == [False]
    assert about(knowledge_base.health(), "notes") == ["1 document not published yet."]


def test_an_index_that_cannot_be_used_is_told(knowledge_base: KnowledgeBase, folder: Path) -> None:
    write(folder, a="# A\n\nA.")
    knowledge_base.index()
    [space] = knowledge_base.health().spaces
    with psycopg.connect(knowledge_base.urls.migrator) as owner:
        owner.execute(f"drop index kb_space.embedding_{space.space.id}_hnsw")
    found = knowledge_base.health()
    assert not found.spaces[0].indexed
    [words] = about(found, f"space {space.space.name}")
    assert "compare with every vector" in words
    with knowledge_base.database.transaction() as connection:
        connection.execute(f"delete from kb_space.embedding_{space.space.id}")
    assert about(knowledge_base.health(), f"space {space.space.name}") == [
        "1 text without a vector."
    ]


def test_months_that_are_due(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(archive={"retention_days": 30})
    with KnowledgeBase(settings) as kb:
        month = (datetime.now(UTC) - timedelta(days=120)).date().replace(day=1)
        add_month(kb, month)
        found = kb.health()
        assert found.archive is not None
        assert (found.archive.months_due, found.archive.months_overdue) == (1, 1)
        assert "should have left the database a week ago" in about(found, "archive")[0]
        kb.archive_messages()
        after = kb.health()
        assert after.archive is not None
        assert (after.archive.months_due, after.archive.objects, after.archive.rows) == (0, 1, 1)
        assert after.archive.object_bytes > 0
        assert about(after, "archive") == []


def add_month(kb: KnowledgeBase, month: date) -> None:
    moment = datetime(month.year, month.month, 2, tzinfo=UTC)
    kb.messages.append([Message("m", "c", moment, "user", "Hello")])


def test_what_was_spent_and_saved(make_settings: Callable[..., Settings], folder: Path) -> None:
    write(folder, a="# A\n\nSame.", b="# A\n\nSame.", c="# C\n\nOther.")
    with KnowledgeBase(make_settings()) as kb:
        kb.index()
        with kb.database.transaction() as connection:
            connection.execute("update kb.embedding_call set cost_usd = 3")
            connection.execute(
                "insert into kb.embedding_call (run_id, space_id, texts, tokens, cost_usd, seconds,"
                " outcome, called_at) values ('r', 1, 1, 1, 4, 1, 'answered', now() - interval"
                " '40 days')"
            )
        spent = kb.health().spending
    assert (spent.texts, spent.cost_usd, spent.month_cost_usd) == (3, 7, 3)
    assert spent.saved_usd == pytest.approx(7 / 3), "one chunk of three shares a vector"


def test_what_does_not_answer_is_not_waited_for(
    knowledge_base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb_assets.knowledge_base.health.collection.PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(looks, "look_at_backups", lambda place: time.sleep(5))
    began = time.monotonic()
    found = knowledge_base.health()
    assert time.monotonic() - began < 4
    assert found.backup is None
    assert found.unknown == {"backup": "it did not answer within 0 seconds."}


def test_the_shards_of_a_source_are_looked_at_one_by_one(
    make_settings: Callable[..., Settings], folder: Path
) -> None:
    write(folder, **{f"n{number}": f"# {number}\n\nNumber {number}." for number in range(20)})
    settings = make_settings(sources=[{"name": "notes", "uri": str(folder), "shards": 2}])
    with KnowledgeBase(settings) as kb:
        kb.index((Shard("notes", 1, 2),))
        found = kb.health()
        assert [one.looked_at is None for one in found.shards] == [False, True]
        assert about(found, "notes-02-of-02") == ["never listed."]
        assert about(found, "notes-01-of-02") == []
