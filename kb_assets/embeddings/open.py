"""From settings, or from a stored space, to an embedder.

What needs no key, no network and no heavy import is kept apart, for `kb plan`
and for naming a space: `model_of` and `price_of`.
"""

import importlib
from collections.abc import Callable
from dataclasses import replace

from kb_assets.embeddings.embedder import Embedder, Model
from kb_assets.embeddings.providers.hash import DIMENSIONS, MODEL, HashEmbedder
from kb_assets.embeddings.providers.local import LocalEmbedder, local_model
from kb_assets.embeddings.providers.openai import OpenAIEmbedder, openai_model, openai_price
from kb_assets.errors import KbError, SettingsError
from kb_assets.settings import EmbeddingSettings

_MOST_DIMENSIONS = 4000


def open_embedder(settings: EmbeddingSettings) -> Embedder:
    """Return the embedder that the settings describe.

    No request is made yet, and no model loaded; a missing key or package is noticed.

    Raises:
        SettingsError: The settings make no embedder, or a package is missing.
        ProviderRefusedError: The provider's key is not in the environment.
    """
    match settings.provider:
        case "hash":
            return _hash_embedder(settings)
        case "openai":
            return OpenAIEmbedder(settings)
        case "local":
            return LocalEmbedder(settings)
        case _:
            return _own_embedder(settings)


def model_of(settings: EmbeddingSettings) -> Model:
    """Return what decides the vectors, without a request, a key or a heavy import.

    A provider of one's own is built for this, so its factory should do nothing slow.

    Raises:
        SettingsError: The settings make no model.
    """
    match settings.provider:
        case "hash":
            return _hash_embedder(settings).model
        case "openai":
            return openai_model(settings)
        case "local":
            return local_model(settings)
        case _:
            return _own_embedder(settings).model


def price_of(settings: EmbeddingSettings) -> float:
    """Return what a million tokens cost in USD, without a request or a key."""
    match settings.provider:
        case "hash" | "local":
            return settings.usd_per_million_tokens or 0.0
        case "openai":
            return openai_price(settings)
        case _:
            return _own_embedder(settings).usd_per_million_tokens


def embedder_for(model: Model, settings: EmbeddingSettings) -> Embedder:
    """Return the embedder of an existing space.

    Where the current settings describe the same model, they are used as they are.
    Otherwise the space's own model, server and key variable are, with the current
    timeouts and limits, so that the live space goes on answering while another is filled.

    Args:
        model: What is stored with the space.
        settings: The current settings.

    Raises:
        SettingsError: The embedder can no longer be built.
        ProviderRefusedError: The provider's key is not in the environment.
    """
    restored = _settings_of(model, settings)
    if settings.provider == model.provider and _describes(settings, model):
        restored = settings
    embedder = open_embedder(restored)
    if not _same(embedder.model, model):
        raise SettingsError(
            f"{model.provider!r} no longer gives the model {model.name!r}.",
            why=f"It gives {embedder.model.name!r} of {embedder.model.dimensions} dimensions.",
            fix="Bring the provider back to what it was, or fill a new space.",
        )
    return embedder


def _same(one: Model, other: Model) -> bool:
    """Compare what decides vectors: where a model is served does not matter."""
    return replace(one, settings={}) == replace(other, settings={})


def _describes(settings: EmbeddingSettings, model: Model) -> bool:
    try:
        return _same(model_of(settings), model)
    except KbError:
        return False


def _settings_of(model: Model, settings: EmbeddingSettings) -> EmbeddingSettings:
    default = EmbeddingSettings()
    return settings.model_copy(
        update={
            "provider": model.provider,
            "model": model.name,
            "dimensions": model.dimensions,
            "query_prefix": model.query_prefix,
            "document_prefix": model.document_prefix,
            "base_url": model.settings.get("base_url", ""),
            "api_key_variable": model.settings.get("api_key_variable", default.api_key_variable),
            "usd_per_million_tokens": None,
        }
    )


def _hash_embedder(settings: EmbeddingSettings) -> HashEmbedder:
    if settings.model not in ("", MODEL):
        raise SettingsError(
            f"The provider 'hash' has no model {settings.model!r}.",
            why=f"Its only one is {MODEL!r}.",
            fix="Leave embedding.model out, or set embedding.provider.",
        )
    return HashEmbedder(
        settings.dimensions or DIMENSIONS,
        query_prefix=settings.query_prefix,
        document_prefix=settings.document_prefix,
    )


def _own_embedder(settings: EmbeddingSettings) -> Embedder:
    embedder = _build(settings)
    if not isinstance(embedder, Embedder):
        raise _unfit(settings, "it has no model, usd_per_million_tokens and embed(texts)")
    model = embedder.model
    if not isinstance(model, Model) or model.provider != settings.provider:
        raise _unfit(settings, f"its model is not a Model with provider {settings.provider!r}")
    if not 1 <= model.dimensions <= _MOST_DIMENSIONS:
        raise _unfit(settings, f"its model has {model.dimensions} dimensions, not 1 to 4000")
    return embedder


def _build(settings: EmbeddingSettings) -> object:
    try:
        return _factory(settings.provider)(settings)
    except KbError:
        raise
    except Exception as error:
        raise SettingsError(
            f"The embedding provider {settings.provider!r} cannot be opened.",
            why=f"{type(error).__name__}: {error}",
            fix="Correct embedding.provider; it is 'module:factory', where the module can be "
            "imported and factory(settings) returns an Embedder.",
        ) from error


def _factory(provider: str) -> Callable[[EmbeddingSettings], object]:
    module, _, name = provider.partition(":")
    factory: Callable[[EmbeddingSettings], object] = getattr(importlib.import_module(module), name)
    return factory


def _unfit(settings: EmbeddingSettings, why: str) -> SettingsError:
    return SettingsError(
        f"The embedding provider {settings.provider!r} gave no embedder.",
        why=f"What its factory returned is unfit: {why}.",
        fix="See kb_assets.embeddings.embedder.Embedder for what it must have.",
    )
