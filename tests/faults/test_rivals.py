"""What other pipelines are known to get wrong, as their users reported it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kb_assets.errors import ProviderRefusedError, ProviderUnavailableError, SpaceError
from kb_assets.index.checks import unfilled_spaces
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults import corpus
from tests.faults.conftest import hash_vector, openai_vector
from tests.oracle import assert_same_index, assert_sound, live_vectors, repeated, rows_of
from tests.servers.openai_server import Fault, OpenAIServer

Open = Callable[..., KnowledgeBase]


def test_an_update_that_failed_and_was_undone_leaves_the_index_complete(
    openai_kb: Open,
    provider: OpenAIServer,
    folder: Path,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    kb = openai_kb(requests_in_flight=1, limits={"max_deleted_share": 1})
    corpus.write(folder, corpus.first(20))
    kb.index()
    asked = len(provider.answered_texts)
    corpus.write(folder, corpus.second(20))
    provider.script(Fault(), Fault())
    provider.always = Fault(status=500)
    with pytest.raises(ProviderUnavailableError):
        kb.index()
    corpus.write(folder, corpus.first(20))
    provider.always = Fault()
    kb.index()
    assert len(provider.answered_texts) - asked == 8
    assert_sound(kb, openai_vector)
    new = fresh(kb.settings)
    new.index()
    assert_same_index(kb, new, corpus.paragraph("shared", 1), corpus.paragraph("new", 4, 0))


@pytest.mark.usefixtures("an_hour_later")
def test_another_chunk_size_splits_everything_again_and_embeds_only_new_texts(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    folder: Path,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    corpus.write(folder, corpus.first(12))
    for number in range(5):
        (folder / f"short-{number}.txt").write_text(f"A short text, number {number}.\n")
    small = open_settings(make_settings(splitting=corpus.SPLITTING))
    small.index()
    before = set(live_vectors(small))
    kb = open_settings(make_settings(splitting=corpus.SPLITTING | {"size": 120}))
    report = kb.index().shards[0]
    assert report.chunked.revisions == 17
    assert report.published.replaced == 17
    live = {hash_ for (hash_,) in rows_of(kb, "select distinct input_hash from kb.chunk")}
    assert len(live & before) >= 5
    assert report.embedded[0].embedded == len(live - before) > 0
    assert_sound(kb, hash_vector)
    new = fresh(kb.settings)
    new.index()
    assert_same_index(kb, new, corpus.paragraph("shared", 1))


def test_another_model_fills_a_new_space_while_the_old_one_answers(
    openai_kb: Open,
    provider: OpenAIServer,
    folder: Path,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    corpus.write(folder, corpus.first(20))
    old = openai_kb()
    old.index()
    (folder / "late.txt").write_text(corpus.document(corpus.paragraph("late")))
    new = openai_kb(model="tiny-2", requests_in_flight=1)
    provider.known_models = {"tiny"}
    with pytest.raises(Exception, match="tiny-2"):
        new.index()
    provider.known_models = None
    with pytest.raises(SpaceError, match="is not complete"):
        new.promote_space("2")
    report = new.index().shards[0]
    assert [one.state for one in report.embedded] == ["live", "building"]
    for kb in (old, new):
        assert "late.txt" in {hit.path for hit in kb.search("late", limit=100)}
    assert [space.space.state for space in new.spaces()] == ["live", "building"]
    assert new.spaces()[1].missing == 0

    new.promote_space("2")
    assert [space.space.state for space in new.spaces()] == ["retired", "live"]
    assert "late.txt" in {hit.path for hit in new.search("late", limit=100)}
    assert_sound(new, openai_vector)
    other = fresh(new.settings)
    other.index()
    assert_same_index(new, other, corpus.paragraph("shared", 1))


def test_a_new_space_that_cannot_be_filled_keeps_nothing_from_readers(
    openai_kb: Open, provider: OpenAIServer, folder: Path
) -> None:
    corpus.write(folder, corpus.first(6))
    old = openai_kb()
    old.index()
    (folder / "late.txt").write_text("Something late.\n")
    provider.known_models = {"tiny"}
    new = openai_kb(model="unknown")
    with pytest.raises(ProviderRefusedError):
        new.index()
    assert "late.txt" in {hit.path for hit in new.search("late", limit=100)}
    assert new.status().is_settled
    assert unfilled_spaces(new.database, new.settings.shards) == {new.spaces()[1].space.name: 19}

    provider.known_models = None
    new.index()
    assert unfilled_spaces(new.database, new.settings.shards) == {new.spaces()[1].space.name: 0}


def test_a_paragraph_that_stands_five_times_is_five_chunks_and_one_vector(
    openai_kb: Open, provider: OpenAIServer, folder: Path
) -> None:
    same = corpus.paragraph("same")
    own = [corpus.paragraph("own", number) for number in range(3)]
    (folder / "three.txt").write_text(corpus.document(same, own[0], same, same, own[1]))
    (folder / "two.txt").write_text(corpus.document(same, same, own[2]))
    kb = openai_kb()
    kb.index()
    assert len(rows_of(kb, "select * from kb.chunk")) == 8
    assert len(live_vectors(kb)) == 4
    assert repeated(provider.answered_texts) == 0
    assert len(provider.answered_texts) == 4
    found = kb.search("same", limit=100, merge=False)
    hits = [hit for hit in found if hit.text.strip() == same]
    assert len({hit.score for hit in hits}) == 1
    assert sorted((hit.path, hit.ordinal) for hit in hits) == [
        ("three.txt", 0),
        ("three.txt", 2),
        ("three.txt", 3),
        ("two.txt", 0),
        ("two.txt", 1),
    ]
    assert_sound(kb, openai_vector)


def test_a_file_that_was_emptied_leaves_no_chunk(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    for number in range(4):
        (folder / f"{number}.md").write_text(f"# Topic {number}\n\nAll about {number}.\n")
    knowledge_base.index()
    (folder / "1.md").write_text("")
    report = knowledge_base.index().shards[0]
    assert report.published.replaced == 1
    assert {hit.path for hit in knowledge_base.search("all", limit=100)} == {
        "0.md",
        "2.md",
        "3.md",
    }
    query = "select count(*) from kb.chunk c join kb.document_revision r on r.id = c.revision_id"
    query += " join kb.document d on d.id = r.document_id where d.path = '1.md'"
    assert rows_of(knowledge_base, query) == [(0,)]
    assert_sound(knowledge_base, hash_vector)


def test_a_corpus_of_empty_files_is_complete(knowledge_base: KnowledgeBase, folder: Path) -> None:
    for number in range(3):
        (folder / f"{number}.md").write_text("")
    knowledge_base.index()
    assert knowledge_base.search("anything").hits == ()
    assert_sound(knowledge_base, hash_vector)


@pytest.mark.usefixtures("an_hour_later")
def test_nothing_beside_the_database_is_needed_to_go_on(
    make_settings: Callable[..., Settings], folder: Path, tmp_path: Path
) -> None:
    corpus.write(folder, corpus.first(10))
    settings = make_settings(home=tmp_path / ".kb")
    with KnowledgeBase(settings) as kb:
        kb.index()
    shutil.rmtree(settings.home_folder, ignore_errors=True)
    with KnowledgeBase(settings) as kb:
        report = kb.index().shards[0]
        assert (report.read.unchanged, report.read.bytes_read) == (10, 0)
        assert report.embedded[0].embedded == 0
        assert_sound(kb, hash_vector)
