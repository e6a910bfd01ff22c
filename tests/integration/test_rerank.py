"""The reranker, against servers of both wire formats that fail on purpose."""

import json
import logging
import os
import traceback
from collections.abc import Iterator

import pytest

from kb_assets.errors import (
    KbError,
    ProviderRefusedError,
    ProviderUnavailableError,
    SettingsError,
)
from kb_assets.retrieval.rerank import Reranker
from kb_assets.settings import RerankSettings
from tests.servers.rerank_server import RerankFault, RerankServer

KEY = "rerank-canary-51c0ffee"
TEXTS = ["score=0.2", "score=0.9", "score=0.5"]
SCORES = (0.2, 0.9, 0.5)


@pytest.fixture
def server() -> Iterator[RerankServer]:
    with RerankServer() as running:
        running.expected_key = KEY
        yield running


@pytest.fixture
def tei() -> Iterator[RerankServer]:
    with RerankServer(tei=True) as running:
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_RERANK_API_KEY", KEY)


def reranker(server: RerankServer, **changes: object) -> Reranker:
    url = f"{server.url}/v2/rerank"
    return Reranker(RerankSettings.model_validate({"url": url, "timeout_seconds": 5, **changes}))


def test_scores_come_in_the_order_of_the_texts(server: RerankServer) -> None:
    assert reranker(server, model="rerank-v3.5").scores("what", TEXTS) == SCORES
    sent = server.requests[0]
    assert sent.body == {
        "model": "rerank-v3.5",
        "query": "what",
        "documents": TEXTS,
        "top_n": 3,
    }
    assert sent.headers["authorization"] == f"Bearer {KEY}"


def test_a_server_without_models_and_keys_is_sent_none(
    server: RerankServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.expected_key = None
    monkeypatch.delenv("KB_RERANK_API_KEY")
    assert reranker(server).scores("what", TEXTS) == SCORES
    assert "model" not in server.requests[0].body
    assert "authorization" not in server.requests[0].headers


def test_nothing_to_rerank_asks_nobody(server: RerankServer) -> None:
    assert reranker(server).scores("what", []) == ()
    assert not server.requests


def test_tei_is_recognised_once_and_sent_batches_it_takes(tei: RerankServer) -> None:
    texts = [f"score=0.{number:03}" for number in range(70)]
    asked = reranker(tei)
    expected = tuple(number / 1000 for number in range(70))
    assert asked.scores("what", texts) == pytest.approx(expected)
    assert [len(request.body.get("texts", [])) for request in tei.requests] == [0, 32, 32, 6]
    assert asked.scores("what", TEXTS) == SCORES
    assert len(tei.requests) == 5, "the format is remembered"


@pytest.mark.parametrize(
    "results",
    [
        {0: None},
        {0: {"index": 1, "relevance_score": 0.1}},
        {0: {"index": 3, "relevance_score": 0.1}},
        {0: {"index": -1, "relevance_score": 0.1}},
        {0: {"index": "0", "relevance_score": 0.1}},
        {0: {"index": False, "relevance_score": 0.1}},
        {0: {"relevance_score": 0.1}},
        {0: {"index": 0}},
        {0: {"index": 0, "relevance_score": "0.1"}},
        {0: {"index": 0, "relevance_score": None}},
        {0: {"index": 0, "relevance_score": float("nan")}},
        {0: {"index": 0, "relevance_score": float("-inf")}},
        {0: {"index": 0, "relevance_score": 10**400}},
        {0: "not an object"},
    ],
)
def test_results_that_are_not_one_finite_score_per_text_are_refused(
    server: RerankServer, results: dict[int, object]
) -> None:
    server.script(RerankFault(results=results))
    with pytest.raises(ProviderUnavailableError, match="cannot be used"):
        reranker(server).scores("what", TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body", ["[]", "{}", '{"results": 3}', '"text"', "7", "[" * 100_000, "<p>"]
)
def test_what_is_no_answer_is_refused(server: RerankServer, body: str) -> None:
    server.script(RerankFault(body=body))
    with pytest.raises(ProviderUnavailableError, match="cannot be used"):
        reranker(server).scores("what", TEXTS)


def test_a_text_scored_twice_beside_all_others_is_refused(server: RerankServer) -> None:
    scored = [{"index": index, "relevance_score": 0.1} for index in (0, 1, 2, 0)]
    server.script(RerankFault(body=json.dumps({"results": scored})))
    with pytest.raises(ProviderUnavailableError, match="twice"):
        reranker(server).scores("what", TEXTS)


def test_an_answer_that_is_cut_off_is_refused(server: RerankServer) -> None:
    server.script(RerankFault(truncate=True))
    with pytest.raises(ProviderUnavailableError, match="not JSON"):
        reranker(server).scores("what", TEXTS)


@pytest.mark.parametrize(
    "fault", [RerankFault(status=500), RerankFault(status=429), RerankFault(reset=True)]
)
def test_what_may_pass_is_asked_once_more(server: RerankServer, fault: RerankFault) -> None:
    server.script(fault)
    assert reranker(server).scores("what", TEXTS) == SCORES
    server.script(fault, fault)
    with pytest.raises(ProviderUnavailableError):
        reranker(server).scores("what", TEXTS)
    assert len(server.requests) == 4


def test_a_server_that_wants_more_patience_than_there_is_is_not_waited_for(
    server: RerankServer,
) -> None:
    server.script(RerankFault(status=429, headers={"retry-after": "600"}))
    with pytest.raises(ProviderUnavailableError, match="429"):
        reranker(server).scores("what", TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [RerankFault(delay_seconds=1.0), RerankFault(drip_seconds=0.05)])
def test_the_deadline_bounds_the_whole_answer(server: RerankServer, fault: RerankFault) -> None:
    server.script(fault)
    with pytest.raises(ProviderUnavailableError, match="Timeout"):
        reranker(server, timeout_seconds=0.3).scores("what", TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 302])
def test_a_refusal_is_final(server: RerankServer, status: int) -> None:
    server.script(RerankFault(status=status, said="too many documents"))
    with pytest.raises(ProviderRefusedError, match="too many documents"):
        reranker(server).scores("what", TEXTS)
    assert len(server.requests) == 1


def test_nobody_is_there() -> None:
    nowhere = Reranker(RerankSettings(url="http://127.0.0.1:9/rerank", timeout_seconds=2))
    with pytest.raises(ProviderUnavailableError, match="no answer"):
        nowhere.scores("what", TEXTS)


@pytest.mark.parametrize("url", ["localhost/rerank", "ftp://host/", "http://me:pw@host/rerank"])
def test_an_address_that_cannot_be_used(url: str) -> None:
    with pytest.raises(SettingsError, match=r"rerank\.url"):
        Reranker(RerankSettings(url=url))


def test_the_key_is_told_to_nobody_else(
    server: RerankServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    server.script(
        RerankFault(status=400, said=f"you sent {KEY}"), RerankFault(status=503, said=KEY)
    )
    server.script(RerankFault(status=503, said=KEY), RerankFault(body=f'{{"error": "{KEY}"}}'))
    asked = reranker(server)
    server_wants_another = [None, None, None, "another"]
    for expected in server_wants_another:
        server.expected_key = expected or KEY
        with pytest.raises(KbError) as raised:
            asked.scores("what", TEXTS)
        said += traceback.format_exception(raised.value)
        said += [str(raised.value), repr(raised.value.__dict__), repr(asked)]
    assert len(server.requests) == 5
    assert KEY not in "\n".join([*said, caplog.text])
    assert os.environ["KB_RERANK_API_KEY"] == KEY
