"""A document that is erased is gone at once, and stays away although its source still has it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kb_assets.erasure.erase import finish_erasures, hide_again
from kb_assets.erasure.ledger import Request
from kb_assets.errors import NotFoundError, SettingsError
from kb_assets.index import account
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.oracle import assert_accounted, assert_words_true, live_vectors, rows_of

SHARED = "Both of them say that herons wait for fish in shallow water."
OWN = "Only one of them says that the okapi lives in the rain forest."
SPLITTING = {"strategy": "markdown", "size": 16, "overlap": 0}

CONTENTS = {
    "documents": "select path from kb.document where path = 'okapi.md'",
    "revisions": "select text from kb.document_revision where text like '%%okapi%%'",
    "chunks": "select text from kb.chunk where text like '%%okapi%%'",
    "words": "select term from kb.lexical_posting where term like '%%okapi%%'",
    "dead": "select revision_id from kb.lexical_document where is_dead",
    "answers": "select key from kb.search_cache",
    "unused texts": "select input_hash from kb.embedding_unused",
}


@pytest.fixture
def kb(make_settings: Callable[..., Settings], folder: Path, an_hour_later: None) -> KnowledgeBase:
    write(folder)
    with KnowledgeBase(make_settings(splitting=SPLITTING, cache={"url": "postgres"})) as opened:
        opened.index()
        yield opened


def write(folder: Path) -> None:
    (folder / "herons.md").write_text(f"{SHARED}\n")
    (folder / "okapi.md").write_text(f"{SHARED}\n\n{OWN}\n")


def found(kb: KnowledgeBase, question: str = "okapi", mode: str = "hybrid") -> set[str]:
    return {hit.path for hit in kb.search(question, mode=mode)}


def contents(kb: KnowledgeBase) -> dict[str, list]:
    return {what: rows for what, query in CONTENTS.items() if (rows := rows_of(kb, query))}


def test_nothing_is_left_of_it_and_search_finds_it_no_more(kb: KnowledgeBase) -> None:
    assert "okapi.md" in found(kb)
    assert contents(kb).keys() == {"documents", "revisions", "chunks", "words", "answers"}
    before = set(live_vectors(kb))
    generation = rows_of(kb, "select generation from kb.index_state")

    erased = kb.erase(document="notes/okapi.md")

    assert contents(kb) == {}
    for mode in ("vector", "lexical", "hybrid"):
        assert "okapi.md" not in found(kb, mode=mode)
    assert found(kb, "herons wait for fish") == {"herons.md"}
    [(own,)] = [before - set(live_vectors(kb))]
    assert rows_of(kb, "select from kb.chunk where input_hash = %s", own) == []
    assert erased.finished_at is not None
    counts = {name: erased.receipt[name] for name in ("revisions", "chunks", "vectors")}
    assert counts == {"revisions": 1, "chunks": 2, "vectors": 1}
    assert "okapi" not in str(erased.receipt)
    assert rows_of(kb, "select generation from kb.index_state") > generation
    assert_words_true(kb)


def test_nothing_is_left_of_what_it_once_was(kb: KnowledgeBase, folder: Path) -> None:
    before = set(live_vectors(kb))
    (folder / "okapi.md").write_text(f"{SHARED}\n\nIt says nothing of that any more.\n")
    kb.index()
    [(hash_,)] = rows_of(kb, "select input_hash from kb.embedding_unused")
    rows_of(
        kb,
        "insert into kb.quarantine (stage, space_id, content_hash, conditions, reason, detail)"
        " select 'embed', s.id, c.input_hash, '', 'too_long', c.text"
        " from kb.embedding_space s, kb.chunk c where c.text like 'It says nothing%%' returning id",
    )
    kb.erase(document="notes/okapi.md")
    assert hash_ in before - set(live_vectors(kb))
    assert contents(kb) == {}
    assert rows_of(kb, "select detail from kb.quarantine") == []


@pytest.mark.parametrize("verify", [False, True])
def test_it_is_not_read_again_and_the_account_stays_balanced(
    kb: KnowledgeBase, folder: Path, verify: bool
) -> None:
    kb.erase(document="notes/okapi.md")
    assert kb.status().is_settled, "before the next run"
    [shard] = kb.settings.shards
    for _ in range(2):
        assert [(one.found, one.added) for one in kb.plan().shards] == [(1, 0)]
        report = kb.index(run=kb.run(verify=verify))
        assert (report.shards[0].read.found, report.shards[0].read.added) == (1, 0)
        assert kb.status().is_settled
        (folder / "okapi.md").write_text("# Another content\n\nNow it is the quagga.\n")
    counted = account.account_for(kb.reader, shard)
    assert (counted.listed, counted.documents, counted.erased) == (1, 1, 1)
    assert contents(kb) == {}
    [story] = kb.why("okapi.md")
    assert story.verdict.startswith("erased")
    assert (story.found_at, story.live) == (None, None)


def test_a_document_that_waits_or_is_in_quarantine_can_be_erased(
    kb: KnowledgeBase, folder: Path
) -> None:
    (folder / "okapi.md").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    kb.index()
    assert kb.status().shards[0].account.quarantined == 1
    kb.erase(document="notes/okapi.md")
    assert contents(kb) == {}
    assert rows_of(kb, "select reason from kb.quarantine") == []
    kb.index()
    assert_accounted_without(kb, folder)


def assert_accounted_without(kb: KnowledgeBase, folder: Path) -> None:
    (folder / "okapi.md").unlink()
    assert_accounted(kb)


def test_the_same_text_elsewhere_keeps_its_vector(kb: KnowledgeBase) -> None:
    before = live_vectors(kb)
    kb.erase(document="notes/herons.md")
    assert live_vectors(kb).keys() == before.keys(), "the other document has all of its texts"
    assert found(kb, "herons wait for fish") == {"okapi.md"}
    assert_words_true(kb)


def test_what_moves_to_its_path_is_not_read_either(kb: KnowledgeBase, folder: Path) -> None:
    kb.erase(document="notes/okapi.md")
    (folder / "herons.md").rename(folder / "okapi.md")
    kb.index(run=kb.run(confirm_deletes=True))
    assert rows_of(kb, "select path from kb.document") == []
    (folder / "okapi.md").rename(folder / "okapis.md")
    kb.index()
    assert found(kb, "herons") == {"okapis.md"}, "under a path of its own"


def test_twice_is_once_and_what_is_not_known_is_told(kb: KnowledgeBase) -> None:
    first = kb.erase(document="notes/okapi.md")
    assert kb.erase(document="notes/okapi.md") == first
    assert kb.erasures() == (first,)
    for unknown in ("notes/okapis.md", "others/okapi.md", "notes/a\udc80b"):
        with pytest.raises(NotFoundError):
            kb.erase(document=unknown)
    for wrong in ({"document": "okapi.md"}, {}, {"user": "u", "document": "notes/okapi.md"}):
        with pytest.raises(SettingsError):
            kb.erase(**wrong)
    assert kb.erasures() == (first,)


def test_what_ended_before_its_words_went_is_finished(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kb_assets.erasure.erase.drop_dead_postings", killed)
    with pytest.raises(KeyboardInterrupt):
        kb.erase(document="notes/okapi.md")
    assert "okapi.md" not in found(kb)
    assert [one.finished_at for one in kb.erasures()] == [None]
    assert "words" in contents(kb)
    monkeypatch.undo()
    [finished] = kb.resume_erasures()
    assert finished.finished_at is not None
    assert "words" not in contents(kb)
    assert kb.resume_erasures() == ()


def test_a_restored_backup_is_told_again(kb: KnowledgeBase) -> None:
    entry = {
        "version": 1,
        "key": "erasures/0000000007-0123456789abcdef.json",
        "scope": "document",
        "subject_sha256": "00" * 32,
        "requested_at": "2025-03-04T05:06:07.000008+00:00",
    }
    entries = [
        entry | {"source": "notes", "path": "okapi.md"},
        entry | {"source": "later", "path": "new.md", "subject_sha256": "01" * 32},
    ]
    for _ in range(2):
        hide_again(kb.run(), map(Request.from_entry, entries))
        finish_erasures(kb.run(), None)
    assert contents(kb) == {}
    assert [one.receipt["chunks"] for one in kb.erasures()] == [2, 0]
    assert all(one.finished_at for one in kb.erasures())
    [(path,)] = rows_of(
        kb,
        "select path from kb.erased_document d join kb.source s on s.id = d.source_id"
        " where s.name = 'later'",
    )
    assert path == "new.md"
