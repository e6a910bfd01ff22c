"""Asking another server how well passages answer a question.

Two wire formats: the one that Cohere v2, Jina, vLLM and others share (`documents`,
`relevance_score`), and that of Hugging Face's text-embeddings-inference (`texts`, `score`).
No request fits both: Cohere answers 422 to any field it does not know, so `texts` cannot go
with `documents`, nor can `return_documents`, which v2 has no more. TEI answers 422 when `texts` is
missing, and that is how it is recognised; its address says nothing, for vLLM's is `/rerank`, too.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kb_assets.errors import ProviderRefusedError, ProviderUnavailableError
from kb_assets.settings import RerankSettings
from kb_assets.settings.server import read_key, require_address

if TYPE_CHECKING:
    import httpx

_TEI_BATCH = 32
"""How many texts TEI takes at once unless it was started with another number."""

_PAUSE_SECONDS = 0.25
_LONGEST_MESSAGE = 300


class RerankerUnavailableError(ProviderUnavailableError):
    """The reranker gave no usable answer.

    Attributes:
        pause_seconds: When to ask again; None if it would not help.
    """

    def __init__(self, what: str, *, why: str, fix: str, pause_seconds: float | None) -> None:
        self.pause_seconds = pause_seconds
        super().__init__(what, why=why, fix=fix)


class Reranker:
    """A server that reranks. Safe to call from several threads.

    Args:
        settings: Where it is, and how patiently it is asked.

    Raises:
        SettingsError: `rerank.url` is no address, or holds a secret.
        ProviderRefusedError: The key's variable holds something that is no key.
    """

    def __init__(self, settings: RerankSettings) -> None:
        require_address("rerank.url", settings.url, "https://api.cohere.com/v2/rerank")
        self._settings = settings
        self._key = read_key(settings.api_key_variable)
        self._speaks_tei = False

    def scores(self, query: str, texts: Sequence[str]) -> tuple[float, ...]:
        """Return how well each text answers a query, in the order of the texts.

        Scores order the texts for one query; what else they mean depends on the model.

        Args:
            query: The question.
            texts: The passages.

        Raises:
            ProviderUnavailableError: No answer came within `rerank.timeout_seconds`, the server
                went on failing, or its answer is not what the protocol says.
            ProviderRefusedError: The server will never answer this request.
        """
        deadline = time.monotonic() + self._settings.timeout_seconds
        if not self._speaks_tei:
            try:
                return self._shared_format(query, texts, deadline)
            except ProviderRefusedError as error:
                if "texts" not in error.why:
                    raise
        scores = self._tei_format(query, texts, deadline)
        self._speaks_tei = True
        return scores

    def _shared_format(
        self, query: str, texts: Sequence[str], deadline: float
    ) -> tuple[float, ...]:
        model = {"model": self._settings.model} if self._settings.model else {}
        body = {**model, "query": query, "documents": list(texts), "top_n": len(texts)}
        return _scores_in(self._answer(body, deadline), len(texts)) if texts else ()

    def _tei_format(self, query: str, texts: Sequence[str], deadline: float) -> tuple[float, ...]:
        scores: list[float] = []
        for start in range(0, len(texts), _TEI_BATCH):
            batch = list(texts[start : start + _TEI_BATCH])
            body = {"query": query, "texts": batch, "truncate": True}
            scores += _scores_in(self._answer(body, deadline), len(batch))
        return tuple(scores)

    def _answer(self, body: Mapping[str, Any], deadline: float) -> bytes:
        """Return the answer's body; ask once more after what may pass, if there is time."""
        try:
            return self._post(body, deadline)
        except RerankerUnavailableError as error:
            pause = error.pause_seconds
            if pause is None or time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
        return self._post(body, deadline)

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(headers={"Authorization": f"Bearer {self._key}"} if self._key else {})

    def _post(self, body: Mapping[str, Any], deadline: float) -> bytes:
        """Return the answer's body; httpx bounds each silence, and this all of them."""
        import httpx

        left = max(0.001, deadline - time.monotonic())
        content = b""
        try:
            with self._client.stream(
                "POST", self._settings.url, json=body, timeout=left
            ) as response:
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout("The answer went on and on.")
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise self._unreachable(error) from None
        if response.is_success:
            return content
        raise self._explained(response, content)

    def _unreachable(self, error: "httpx.RequestError") -> RerankerUnavailableError:
        import httpx

        late = isinstance(error, httpx.TimeoutException)
        return RerankerUnavailableError(
            f"The reranker at {self._settings.url} gave no answer.",
            why=f"{type(error).__name__}: {error}".replace(self._key or "\0", "***"),
            fix="See whether it can be reached from here; rerank.timeout_seconds may be too short.",
            pause_seconds=None if late else _PAUSE_SECONDS,
        )

    def _explained(
        self, response: "httpx.Response", content: bytes
    ) -> RerankerUnavailableError | ProviderRefusedError:
        status = response.status_code
        said = " ".join(content.decode(errors="replace").split()).replace(self._key or "\0", "***")
        why = f"Status {status}: {said[:_LONGEST_MESSAGE]}"
        if status == 429 or status >= 500:
            return RerankerUnavailableError(
                f"The reranker at {self._settings.url} went on failing.",
                why=why,
                fix="Try again later.",
                pause_seconds=_retry_after(response),
            )
        return ProviderRefusedError(
            f"The reranker at {self._settings.url} refuses.",
            why=why,
            fix=f"Set the key in {self._settings.api_key_variable}."
            if status in (401, 403)
            else "Correct the rerank section of kb.toml.",
        )


def _retry_after(response: "httpx.Response") -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return _PAUSE_SECONDS


def _scores_in(content: bytes, texts: int) -> tuple[float, ...]:
    """Return the scores in the order of the texts, whatever order they came in.

    Raises:
        ProviderUnavailableError: There is not exactly one finite number for each text.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise _malformed(f"its {len(content)} bytes are not JSON") from None
    results = body.get("results") if isinstance(body, Mapping) else body
    if not isinstance(results, list):
        raise _malformed("there are no results in it")
    scores: dict[int, float] = {}
    for result in results:
        index, score = _result(result)
        if index in scores or not 0 <= index < texts:
            raise _malformed(f"it scores text {index} of {texts} twice, or there is none")
        scores[index] = score
    if len(scores) != texts:
        raise _malformed(f"it scores {len(scores)} of {texts} texts")
    return tuple(scores[index] for index in range(texts))


def _result(result: object) -> tuple[int, float]:
    if isinstance(result, Mapping):
        index, score = result.get("index"), result.get("relevance_score", result.get("score"))
        # bool is an int to Python, and no index or score to anybody
        if type(index) is int and type(score) in (int, float) and _is_finite(score):
            return index, float(score)
    raise _malformed("a result in it has no index, or no finite score")


def _is_finite(score: float) -> bool:
    try:
        return math.isfinite(score)
    except OverflowError:
        return False


def _malformed(why: str) -> RerankerUnavailableError:
    return RerankerUnavailableError(
        "The reranker gave an answer that cannot be used.",
        why=f"Its status was 200, but {why}.",
        fix="If it stays so, the server at rerank.url does not speak the protocol.",
        pause_seconds=None,
    )
