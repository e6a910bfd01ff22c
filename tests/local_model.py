"""What tests of the local model share: its embedder, its cache, and a stand-in for torch."""

import sys
from pathlib import Path
from types import ModuleType

import numpy
import pytest

from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.open import open_embedder
from kb_assets.settings import EmbeddingSettings
from tests.tiny_model import DIMENSIONS, MAX_TOKENS, reference, write_graph

TEXTS = ["three words here", "a", "one two three four five six", "x" * 5 * MAX_TOKENS, "ü 𝄞"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of exported models; nothing of installed weights or torch is seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("torch", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    return tmp_path / "cache" / "kb_assets" / "models"


def local_embedder(model: str | Path = "", precision: str = "", **changes: object) -> Embedder:
    settings = {"provider": "local", "model": f"{model}{precision}", **changes}
    if model:
        settings.setdefault("dimensions", DIMENSIONS)
    return open_embedder(EmbeddingSettings.model_validate(settings))


class StandIn:
    """What the export uses of torch and sentence-transformers; counts how often it is asked."""

    def __init__(self) -> None:
        self.exports = 0
        self.says_wrong = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch, library = ModuleType("torch"), ModuleType("sentence_transformers")
        torch.nn = ModuleType("torch.nn")
        torch.nn.Module = Module
        torch.tensor = numpy.array
        torch.onnx = ModuleType("torch.onnx")
        torch.onnx.export = self.export
        library.SentenceTransformer = self.load
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setitem(sys.modules, "sentence_transformers", library)

    def export(self, module: "Module", arguments: object, file: str, **options: object) -> None:
        self.exports += 1
        write_graph(module.transformer, Path(file))

    def load(self, folder: str, device: str) -> "Loaded":
        return Loaded(Path(folder), self.says_wrong)


class Module:
    def eval(self) -> "Module":
        return self


class Loaded:
    def __init__(self, folder: Path, says_wrong: bool) -> None:
        self.auto_model = folder
        self.sign = -1 if says_wrong else 1

    def __getitem__(self, place: int) -> "Loaded":
        return self

    def tokenizer(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [1, 2, 3]}

    def encode(self, texts: list[str], **options: object) -> numpy.ndarray:
        return self.sign * reference(self.auto_model, texts)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    stand_in.install(monkeypatch)
    return stand_in
