"""A knowledge base over real files, through the library, from first load to the last edit."""

from pathlib import Path

import pytest

from kb_assets.chunks.plan import recipe_of
from kb_assets.documents.stage import read_documents
from kb_assets.fingerprints import Shard
from kb_assets.knowledge_base import KnowledgeBase


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(20):
        text = f"# Topic {number}\n\nAll about subject{number} and nothing else.\n"
        (documents / f"topic-{number:02}.md").write_text(text)
    return documents


def test_what_is_indexed_is_found(knowledge_base, folder) -> None:
    report = knowledge_base.index().shards[0]
    assert report.read.found == report.read.added == 20
    assert report.published.published == 20
    assert report.embedded[0].embedded == 20

    hit = knowledge_base.search("all about subject7")[0]
    assert hit.path == "topic-07.md"
    assert hit.heading_path == ("Topic 7",)
    text = (folder / "topic-07.md").read_bytes()
    assert text[hit.byte_start : hit.byte_end].decode() == hit.text
    assert knowledge_base.status().is_settled


@pytest.mark.usefixtures("folder", "an_hour_later")
def test_nothing_changed_reads_and_embeds_nothing(knowledge_base: KnowledgeBase) -> None:
    knowledge_base.index()
    again = knowledge_base.index().shards[0]
    assert again.read.unchanged == 20
    assert again.read.bytes_read == 0
    assert again.chunked.revisions == 0
    assert again.embedded[0].embedded == 0
    assert again.published.published == again.published.replaced == 0


def test_edit_delete_and_rename(knowledge_base: KnowledgeBase, folder: Path) -> None:
    knowledge_base.index()
    (folder / "topic-01.md").write_text("# Topic 1\n\nNow about wombats.\n")
    (folder / "topic-02.md").unlink()
    (folder / "topic-03.md").rename(folder / "renamed.md")
    report = knowledge_base.index().shards[0]
    assert (report.read.changed, report.read.added) == (1, 0)
    assert (report.read.vanished, report.read.moved) == (1, 1)
    assert report.embedded[0].embedded == 1
    assert report.published.removed == 1

    assert knowledge_base.search("wombats")[0].path == "topic-01.md"
    paths = {hit.path for hit in knowledge_base.search("subject1 subject2 subject3", limit=100)}
    assert paths == {f"topic-{number:02}.md" for number in range(20) if number not in (2, 3)} | {
        "renamed.md"
    }
    assert knowledge_base.status().is_settled


@pytest.mark.usefixtures("folder", "an_hour_later")
def test_a_renamed_document_is_the_same_document(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    twin = (folder / "topic-04.md").read_text()
    (folder / "twin.md").write_text(twin)
    (folder / "twin.txt").write_text(twin)
    knowledge_base.index()
    before = documents(knowledge_base)
    (folder / "deeper").mkdir()
    for name in ("topic-03.md", "topic-04.md", "twin.md"):
        (folder / name).rename(folder / "deeper" / name)
    (folder / "twin.txt").rename(folder / "other.rst")
    run = knowledge_base.run()
    read = read_documents(run, Shard("notes"), recipe_of(run.settings.splitting))
    assert (read.moved, read.added, read.unchanged) == (4, 1, 18)
    assert knowledge_base.search("all about subject3")[0].path == "deeper/topic-03.md"
    report = knowledge_base.index().shards[0]
    assert (report.published.published, report.published.removed) == (1, 1)
    after = documents(knowledge_base)
    twins = {"topic-04.md", "twin.md"}
    assert after["deeper/topic-03.md"] == before["topic-03.md"]
    assert {after[f"deeper/{name}"] for name in twins} == {before[name] for name in twins}
    assert after["other.rst"] not in before.values()
    assert before.keys() - after.keys() == {"topic-03.md", *twins, "twin.txt"}


def documents(knowledge_base: KnowledgeBase) -> dict[str, tuple[int, int]]:
    with knowledge_base.reader.transaction() as connection:
        rows = connection.execute("select path, id, live_revision_id from kb.document").fetchall()
    return {path: (id_, revision) for path, id_, revision in rows}
