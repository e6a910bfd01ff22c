"""The OpenAI provider and the request runner, against a server that fails on purpose."""

import logging
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.open import embedder_for, model_of, open_embedder, price_of
from kb_assets.embeddings.request import (
    PROBE,
    EmbeddedBatch,
    RefusedText,
    Text,
    embed_all,
    embed_query,
)
from kb_assets.errors import (
    CostLimitError,
    KbError,
    ProviderRefusedError,
    ProviderUnavailableError,
    SettingsError,
    TextRefusedError,
)
from kb_assets.settings import EmbeddingSettings
from tests.servers.openai_server import Fault, OpenAIServer, expected_vector, read_log

DIMENSIONS = 48
KEY = "sk-canary-8d1f0c2e"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        running.expected_key = KEY
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def settings(server: OpenAIServer, **changes: object) -> EmbeddingSettings:
    return EmbeddingSettings.model_validate(
        {
            "provider": "openai",
            "model": "text-embedding-3-small",
            "dimensions": DIMENSIONS,
            "base_url": server.base_url,
            "retries": 0,
            "timeout_seconds": 20,
            **changes,
        }
    )


def embedder(server: OpenAIServer, **changes: object) -> Embedder:
    return open_embedder(settings(server, **changes))


class Run:
    """What a caller of `embed_all` ends up with."""

    def __init__(
        self,
        asked: Embedder,
        texts: list[str],
        *,
        in_flight: int = 1,
        max_texts: int = 100,
    ) -> None:
        self.texts = texts
        self.vectors: dict[str, numpy.ndarray] = {}
        self.refused: dict[str, TextRefusedError] = {}
        self.tokens = 0
        self.error: KbError | None = None
        wanted = [Text(b"", text, len(text.split())) for text in texts]
        try:
            for outcomes in embed_all(
                asked, [wanted], in_flight=in_flight, max_texts=max_texts, max_tokens=10_000
            ):
                for outcome in outcomes:
                    self._keep(outcome)
        except KbError as error:
            self.error = error

    def _keep(self, outcome: EmbeddedBatch | RefusedText) -> None:
        if isinstance(outcome, RefusedText):
            assert outcome.text.text not in self.refused
            self.refused[outcome.text.text] = outcome.error
            return
        assert outcome.vectors.shape[0] == len(outcome.texts)
        self.tokens += outcome.tokens
        for text, vector in zip(outcome.texts, outcome.vectors, strict=True):
            assert text.text not in self.vectors
            self.vectors[text.text] = vector

    def assert_sound(self, prefix: str = "") -> None:
        """Every vector is that of its text, and no text has both a vector and a refusal."""
        for text, vector in self.vectors.items():
            numpy.testing.assert_array_equal(vector, expected_vector(prefix + text, len(vector)))
        assert not self.vectors.keys() & self.refused.keys()

    def assert_all_embedded(self, prefix: str = "") -> None:
        assert self.error is None
        assert not self.refused
        assert self.vectors.keys() == set(self.texts)
        self.assert_sound(prefix)


def texts(count: int) -> list[str]:
    return [f"text number {number}" for number in range(count)]


# -- what is asked for ---------------------------------------------------------------


def test_vectors_belong_to_their_texts_and_tokens_are_counted(server: OpenAIServer):
    run = Run(embedder(server), texts(50), in_flight=4, max_texts=7)
    run.assert_all_embedded()
    assert run.tokens == 150
    assert len(server.requests) == 8
    assert sorted(server.answered_texts) == sorted(texts(50))


def test_base64_is_asked_for_and_shorter_vectors_only_of_models_that_shorten(server: OpenAIServer):
    embedder(server).embed(["a"])
    embedder(server, dimensions=0).embed(["a"])
    embedder(server, model="my-own", dimensions=64).embed(["a"])
    bodies = [request.body for request in server.requests]
    assert [body["encoding_format"] for body in bodies] == ["base64"] * 3
    assert [body.get("dimensions") for body in bodies] == [DIMENSIONS, None, None]


def test_a_server_that_ignores_base64_is_understood(server: OpenAIServer):
    server.float_only = True
    Run(embedder(server), texts(3)).assert_all_embedded()


def test_a_server_that_refuses_base64_is_asked_for_floats_from_then_on(server: OpenAIServer):
    server.refuse_base64 = True
    Run(embedder(server), texts(3), max_texts=1).assert_all_embedded()
    formats = [request.body["encoding_format"] for request in server.requests]
    assert formats == ["base64", "float", "float", "float"]


