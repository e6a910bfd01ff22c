"""Publishing: in other processes if there is much of it, and for nothing if there is nothing."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kb_assets.chunks.plan import recipe_of
from kb_assets.chunks.stage import chunk_documents
from kb_assets.database.run import Run
from kb_assets.documents.stage import read_documents
from kb_assets.embeddings.stage import embed_chunks
from kb_assets.fingerprints import Shard
from kb_assets.index import lexical, publish
from kb_assets.index.analysis import Reading
from kb_assets.index.publish import PublishReport, publish_documents
from kb_assets.isolation import IsolatedWorker
from kb_assets.knowledge_base import KnowledgeBase
from tests.oracle import assert_words_true, rows_of

DOCUMENTS = 20
FENCES = "select fence from kb.shard"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(DOCUMENTS):
        text = f"# Topic {number}\n\nsubject{number}: KafkaConsumer, 日本語 and TS-{number}.\n"
        (documents / f"topic-{number:02}.md").write_text(text * (number + 1))
    (documents / "empty.md").write_text("\n")
    return documents


@pytest.fixture
def read_elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let little text count as much, in many groups and pieces; what workers gave is listed."""
    monkeypatch.setattr(publish, "_WORTH_WORKERS_BYTES", 0)
    monkeypatch.setattr(publish, "MAX_DOCUMENTS", 6)
    monkeypatch.setattr(lexical, "MAX_PIECE_CHARACTERS", 300)
    given: list[object] = []
    original = IsolatedWorker.map

    def listed(self: IsolatedWorker[Any, Any], items: Iterable[Any]) -> Iterator[Any]:
        for item, made in original(self, items):
            given.append(made)
            yield item, made

    monkeypatch.setattr(IsolatedWorker, "map", listed)
    return given


def before_publishing(kb: KnowledgeBase) -> tuple[Run, Shard]:
    run, (shard,) = kb.run(confirm_deletes=True), kb.settings.shards
    read_documents(run, shard, recipe_of(run.settings.splitting))
    chunk_documents(run, shard)
    embed_chunks(run, shard)
    return run, shard


def assert_complete(kb: KnowledgeBase, report: PublishReport) -> None:
    assert (report.published, report.waiting) == (DOCUMENTS + 1, 0)
    assert 0 < report.lexical_seconds < report.seconds
    assert_words_true(kb)
    for number in range(DOCUMENTS):
        hits = kb.search(f"subject{number}", mode="lexical")
        assert {hit.path for hit in hits} == {f"topic-{number:02}.md"}


@pytest.mark.usefixtures("folder")
def test_many_texts_are_read_by_other_processes(
    knowledge_base: KnowledgeBase, read_elsewhere: list[object]
) -> None:
    run, shard = before_publishing(knowledge_base)
    read_elsewhere.clear()
    report = publish_documents(run, shard)
    assert len(read_elsewhere) > 2 * DOCUMENTS / 6
    assert {type(made) for made in read_elsewhere} == {Reading}
    assert_complete(knowledge_base, report)


@pytest.mark.usefixtures("folder")
def test_what_other_processes_do_not_survive_is_read_here(
    knowledge_base: KnowledgeBase, read_elsewhere: list[object]
) -> None:
    run, shard = before_publishing(knowledge_base)
    limits = run.settings.limits.model_copy(update={"parse_seconds": 1e-6})
    settings = run.settings.model_copy(update={"limits": limits})
    read_elsewhere.clear()
    report = publish_documents(dataclasses.replace(run, settings=settings), shard)
    assert {getattr(made, "reason", "") for made in read_elsewhere} == {"too_slow"}
    assert_complete(knowledge_base, report)


def test_with_nothing_to_publish_the_shard_is_not_taken(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    knowledge_base.index()
    run, (shard,) = knowledge_base.run(), knowledge_base.settings.shards
    fences = rows_of(knowledge_base, FENCES)
    report = publish_documents(run, shard)
    assert (report.published, report.replaced, report.removed, report.waiting) == (0, 0, 0, 0)
    assert rows_of(knowledge_base, FENCES) == fences

    (folder / "topic-00.md").unlink()
    run, shard = before_publishing(knowledge_base)
    assert publish_documents(run, shard).removed == 1
    assert rows_of(knowledge_base, FENCES) > fences
