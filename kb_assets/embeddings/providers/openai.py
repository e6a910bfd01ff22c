"""OpenAI's embeddings, and every server that speaks their protocol.

`base_url` makes it Azure (`https://NAME.openai.azure.com/openai/v1/`), Ollama
(`http://localhost:11434/v1`), vLLM, or Hugging Face's text-embeddings-inference.
"""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import tenacity

from kb_assets.embeddings.embedder import Answer, Model
from kb_assets.embeddings.providers.known import OPENAI_MODELS, dimensions_of, known_model
from kb_assets.errors import ProviderRefusedError, SettingsError, TextRefusedError
from kb_assets.settings import EmbeddingSettings
from kb_assets.settings.server import read_key, require_address

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
"""Where requests go without a `base_url`."""

DEFAULT_MODEL = "text-embedding-3-small"
"""The model where the settings name none."""

_NO_KEY = "no-key-needed"
_DEFAULT_VARIABLE = "OPENAI_API_KEY"


class OpenAIEmbedder:
    """Asks an OpenAI-compatible server. Safe to call from several threads.

    The client is imported and made at the first request. It tries again by itself
    after timeouts, resets, 408, 409, 429 and 5xx, as often as `retries` says, and
    waits as long as `Retry-After` says; an answer that is cut off is asked for again
    as often.

    Args:
        settings: Which model, where, and how patiently.

    Raises:
        SettingsError: The settings make no model.
        ProviderRefusedError: There is no key in the environment, and OpenAI wants one.
    """

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._model = openai_model(settings)
        self._price = openai_price(settings)
        self._settings = settings
        self._server = settings.base_url or OPENAI_URL
        self._key = _key(settings)
        self._format: Literal["base64", "float"] = "base64"
        self._lock = threading.Lock()
        self._answering_model = self._model.name if self._model.name in OPENAI_MODELS else ""

    @property
    def model(self) -> Model:
        """What decides the vectors."""
        return self._model

    @property
    def usd_per_million_tokens(self) -> float:
        """The settings' price, or OpenAI's list price."""
        return self._price

    def embed(self, texts: Sequence[str]) -> Answer:
        """Return one vector for each text, in order; see `Embedder.embed`.

        A row missing from the server's answer is NaN, so that the rest of it is not lost.
        """
        from kb_assets.embeddings.providers.openai_answer import MalformedAnswerError

        asking = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(MalformedAnswerError),
            stop=tenacity.stop_after_attempt(self._settings.retries + 1),
            wait=tenacity.wait_random_exponential(multiplier=0.25, max=8),
            reraise=True,
        )
        return asking(self._ask, texts)

    @cached_property
    def _client(self) -> "openai.OpenAI":
        import openai

        return openai.OpenAI(
            base_url=self._server,
            api_key=self._key,
            timeout=self._settings.timeout_seconds,
            max_retries=self._settings.retries,
        )

    def _ask(self, texts: Sequence[str]) -> Answer:
        from kb_assets.embeddings.providers.openai_answer import answer_of, read_json

        body = read_json(self._post(texts), self._key)
        self._check_model(body)
        return answer_of(body, len(texts), self._model.dimensions)

    def _post(self, texts: Sequence[str]) -> bytes:
        import openai

        from kb_assets.embeddings.providers.openai_errors import explained, is_about_encoding

        with self._lock:
            client = self._client
        try:
            answer = client.embeddings.with_raw_response.create(
                input=list(texts),
                model=self._model.name,
                dimensions=self._dimensions_to_send or openai.omit,
                encoding_format=self._format,
            )
            return answer.http_response.content
        except UnicodeError:
            raise _not_unicode() from None
        except openai.OpenAIError as error:
            failure = error
        if self._format == "base64" and is_about_encoding(failure):
            self._format = "float"
            return self._post(texts)
        raise explained(failure, self._key, self._server)

    @property
    def _dimensions_to_send(self) -> int | None:
        """What to ask for: only a length that differs from the one a known model gives."""
        known = known_model(self._model.name)
        if known is None or known.dimensions == self._model.dimensions:
            return None
        return self._model.dimensions

    def _check_model(self, body: Mapping[str, Any]) -> None:
        """Refuse vectors of another model; behind an alias, one model must go on answering."""
        said = body.get("model")
        if not isinstance(said, str) or not said:
            return
        with self._lock:
            self._answering_model = self._answering_model or said
        if said.rsplit("/", 1)[-1].startswith(self._answering_model.rsplit("/", 1)[-1]):
            return
        raise ProviderRefusedError(
            f"The model {said!r} answered, not {self._answering_model!r}.",
            why="Vectors of different models cannot be compared.",
            fix="Correct embedding.model or embedding.base_url, or ask the server's operator.",
        )


def openai_model(settings: EmbeddingSettings) -> Model:
    """Return what decides the vectors, without a request and without a key.

    Raises:
        SettingsError: The model's dimensions are not known, or `base_url` holds a secret.
    """
    if settings.base_url and not settings.model:
        raise SettingsError(
            "embedding.model is empty.",
            why="A server of one's own has no default model.",
            fix="Name a model that the server at embedding.base_url has.",
        )
    require_address("embedding.base_url", settings.base_url, "http://localhost:11434/v1")
    name = settings.model or DEFAULT_MODEL
    return Model(
        "openai",
        name,
        dimensions_of(name, settings.dimensions),
        settings.query_prefix,
        settings.document_prefix,
        _how_to_reach(settings),
    )


def openai_price(settings: EmbeddingSettings) -> float:
    """Return what a million tokens cost in USD.

    The settings win, then OpenAI's list price. Other models cost nothing on a server
    of one's own; on OpenAI's, the highest price is assumed, so that a limit still holds.
    """
    if settings.usd_per_million_tokens is not None:
        return settings.usd_per_million_tokens
    prices = {name: known.usd_per_million_tokens or 0.0 for name, known in OPENAI_MODELS.items()}
    unknown = 0.0 if settings.base_url else max(prices.values())
    return prices.get(settings.model or DEFAULT_MODEL, unknown)


def _how_to_reach(settings: EmbeddingSettings) -> dict[str, str]:
    reach = {"base_url": settings.base_url} if settings.base_url else {}
    if settings.api_key_variable != _DEFAULT_VARIABLE:
        reach["api_key_variable"] = settings.api_key_variable
    return reach


def _key(settings: EmbeddingSettings) -> str:
    key = read_key(settings.api_key_variable)
    if key or settings.base_url:
        return key or _NO_KEY
    raise ProviderRefusedError(
        "There is no key for OpenAI.",
        why=f"The environment has no {settings.api_key_variable}.",
        fix=f"export {settings.api_key_variable}=… (see platform.openai.com/api-keys), "
        "or set embedding.base_url to a server that needs none.",
    )


def _not_unicode() -> TextRefusedError:
    return TextRefusedError(
        "not_unicode",
        "A text cannot be written as UTF-8.",
        why="There is half of a surrogate pair in it.",
        fix="Correct the text.",
    )