def test_prefixes_go_before_documents_and_queries(server: OpenAIServer):
    asked = embedder(server, document_prefix="passage: ", query_prefix="query: ")
    Run(asked, texts(2)).assert_all_embedded("passage: ")
    vector = embed_query(asked, "where?")
    numpy.testing.assert_array_equal(vector, expected_vector("query: where?", DIMENSIONS))


def test_requests_in_flight_are_as_many_as_allowed_and_no_more(server: OpenAIServer):
    server.always = Fault(delay_seconds=0.1)
    Run(embedder(server), texts(12), in_flight=3, max_texts=1).assert_all_embedded()
    assert server.most_at_once == 3


def test_nothing_is_sent_beyond_what_the_caller_has_taken(server: OpenAIServer):
    wanted = [Text(b"", text, 3) for text in texts(12)]
    answers = embed_all(embedder(server), [wanted], in_flight=3, max_texts=1, max_tokens=100)
    taken = len(next(answers)) + len(next(answers))
    time.sleep(0.3)
    assert len(server.requests) <= taken + 2
    answers.close()


def test_the_next_texts_are_asked_for_while_the_last_answers_are_out(server: OpenAIServer):
    """A slow answer at the end of one window does not hold the next one up."""
    server.script(Fault(delay_seconds=2.0))
    windows = [[Text(b"", text, 3)] for text in texts(6)]
    answers = embed_all(embedder(server), windows, in_flight=2, max_texts=1, max_tokens=100)
    arrived = [outcome for outcomes in answers for outcome in outcomes]
    assert server.most_at_once == 2
    assert isinstance(arrived[-1], EmbeddedBatch)
    assert len(arrived) == 6
    (slow,) = server.requests[0].texts
    assert arrived[-1].texts[0].text == slow


def test_what_is_out_is_kept_when_the_next_texts_cannot_be_had(server: OpenAIServer):
    server.always = Fault(delay_seconds=0.1)
    wanted = [Text(b"", text, 3) for text in texts(3)]

    def windows() -> Iterator[list[Text]]:
        yield wanted
        raise CostLimitError("It would cost too much.")

    answers = embed_all(embedder(server), windows(), in_flight=4, max_texts=1, max_tokens=100)
    arrived = []
    with pytest.raises(CostLimitError):
        for outcomes in answers:
            arrived += outcomes
    assert len(arrived) == 3


# -- what goes away by itself --------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503),
        Fault(status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "1"}),
        Fault(reset="before"),
        Fault(reset="after"),
        Fault(truncate=True),
        Fault(error_body=True, message="overloaded"),
    ],
    ids=str,
)
def test_what_passes_is_tried_again_by_the_client(server: OpenAIServer, fault: Fault):
    server.script(fault)
    Run(embedder(server, retries=1), texts(3)).assert_all_embedded()
    assert len(server.requests) == 2


def test_retry_after_is_obeyed(server: OpenAIServer):
    server.script(Fault(status=429, headers={"retry-after": "1"}))
    Run(embedder(server, retries=1), texts(1)).assert_all_embedded()
    first, second = server.requests
    assert second.time - first.time >= 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(status=500, message="boom"), "boom"),
        (Fault(status=429, code="rate_limit_exceeded", message="slow down"), "slow down"),
        (Fault(reset="before"), "gave no answer"),
        (Fault(reset="after"), "gave no answer"),
        (Fault(truncate=True), "not JSON"),
        (Fault(error_body=True, message="overloaded"), "overloaded"),
        (Fault(delay_seconds=1.0), "timed out"),
    ],
    ids=str,
)
def test_what_stays_is_unavailable_and_says_why(server: OpenAIServer, fault: Fault, said: str):
    server.always = fault
    run = Run(embedder(server, timeout_seconds=0.4), texts(2))
    assert isinstance(run.error, ProviderUnavailableError)
    assert said in str(run.error)
    assert run.error.fix
    assert not run.refused


def test_a_server_that_is_not_there_is_unavailable(server: OpenAIServer):
    asked = embedder(server)
    server.__exit__()
    assert isinstance(Run(asked, texts(1)).error, ProviderUnavailableError)


