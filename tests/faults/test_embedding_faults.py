"""A provider that fails, as the whole stage sees it: nothing paid for is lost, nothing untrue."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kb_assets.errors import CostLimitError, ProviderRefusedError, ProviderUnavailableError
from kb_assets.knowledge_base import KnowledgeBase
from tests.faults import corpus
from tests.faults.conftest import openai_vector
from tests.oracle import assert_accounted, assert_sound, live_vectors, repeated, rows_of
from tests.servers.openai_server import Fault, OpenAIServer

Open = Callable[..., KnowledgeBase]
POISON = corpus.paragraph("poison")
DOWN = Fault(status=503)


def texts(prefix: str, count: int) -> dict[str, str]:
    return {
        f"{number}.txt": f"{prefix} {number}: {corpus.paragraph(prefix, number)}\n"
        for number in range(count)
    }


def quarantined_texts(kb: KnowledgeBase) -> list[tuple[str, int]]:
    return rows_of(kb, "select reason, attempts from kb.quarantine where stage = 'embed'")


def test_a_provider_that_fails_in_the_middle_costs_only_the_rest(
    openai_kb: Open, provider: OpenAIServer, folder: Path
) -> None:
    kb = openai_kb(requests_in_flight=1, texts_per_request=2)
    corpus.write(folder, texts("old", 10))
    kb.index()
    corpus.write(folder, texts("new", 10))
    provider.script(Fault(), Fault())
    provider.always = DOWN
    with pytest.raises(ProviderUnavailableError):
        kb.index()

    provider.always = Fault()
    assert len(live_vectors(kb)) == 10 + 4
    account = kb.status().shards[0].account
    assert (account.live, account.pending) == (0, 10)
    assert not kb.status().is_settled
    assert {hit.text.split()[0] for hit in kb.search("anything", limit=100)} == {"old"}
    asked = len(provider.answered_texts)

    report = kb.index().shards[0]
    assert report.published.replaced == 10
    assert len(provider.answered_texts) - asked == 6
    assert_sound(kb, openai_vector)


def test_one_poisoned_text_costs_its_document_one_text_and_the_others_nothing(
    openai_kb: Open, provider: OpenAIServer, folder: Path
) -> None:
    kb = openai_kb()
    provider.refused_texts = {POISON}
    corpus.write(folder, texts("sound", 9))
    (folder / "poisoned.txt").write_text(corpus.paragraph("poisoned") + f"\n\n{POISON}\n")
    (folder / "nothing else.txt").write_text(f"{POISON}\n")
    report = kb.index().shards[0]
    assert report.embedded[0].quarantined == 1
    assert report.published.published == 11
    account = kb.status().shards[0].account
    assert (account.live, account.partial, account.quarantined) == (11, 2, 0)
    assert quarantined_texts(kb) == [("content", 1)]
    found = {hit.path for hit in kb.search("anything", limit=100)}
    assert found == {f"{number}.txt" for number in range(9)} | {"poisoned.txt"}
    assert_sound(kb, openai_vector)


@pytest.fixture
def other_provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def partial(openai_kb: Open, provider: OpenAIServer, folder: Path) -> KnowledgeBase:
    """Three documents are live, one of them without its only text."""
    kb = openai_kb()
    provider.refused_texts = {POISON}
    corpus.write(folder, texts("sound", 2) | {"poisoned.txt": POISON})
    kb.index()
    assert kb.status().shards[0].account.partial == 1
    return kb


def test_a_refused_text_is_not_asked_for_again_under_the_same_conditions(
    partial: KnowledgeBase, provider: OpenAIServer, folder: Path, openai_kb: Open
) -> None:
    asked = len(provider.requests)
    partial.index()
    (folder / "copy of poisoned.txt").write_text(POISON)
    partial.index()
    openai_kb(requests_in_flight=1, timeout_seconds=10).index()
    assert len(provider.requests) == asked
    assert partial.status().shards[0].account.partial == 2
    assert_sound(partial, openai_vector)


def test_a_refused_text_is_asked_for_again_where_another_server_answers(
    partial: KnowledgeBase, openai_kb: Open, other_provider: OpenAIServer
) -> None:
    kb = openai_kb(base_url=other_provider.base_url)
    report = kb.index().shards[0]
    assert report.embedded[0].embedded == 1
    assert other_provider.answered_texts == [POISON]
    assert kb.status().shards[0].account.partial == 0
    assert quarantined_texts(kb) == []
    assert_sound(kb, openai_vector)


def test_a_refused_text_that_another_server_refuses_too_stays_in_quarantine(
    partial: KnowledgeBase, openai_kb: Open, other_provider: OpenAIServer
) -> None:
    other_provider.refused_texts = {POISON}
    kb = openai_kb(base_url=other_provider.base_url)
    assert kb.index().shards[0].embedded[0].quarantined == 1
    asked = len(other_provider.requests)
    kb.index()
    assert len(other_provider.requests) == asked
    assert quarantined_texts(kb) == [("content", 2)]
    assert_sound(kb, openai_vector)


def test_a_refused_text_is_not_forgotten_when_the_other_server_is_down(
    partial: KnowledgeBase, openai_kb: Open, other_provider: OpenAIServer
) -> None:
    kb = openai_kb(base_url=other_provider.base_url)
    other_provider.always = DOWN
    with pytest.raises(ProviderUnavailableError):
        kb.index()
    assert_sound(kb, openai_vector)
    other_provider.always = Fault()
    kb.index()
    assert other_provider.answered_texts == [POISON]
    assert kb.status().shards[0].account.partial == 0
    assert_sound(kb, openai_vector)


def test_a_new_model_is_asked_for_the_text_the_old_one_refused(
    partial: KnowledgeBase, openai_kb: Open, other_provider: OpenAIServer
) -> None:
    kb = openai_kb(base_url=other_provider.base_url, model="tiny-2")
    kb.index()
    kb.promote_space("2")
    assert kb.status().shards[0].account.partial == 0
    assert "poisoned.txt" in {hit.path for hit in kb.search("anything", limit=100)}
    assert_sound(kb, openai_vector)


def test_a_nan_in_an_answer_is_asked_for_once_more_and_then_quarantined(
    openai_kb: Open, provider: OpenAIServer, folder: Path
) -> None:
    kb = openai_kb(requests_in_flight=1, texts_per_request=3)
    corpus.write(folder, texts("sound", 3))
    provider.script(Fault(rows={1: "nan"}), Fault())
    assert kb.index().shards[0].embedded[0].quarantined == 0
    assert len(live_vectors(kb)) == 3
    assert_sound(kb, openai_vector)

    corpus.write(folder, texts("other", 3))
    provider.script(Fault(rows={1: "nan"}), Fault(rows={0: "nan"}))
    assert kb.index().shards[0].embedded[0].quarantined == 1
    assert quarantined_texts(kb) == [("not_finite", 1)]
    account = kb.status().shards[0].account
    assert (account.live, account.partial) == (3, 1)
    assert_sound(kb, openai_vector)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(dimensions=32),
        Fault(status=401, code="invalid_api_key"),
        Fault(status=429, code="insufficient_quota"),
        Fault(status=400, message="no text is good enough"),
    ],
    ids=["another dimension", "wrong key", "quota gone", "refuses everything"],
)
def test_a_provider_that_refuses_everything_puts_no_text_in_quarantine(
    openai_kb: Open, provider: OpenAIServer, folder: Path, fault: Fault
) -> None:
    kb = openai_kb()
    corpus.write(folder, texts("old", 3))
    kb.index()
    corpus.write(folder, texts("new", 3))
    provider.always = fault
    with pytest.raises(ProviderRefusedError):
        kb.index()
    assert rows_of(kb, "select * from kb.quarantine") == []
    assert rows_of(kb, "select * from kb.embedding_claim") == []
    assert len(live_vectors(kb)) == 3
    assert kb.status().shards[0].account.pending == 3

    provider.always = Fault()
    assert {hit.text.split()[0] for hit in kb.search("anything", limit=100)} == {"old"}
    kb.index()
    assert_sound(kb, openai_vector)


def test_a_wrong_key_is_said_and_nothing_is_lost(
    openai_kb: Open,
    provider: OpenAIServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider.expected_key = "right"
    monkeypatch.setenv("KB_TEST_KEY", "wrong-key-123")
    corpus.write(folder, texts("old", 3))
    with pytest.raises(ProviderRefusedError) as raised:
        openai_kb(api_key_variable="KB_TEST_KEY").index()
    assert "wrong-key-123" not in str(raised.value)
    monkeypatch.setenv("KB_TEST_KEY", "right")
    kb = openai_kb(api_key_variable="KB_TEST_KEY")
    kb.index()
    assert_sound(kb, openai_vector)


def test_a_run_that_would_cost_too_much_sends_nothing_until_that_is_confirmed(
    openai_kb: Open, provider: OpenAIServer, folder: Path
) -> None:
    limits = {"max_cost_per_run_usd": 0.01}
    kb = openai_kb(limits=limits, usd_per_million_tokens=100.0)
    corpus.write(folder, texts("dear", 6))
    with pytest.raises(CostLimitError) as raised:
        kb.index()
    assert raised.value.exit_code == 8
    assert provider.requests == []
    assert kb.status().shards[0].account.pending == 6
    report = kb.index(run=kb.run(confirm_cost=True)).shards[0]
    assert report.embedded[0].embedded == 6
    assert report.embedded[0].cost_usd > 0.01
    assert_sound(kb, openai_vector)
    assert repeated(provider.answered_texts) == 0


def test_the_cost_limit_counts_all_shards_of_a_run(
    openai_kb: Open, provider: OpenAIServer, folder: Path
) -> None:
    corpus.write(folder, texts("dear", 12))
    sources = [{"name": "notes", "uri": str(folder), "shards": 4}]
    tokens = 12 * 25
    limits = {"max_cost_per_run_usd": tokens * 1e-4}
    kb = openai_kb(limits=limits, sources=sources, usd_per_million_tokens=100.0)
    with pytest.raises(CostLimitError):
        kb.index()
    assert 0 < len(provider.answered_texts) < 12
    kb.index(run=kb.run(confirm_cost=True))
    assert_sound(kb, openai_vector)
    assert repeated(provider.answered_texts) == 0


def test_an_answer_that_is_lost_on_the_way_fails_the_run_and_loses_no_other(
    openai_kb: Open, provider: OpenAIServer, folder: Path
) -> None:
    kb = openai_kb(requests_in_flight=2, texts_per_request=2)
    corpus.write(folder, texts("sound", 8))
    provider.script(Fault(), Fault(reset="after"), Fault())
    with pytest.raises(ProviderUnavailableError):
        kb.index()
    stored = len(live_vectors(kb))
    assert stored >= 2
    asked = len(provider.answered_texts)
    kb.index()
    assert len(provider.answered_texts) - asked == 8 - stored
    assert repeated(provider.answered_texts) <= 2
    assert_accounted(kb)
    assert_sound(kb, openai_vector)
