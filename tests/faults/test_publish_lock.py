"""Rule 3: publishing, collecting and promoting keep out of each other's way.

Each race is driven to the moment where it would go wrong, once with the lock and once without:
without it the oracle must say so, or the test would prove nothing.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from kb_assets.chunks.plan import recipe_of
from kb_assets.chunks.stage import chunk_documents
from kb_assets.database.run import Run
from kb_assets.documents.stage import read_documents
from kb_assets.embeddings.space import live_space
from kb_assets.embeddings.stage import embed_chunks
from kb_assets.errors import SpaceError
from kb_assets.fingerprints import Shard
from kb_assets.index import stems
from kb_assets.index.collect import collect_unused_vectors
from kb_assets.index.publish import PublishReport, publish_documents
from kb_assets.index.space import promote_space
from kb_assets.index.vectors import maintain_vector_indexes
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults.conftest import hash_vector
from tests.faults.shim import Background, PausingDatabase, wait_until_blocked, with_database
from tests.oracle import assert_sound, assert_vectors_true, live_vectors, rows_of

NOTES = Shard("notes")
TEXT = "# Wombats\n\nWombats dig.\n"


@pytest.fixture
def without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("publish", "collect", "space"):
        monkeypatch.setattr(f"kb_assets.index.{module}.lock_publishing", lambda _: None)


def prepare(run: Run) -> None:
    """Everything but publishing."""
    read_documents(run, NOTES, recipe_of(run.settings.splitting))
    chunk_documents(run, NOTES)
    embed_chunks(run, NOTES)


def publish_while_collecting(kb: KnowledgeBase, folder: Path) -> PublishReport:
    """A text comes back while its vector is being collected, and its document is published."""
    (folder / "keep.md").write_text("# Keep\n\nThis one stays.\n")
    (folder / "away.md").write_text(TEXT)
    kb.index()
    (folder / "away.md").unlink()
    kb.index(run=kb.run(confirm_deletes=True))

    collecting = PausingDatabase(kb.settings.database_url, at=2)
    collector = Background(lambda: collect_unused_vectors(collecting, grace_seconds=0))
    assert collecting.about_to_commit.wait(60)
    (folder / "back.md").write_text(TEXT)
    prepare(kb.run())
    publisher = Background(lambda: publish_documents(kb.run(), NOTES))
    wait_until_blocked(kb, or_over=publisher)
    collecting.commit.set()
    assert collector.result() == 1
    report = publisher.result()
    assert isinstance(report, PublishReport)
    return report


def test_a_document_whose_vector_is_being_collected_is_not_published(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    report = publish_while_collecting(knowledge_base, folder)
    assert (report.published, report.waiting) == (0, 1)
    assert_vectors_true(knowledge_base, hash_vector)

    knowledge_base.index()
    assert_sound(knowledge_base, hash_vector)
    assert knowledge_base.search("wombats")[0].path == "back.md"


@pytest.mark.usefixtures("without_the_lock")
def test_without_the_lock_such_a_document_would_be_live_and_not_found(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    assert publish_while_collecting(knowledge_base, folder).published == 1
    with pytest.raises(AssertionError, match=r"back\.md is live and has no vector"):
        assert_vectors_true(knowledge_base, hash_vector)


def promote_while_publishing(
    kb: KnowledgeBase, folder: Path, make_settings: Callable[..., Settings]
) -> Background:
    """A document goes live in the old space while the new one, complete so far, is promoted."""
    (folder / "keep.md").write_text("# Keep\n\nThis one stays.\n")
    kb.index()
    with KnowledgeBase(make_settings(embedding={"provider": "hash", "dimensions": 64})) as new:
        new.index()
        maintain_vector_indexes(new.database)
    (folder / "late.md").write_text(TEXT)
    prepare(kb.run())

    # Whether there is work, what it is, its texts and the stems of their words come first.
    stems._known.clear()
    publishing = PausingDatabase(kb.settings.database_url, at=5)
    publisher = Background(lambda: publish_documents(with_database(kb.run(), publishing), NOTES))
    assert publishing.about_to_commit.wait(60)
    promoter = Background(lambda: promote_space(kb.database, "2"))
    wait_until_blocked(kb, or_over=promoter)
    publishing.commit.set()
    publisher.result()
    return promoter


def test_a_space_that_lacks_what_is_being_published_is_not_promoted(
    knowledge_base: KnowledgeBase, folder: Path, make_settings: Callable[..., Settings]
) -> None:
    promoter = promote_while_publishing(knowledge_base, folder, make_settings)
    with pytest.raises(SpaceError, match="1 texts that readers see"):
        promoter.result()
    space = live_space(knowledge_base.database)
    assert space is not None
    assert space.id == 1
    assert_sound(knowledge_base, hash_vector)


@pytest.mark.usefixtures("without_the_lock")
def test_without_the_lock_such_a_space_would_be_promoted(
    knowledge_base: KnowledgeBase, folder: Path, make_settings: Callable[..., Settings]
) -> None:
    promote_while_publishing(knowledge_base, folder, make_settings).result()
    with pytest.raises(AssertionError, match=r"late\.md is live and has no vector"):
        assert_vectors_true(knowledge_base, hash_vector)


def test_a_document_is_published_into_the_space_that_was_promoted_meanwhile(
    knowledge_base: KnowledgeBase, folder: Path, make_settings: Callable[..., Settings]
) -> None:
    (folder / "keep.md").write_text("# Keep\n\nThis one stays.\n")
    knowledge_base.index()
    with KnowledgeBase(make_settings(embedding={"provider": "hash", "dimensions": 64})) as new:
        new.index()
        (folder / "late.md").write_text(TEXT)
        prepare(knowledge_base.run())
        promoting = PausingDatabase(knowledge_base.settings.database_url, at=2)
        promoter = Background(lambda: promote_space(promoting, "2"))
        assert promoting.about_to_commit.wait(60)
        publisher = Background(lambda: publish_documents(knowledge_base.run(), NOTES))
        wait_until_blocked(knowledge_base)
        promoting.commit.set()
        promoter.result()
        report = publisher.result()
        assert isinstance(report, PublishReport)
        assert report.waiting == 1
        assert_vectors_true(knowledge_base, hash_vector)
        new.index()
        assert new.search("wombats")[0].path == "late.md"
        assert_sound(new, hash_vector)


def test_a_document_with_a_missing_vector_is_not_published(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    (folder / "one.md").write_text("# One\n\nThe first.\n")
    knowledge_base.index()
    (folder / "one.md").write_text("# One\n\nThe first, changed.\n")
    (folder / "two.md").write_text(TEXT)
    run = knowledge_base.run()
    read_documents(run, NOTES, recipe_of(run.settings.splitting))
    chunk_documents(run, NOTES)
    report = publish_documents(run, NOTES)
    assert (report.published, report.replaced, report.waiting) == (0, 0, 2)
    assert [hit.text.strip() for hit in knowledge_base.search("first")] == ["# One\n\nThe first."]
    assert knowledge_base.status().shards[0].account.pending == 2
    assert_vectors_true(knowledge_base, hash_vector)


def test_a_text_that_came_back_in_time_keeps_its_vector(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    (folder / "keep.md").write_text("# Keep\n\nThis one stays.\n")
    (folder / "away.md").write_text(TEXT)
    knowledge_base.index()
    (folder / "away.md").unlink()
    knowledge_base.index(run=knowledge_base.run(confirm_deletes=True))
    assert len(live_vectors(knowledge_base)) == 2
    (folder / "back.md").write_text(TEXT)
    report = knowledge_base.index().shards[0]
    assert report.embedded[0].embedded == 0
    assert collect_unused_vectors(knowledge_base.database, grace_seconds=0) == 0
    assert len(live_vectors(knowledge_base)) == 2
    assert rows_of(knowledge_base, "select * from kb.embedding_unused") == []
    assert_sound(knowledge_base, hash_vector)