# -- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(status=401, message="bad key"), "api_key_variable"),
        (Fault(status=403, message="not for you"), "not for you"),
        (Fault(status=404, message="no such model"), "embedding.model"),
        (Fault(status=400, param="dimensions", message="too many"), "too many"),
        (Fault(status=400, code="model_not_found", message="no such model"), "no such model"),
        (Fault(status=400, message="The model `x` does not exist"), "does not exist"),
        (Fault(status=402, message="pay first"), "quota is used up"),
        (Fault(status=429, code="insufficient_quota", message="pay"), "quota is used up"),
    ],
    ids=str,
)
def test_what_no_retry_mends_is_refused_at_once(server: OpenAIServer, fault: Fault, said: str):
    server.always = fault
    run = Run(embedder(server), texts(20), max_texts=2)
    assert isinstance(run.error, ProviderRefusedError)
    assert said in str(run.error)
    assert run.error.fix
    assert not run.refused
    assert len(server.requests) == 1


def test_a_wrong_key_is_refused(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    assert isinstance(Run(embedder(server), texts(1)).error, ProviderRefusedError)


def test_a_missing_key_is_noticed_before_any_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ProviderRefusedError, match="no OPENAI_API_KEY") as caught:
        open_embedder(EmbeddingSettings(provider="openai"))
    assert "export OPENAI_API_KEY" in caught.value.fix


def test_a_server_of_ones_own_needs_no_key(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch):
    server.expected_key = None
    monkeypatch.delenv("OPENAI_API_KEY")
    Run(embedder(server), texts(1)).assert_all_embedded()


