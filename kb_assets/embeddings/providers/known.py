"""What is known of models without asking anybody: dimensions, prices, who can shorten.

`kb plan` and the name of a space need a model's dimensions before any provider has
been called, so they are listed here. A model that is not needs `embedding.dimensions`.
"""

from dataclasses import dataclass

from kb_assets.errors import SettingsError


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What is known of a model.

    Attributes:
        dimensions: Length of its vectors when nothing else is asked for.
        usd_per_million_tokens: What OpenAI charges; None for models one runs oneself.
        shortens: Whether it may be asked for shorter vectors.
    """

    dimensions: int
    usd_per_million_tokens: float | None = None
    shortens: bool = True


OPENAI_MODELS = {
    "text-embedding-3-small": KnownModel(1536, 0.02),
    "text-embedding-3-large": KnownModel(3072, 0.13),
    "text-embedding-ada-002": KnownModel(1536, 0.10, shortens=False),
}
"""OpenAI's models and list prices."""

_OPEN_DIMENSIONS = {
    384: "all-minilm all-minilm-l6-v2 all-minilm-l12-v2 multi-qa-minilm-l6-cos-v1 "
    "paraphrase-multilingual-minilm-l12-v2 bge-small-en-v1.5 e5-small-v2 multilingual-e5-small "
    "gte-small",
    768: "nomic-embed-text nomic-embed-text-v1.5 all-mpnet-base-v2 embeddinggemma "
    "embeddinggemma-300m bge-base-en-v1.5 e5-base-v2 multilingual-e5-base gte-base",
    1024: "mxbai-embed-large mxbai-embed-large-v1 bge-m3 bge-large-en-v1.5 e5-large-v2 "
    "multilingual-e5-large snowflake-arctic-embed snowflake-arctic-embed2 gte-large",
}

_OPEN_MODELS = {
    name: KnownModel(dimensions)
    for dimensions, names in _OPEN_DIMENSIONS.items()
    for name in names.split()
}


def known_model(name: str) -> KnownModel | None:
    """Return what is known of a model, whatever owner or `:latest` is put around its name."""
    if name in OPENAI_MODELS:
        return OPENAI_MODELS[name]
    return _OPEN_MODELS.get(name.lower().rsplit("/", 1)[-1].removesuffix(":latest"))


def dimensions_of(name: str, asked_for: int) -> int:
    """Return the length of a model's vectors.

    Args:
        name: The model's name.
        asked_for: The length in the settings; 0 means the model's own.

    Raises:
        SettingsError: The model is not known and no length is given, or it cannot have it.
    """
    known = known_model(name)
    if known is None:
        return asked_for or _unknown(name)
    if asked_for > known.dimensions or (
        asked_for not in (0, known.dimensions) and not known.shortens
    ):
        raise SettingsError(
            f"{name!r} has no vectors of {asked_for} dimensions.",
            why=f"Its vectors have {known.dimensions}"
            + (", and may be asked for shorter." if known.shortens else "."),
            fix="Correct embedding.dimensions, or leave it out.",
        )
    return asked_for or known.dimensions


def _unknown(name: str) -> int:
    raise SettingsError(
        f"The dimensions of {name!r} are not known.",
        why="The length of its vectors is needed before the provider is asked for the first time.",
        fix="Set embedding.dimensions to the length its documentation names; "
        "should it be wrong, the first answer says which is right.",
    )
