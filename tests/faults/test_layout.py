"""A source's number of shards is changed: nothing is read for it, lost or doubled."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kb_assets.knowledge_base import IndexReport, KnowledgeBase
from kb_assets.settings import Settings
from tests.faults import corpus
from tests.faults.conftest import hash_vector
from tests.oracle import assert_same_index, assert_sound


def total(report: IndexReport, name: str) -> int:
    return sum(getattr(shard.read, name) for shard in report.shards)


@pytest.mark.usefixtures("an_hour_later")
def test_a_layout_can_be_changed_and_changed_back(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    folder: Path,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    corpus.write(folder, corpus.first(40))
    (folder / "empty.md").write_text("")
    (folder / "binary.md").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    documents = 42
    for shards in (1, 4, 1, 3, 1):
        sources = [{"name": "notes", "uri": str(folder), "shards": shards}]
        kb = open_settings(make_settings(sources=sources, splitting=corpus.SPLITTING))
        first_time = kb.status().shards[0].account.documents == 0
        report = kb.index()
        assert total(report, "found") == documents
        if not first_time:
            assert total(report, "unchanged") == documents
            assert total(report, "bytes_read") == 0
            assert total(report, "withheld") == total(report, "vanished") == 0
            assert sum(shard.embedded[0].embedded for shard in report.shards) == 0
        assert_sound(kb, hash_vector)
    new = fresh(kb.settings)
    new.index()
    assert_same_index(kb, new, corpus.paragraph("shared", 1))


@pytest.mark.usefixtures("an_hour_later")
def test_what_changed_under_one_layout_is_finished_under_another(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    folder: Path,
) -> None:
    def opened(shards: int) -> KnowledgeBase:
        sources = [{"name": "notes", "uri": str(folder), "shards": shards}]
        return open_settings(make_settings(sources=sources, splitting=corpus.SPLITTING))

    corpus.write(folder, corpus.first(40))
    opened(1).index()
    corpus.write(folder, corpus.second(40))
    quarters = opened(4)
    quarters.index(quarters.settings.shards[:2], run=quarters.run(confirm_deletes=True))
    whole = opened(1)
    whole.index(run=whole.run(confirm_deletes=True))
    assert_sound(whole, hash_vector)
    quarters.index()
    assert_sound(quarters, hash_vector)