def test_the_key_is_read_from_the_variable_that_is_named(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    monkeypatch.setenv("MY_KEY", KEY)
    Run(embedder(server, api_key_variable="MY_KEY"), texts(1)).assert_all_embedded()


def test_vectors_of_wrong_dimensions_stop_the_run_and_quarantine_nothing(server: OpenAIServer):
    server.always = Fault(dimensions=32)
    run = Run(embedder(server), texts(8), max_texts=2)
    assert isinstance(run.error, ProviderRefusedError)
    assert "32 dimensions, not 48" in str(run.error)
    assert not run.refused
    assert len(server.requests) == 1


def test_vectors_of_another_model_stop_the_run(server: OpenAIServer):
    server.always = Fault(model="text-embedding-ada-002")
    run = Run(embedder(server), texts(2))
    assert isinstance(run.error, ProviderRefusedError)
    assert "'text-embedding-ada-002' answered" in str(run.error)
    assert not run.vectors


def test_behind_an_alias_the_model_must_stay_the_same(server: OpenAIServer):
    asked = embedder(server, model="my-deployment")
    server.script(Fault(model="bge-m3"), Fault(model="bge-m3"), Fault(model="e5-large"))
    server.dimensions = DIMENSIONS
    run = Run(asked, texts(3), max_texts=1)
    assert len(run.vectors) == 2
    assert isinstance(run.error, ProviderRefusedError)


def test_what_was_answered_before_the_quota_was_gone_is_kept(server: OpenAIServer):
    server.quota_tokens = 12
    run = Run(embedder(server), texts(10), max_texts=2)
    assert isinstance(run.error, ProviderRefusedError)
    assert len(run.vectors) == 4
    run.assert_sound()
    assert sorted(run.vectors) == sorted(server.answered_texts)


def test_after_an_error_what_is_in_flight_is_kept_and_nothing_new_is_sent(server: OpenAIServer):
    server.always = Fault(delay_seconds=0.3)
    server.script(Fault(status=403))
    run = Run(embedder(server), texts(30), in_flight=4, max_texts=1)
    assert isinstance(run.error, ProviderRefusedError)
    assert len(server.requests) == 4
    assert sorted(run.vectors) == sorted(server.answered_texts)
    assert len(run.vectors) == 3
    run.assert_sound()


# -- one bad text, or a bad answer ---------------------------------------------------


def test_one_refused_text_costs_no_other_its_vector(server: OpenAIServer):
    bad = "text number 17"
    server.refused_texts = {bad}
    run = Run(embedder(server), texts(64), in_flight=3, max_texts=32)
    assert run.error is None
    assert run.refused.keys() == {bad}
    assert run.refused[bad].reason == "content"
    assert run.vectors.keys() == set(texts(64)) - {bad}
    run.assert_sound()
    assert sorted(server.answered_texts) == sorted(set(texts(64)) - {bad})
    assert len(server.requests) <= 2 + 2 * 5


def test_a_text_that_is_too_long_is_found(server: OpenAIServer):
    server.max_text_tokens = 5
    run = Run(embedder(server), [*texts(6), "one two three four five six"])
    assert {error.reason for error in run.refused.values()} == {"too_long"}
    assert len(run.vectors) == 6


def test_a_request_that_is_too_large_as_a_whole_is_halved(server: OpenAIServer):
    server.script(Fault(status=400, code="max_tokens_per_request", message="max 300000 tokens"))
    Run(embedder(server), texts(6)).assert_all_embedded()


def test_a_single_bad_text_is_refused_after_a_harmless_one_was_answered(server: OpenAIServer):
    server.refused_texts = {"bad"}
    run = Run(embedder(server), ["bad"])
    assert run.error is None
    assert run.refused.keys() == {"bad"}
    assert server.answered_texts == [PROBE]


def test_a_provider_that_refuses_everything_quarantines_nothing(server: OpenAIServer):
    server.always = Fault(status=400, message="strange parameter")
    run = Run(embedder(server), texts(64), max_texts=32)
    assert isinstance(run.error, ProviderRefusedError)
    assert "refuses every text" in str(run.error)
    assert "strange parameter" in str(run.error)
    assert not run.refused
    assert len(server.requests) <= 8


def test_reordered_results_are_matched_by_index(server: OpenAIServer):
    server.always = Fault(reorder=True)
    Run(embedder(server), texts(9)).assert_all_embedded()


@pytest.mark.parametrize("kind", ["nan", "inf", "-inf", "zero", "short"])
def test_a_bad_row_alone_is_asked_for_again(server: OpenAIServer, kind: str):
    server.script(Fault(rows={1: kind}))
    run = Run(embedder(server), texts(5))
    run.assert_all_embedded()
    assert [len(request.texts) for request in server.requests] == [5, 1]
    assert run.tokens == 15 + 3


@pytest.mark.parametrize(
    ("kind", "reason"), [("nan", "not_finite"), ("inf", "not_finite"), ("zero", "zero_vector")]
)
def test_a_row_that_stays_bad_is_refused(server: OpenAIServer, kind: str, reason: str):
    server.script(Fault(rows={1: kind}), Fault(rows={0: kind}))
    run = Run(embedder(server), texts(5))
    assert run.error is None
    assert [error.reason for error in run.refused.values()] == [reason]
    assert len(run.vectors) == 4
    assert len(server.requests) == 2
    assert run.tokens == 15 + 3
    run.assert_sound()


def test_numbers_no_halfvec_can_hold_are_refused(server: OpenAIServer):
    server.script(Fault(rows={0: "1e6"}), Fault(rows={0: "1e6"}))
    run = Run(embedder(server), texts(2))
    assert [error.reason for error in run.refused.values()] == ["out_of_range"]


def test_missing_results_alone_are_asked_for_again(server: OpenAIServer):
    server.script(Fault(drop=2))
    Run(embedder(server), texts(5)).assert_all_embedded()
    assert [len(request.texts) for request in server.requests] == [5, 2]


@pytest.mark.parametrize("fault", [Fault(extra=1), Fault(repeat_first=True)], ids=str)
def test_an_answer_with_too_many_results_is_not_believed(server: OpenAIServer, fault: Fault):
    server.script(fault)
    Run(embedder(server), texts(6)).assert_all_embedded()
    assert [len(request.texts) for request in server.requests] == [6, 3, 3]


def test_a_provider_that_always_gives_zeros_quarantines_nothing(server: OpenAIServer):
    server.always = Fault(rows=dict.fromkeys(range(100), "zero"))
    run = Run(embedder(server), texts(5))
    assert isinstance(run.error, ProviderRefusedError)
    assert not run.refused


def test_a_query_without_a_sound_vector_is_an_error(server: OpenAIServer):
    server.always = Fault(rows={0: "nan"})
    with pytest.raises(TextRefusedError) as caught:
        embed_query(embedder(server), "where?")
    assert caught.value.reason == "not_finite"


def test_half_a_surrogate_pair_is_a_bad_text(server: OpenAIServer):
    run = Run(embedder(server), [*texts(3), "broken \ud800"])
    assert run.refused["broken \ud800"].reason == "not_unicode"
    assert len(run.vectors) == 3


# -- models, spaces, prices ----------------------------------------------------------


def test_a_model_is_described_without_key_or_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    plain = model_of(EmbeddingSettings(provider="openai"))
    assert (plain.name, plain.dimensions) == ("text-embedding-3-small", 1536)
    assert price_of(EmbeddingSettings(provider="openai")) == 0.02
    large = EmbeddingSettings(provider="openai", model="text-embedding-3-large", dimensions=256)
    assert (model_of(large).dimensions, price_of(large)) == (256, 0.13)


def test_prices(server: OpenAIServer):
    assert price_of(settings(server, model="bge-m3", dimensions=0)) == 0
    assert price_of(settings(server, usd_per_million_tokens=3.5)) == 3.5
    assert price_of(EmbeddingSettings(provider="openai", model="new", dimensions=9)) == 0.13


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "unheard-of", "dimensions": 0}, "embedding.dimensions"),
        ({"model": "text-embedding-3-small", "dimensions": 3000}, "no vectors of 3000"),
        ({"model": "text-embedding-ada-002", "dimensions": 256}, "no vectors of 256"),
        ({"model": ""}, "embedding.model is empty"),
        ({"base_url": "localhost:11434"}, "no address"),
        ({"base_url": f"http://user:{KEY}@host/v1"}, "secret"),
        ({"base_url": f"http://host/v1?key={KEY}"}, "secret"),
    ],
)
def test_settings_that_make_no_model(server: OpenAIServer, changes: dict[str, object], said: str):
    with pytest.raises(SettingsError, match=said) as caught:
        model_of(settings(server, **changes))
    assert caught.value.fix
    assert KEY not in str(caught.value)


