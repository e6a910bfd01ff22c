"""What an embedding provider is: one method that turns texts into vectors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy
import numpy.typing

Vectors = numpy.typing.NDArray[numpy.float32]
"""Vectors as rows, shape (texts, dimensions)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider gave for one request.

    Attributes:
        vectors: One row for each text, in the order of the texts, float32.
        tokens: How many tokens the provider counted, or charged for.
    """

    vectors: Vectors
    tokens: int


@dataclass(frozen=True, slots=True)
class Model:
    """What decides a vector, together with the text.

    Attributes:
        provider: `openai`, `local`, `hash`, or `module:factory`.
        name: The model's name as the provider knows it.
        dimensions: Length of the vectors.
        query_prefix: What goes before a query.
        document_prefix: What goes before a document's text.
        settings: What else is needed to build the embedder again, such as `base_url`; no secrets.
    """

    provider: str
    name: str
    dimensions: int
    query_prefix: str = ""
    document_prefix: str = ""
    settings: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Safe to call from several threads at once."""

    @property
    def model(self) -> Model:
        """What decides the vectors."""

    @property
    def usd_per_million_tokens(self) -> float:
        """What a million tokens cost; 0 when nothing is charged."""

    def embed(self, texts: Sequence[str]) -> Answer:
        """Return one vector for each text, in order.

        Args:
            texts: Not empty; prefixes already in place.

        Raises:
            TextRefusedError: One of the texts cannot be embedded; the others may be.
            ProviderRefusedError: No request of this kind will ever be answered.
            ProviderUnavailableError: It went on failing after the provider's own retries.
        """
