"""A knowledge base over real files, through the library, from first load to the last edit."""

from pathlib import Path

import pytest

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
    assert (report.read.changed, report.read.added) == (1, 1)
    assert (report.read.vanished, report.read.moved) == (1, 1)
    assert report.embedded[0].embedded == 1
    assert report.published.removed == 2

    assert knowledge_base.search("wombats")[0].path == "topic-01.md"
    paths = {hit.path for hit in knowledge_base.search("subject1 subject2 subject3", limit=100)}
    assert paths == {f"topic-{number:02}.md" for number in range(20) if number not in (2, 3)} | {
        "renamed.md"
    }
    assert knowledge_base.status().is_settled