def test_a_space_goes_on_with_its_own_server_and_key_while_another_is_filled(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OLD_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    old = model_of(settings(server, model="old", api_key_variable="OLD_KEY"))
    server.dimensions = DIMENSIONS
    again = embedder_for(old, EmbeddingSettings(provider="openai", query_prefix="new: "))
    assert again.model == old
    embed_query(again, "where?")
    assert server.requests[0].texts == ("where?",)


def test_a_space_whose_server_has_moved_follows_the_settings(server: OpenAIServer):
    stored = model_of(settings(server, base_url="http://gone.invalid/v1"))
    embed_query(embedder_for(stored, settings(server)), "where?")
    assert len(server.requests) == 1


def test_another_servers_address_in_the_environment_is_not_followed(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    Run(embedder(server), texts(1)).assert_all_embedded()


# -- secrets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=400, message=f"I know your key: {KEY}"),
        Fault(status=401, message=f"Incorrect API key provided: {KEY}"),
        Fault(status=500, message=f"I know your key: {KEY}"),
        Fault(status=429, code="insufficient_quota", message=f"Key {KEY} is out of credit"),
        Fault(error_body=True, message=f"Key {KEY}"),
        Fault(reset="before"),
    ],
    ids=["400", "401", "500", "quota", "error body", "reset"],
)
def test_the_key_is_in_no_message_log_or_repr(
    server: OpenAIServer, caplog: pytest.LogCaptureFixture, fault: Fault
):
    caplog.set_level(logging.DEBUG)
    server.always = fault
    asked = embedder(server)
    run = Run(asked, texts(2))
    assert run.error is not None
    shown = "".join(traceback.format_exception(run.error)) + repr(run.error) + repr(asked)
    assert KEY not in shown + repr(asked.model)
    assert KEY not in caplog.text
    assert len(server.requests) >= 1


# -- the server as a process of its own ----------------------------------------------


def test_the_server_process_logs_what_it_answered(tmp_path: Path):
    port_file, log = tmp_path / "port", tmp_path / "log"
    command = [sys.executable, "-m", "tests.servers.openai_server", "--port-file", str(port_file)]
    process = subprocess.Popen([*command, "--log-file", str(log), "--refuse-text", "bad"])
    try:
        while not port_file.exists():
            assert process.poll() is None
            time.sleep(0.01)
        url = f"http://127.0.0.1:{port_file.read_text()}/v1"
        asked = open_embedder(
            EmbeddingSettings(provider="openai", model="m", dimensions=64, base_url=url, retries=0)
        )
        Run(asked, ["good", "bad"])
    finally:
        process.kill()
        process.wait()
    requests = read_log(log)
    assert [request.texts for request in requests if request.answered] == [("good",)]
    assert len(requests) == 3
