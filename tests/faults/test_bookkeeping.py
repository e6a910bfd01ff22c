"""What is kept over many runs: shards beside each other, grace periods, limits, old sources."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from kb_assets.chunks.plan import recipe_of
from kb_assets.documents.listing import Listed, Listing
from kb_assets.errors import CostLimitError
from kb_assets.fingerprints import Shard
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import LimitSettings, Settings, SourceSettings
from tests.servers.openai_server import OpenAIServer

Make = Callable[..., Settings]
Open = Callable[[Settings], KnowledgeBase]


def write(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}.md").write_text(f"# Topic {number}\n\nAll about {number}.\n")


def test_copies_in_a_shard_that_is_gone_too_are_not_where_documents_moved(
    make_settings: Make, open_settings: Open, folder: Path
) -> None:
    for number in range(80):
        (folder / f"copy-{number}.md").write_text("# To do\n\nTo be written.\n")
    write(folder, 20)
    source = SourceSettings(name="notes", uri=str(folder), shards=2)
    kb = open_settings(make_settings(sources=(source,)))
    kb.index()
    for path in folder.iterdir():
        path.unlink()
    reports = kb.index().shards
    assert [one.published.removed for one in reports] == [0, 0]
    assert sum(one.read.withheld for one in reports) == 100
    assert kb.search("to be written")


def test_a_move_between_shards_is_recognised_at_the_latest_by_the_second_run(
    make_settings: Make, open_settings: Open, folder: Path
) -> None:
    write(folder, 40)
    source = SourceSettings(name="notes", uri=str(folder), shards=4)
    kb = open_settings(make_settings(sources=(source,)))
    kb.index()
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"moved-{path.name}"))
    kb.index()
    kb.index()
    assert kb.status().is_settled
    assert {hit.path[:6] for hit in kb.search("all about", limit=100)} == {"moved-"}


def test_the_grace_period_of_a_vector_starts_again_when_its_text_is_used_again(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, 6)
    first = (folder / "0.md").read_text()
    knowledge_base.index()

    def change_and_go_back() -> None:
        (folder / "0.md").write_text("# Topic 0\n\nChanged.\n")
        knowledge_base.index()
        (folder / "0.md").write_text(first)

    change_and_go_back()
    with knowledge_base.database.transaction() as connection:
        connection.execute("update kb.embedding_unused set since = now() - interval '29 days'")
    knowledge_base.index()
    change_and_go_back()
    with knowledge_base.database.transaction() as connection:
        connection.execute("update kb.embedding_unused set since = since - interval '2 days'")
    assert knowledge_base.index().collected == 0


def test_a_quarantined_document_that_is_gone_is_withheld_and_not_settled(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, 2)
    knowledge_base.index()
    (folder / "0.md").write_bytes(b"\x89PNG" + bytes(100))
    knowledge_base.index()
    for path in folder.iterdir():
        path.unlink()
    knowledge_base.index()
    account = knowledge_base.status().shards[0].account
    assert (account.pending, account.missing, account.quarantined) == (2, 2, 0)
    assert not account.is_settled


def test_verify_judges_again_what_was_refused(
    make_settings: Make,
    open_settings: Open,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = folder / "page.html"
    page.write_text("<html><body><p>Something to read for everybody.</p></body></html>")
    kb = open_settings(make_settings(limits=LimitSettings(parse_seconds=1e-6)))
    kb.index()
    assert kb.status().shards[0].account.quarantined == 1
    monkeypatch.setattr("kb_assets.documents.reading._TRUSTED", (".html",))
    kb.index()
    assert kb.status().shards[0].account.quarantined == 1
    kb.index(run=kb.run(verify=True))
    assert kb.status().shards[0].account.live == 1


def test_no_transaction_is_open_while_documents_are_parsed(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, 3)
    knowledge_base.index()
    recipe = recipe_of(knowledge_base.settings.splitting)
    with knowledge_base.database.session() as connection:
        listing = Listing(connection, Shard("notes"), source_id=1)
        with Listed((), Shard("notes")) as nothing:
            listing.fill(nothing)
        for _ in listing.to_read(1, recipe.fingerprint, everything=True):
            status = connection.info.transaction_status
            assert status == psycopg.pq.TransactionStatus.IDLE


def test_a_source_that_is_no_longer_configured_is_not_searched(
    make_settings: Make, open_settings: Open, folder: Path, tmp_path: Path
) -> None:
    write(folder, 3)
    open_settings(make_settings()).index()
    other = tmp_path / "other"
    other.mkdir()
    (other / "owls.md").write_text("# Owls\n\nAll about owls.\n")
    source = SourceSettings(name="other", uri=str(other))
    kb = open_settings(make_settings(sources=(source,)))
    kb.index()
    assert {hit.source for hit in kb.search("all about", limit=100)} == {"other"}


def test_a_run_whose_tokens_cost_more_than_expected_stops_on_the_way(
    openai_kb: Callable[..., KnowledgeBase],
    provider: OpenAIServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(folder, 30)
    kb = openai_kb(usd_per_million_tokens=1000.0, limits={"max_cost_per_run_usd": 1.0})
    monkeypatch.setattr("kb_assets.embeddings.stage.MAX_WINDOW_TEXTS", 4)
    monkeypatch.setattr("kb_assets.embeddings.store.VectorStore.spent_usd", spent_after(2))
    with pytest.raises(CostLimitError):
        kb.index()
    assert len(provider.answered_texts) == 4


def spent_after(requests: int) -> Callable[[object], float]:
    """Answer that nothing was spent, `requests` times, and then that it was too much."""
    answers = iter([0.0] * requests)
    return lambda _: next(answers, 2.0)
