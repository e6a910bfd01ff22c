"""A model becomes ONNX once, and what was made is kept; torch is a stand-in."""

import sys
from pathlib import Path

import numpy
import pytest

from kb_assets.embeddings.open import embedder_for
from kb_assets.embeddings.providers import onnx_graph
from kb_assets.embeddings.space import space_fingerprint
from kb_assets.errors import ProviderRefusedError, SettingsError
from kb_assets.settings import EmbeddingSettings
from tests.local_model import TEXTS, StandIn, cache, local_embedder, torch
from tests.tiny_model import DIMENSIONS, reference, write_model

__all__ = ["cache", "torch"]  # fixtures
pytestmark = pytest.mark.usefixtures("cache")


def lowest_cosine(one: numpy.ndarray, other: numpy.ndarray) -> float:
    return float((one * other).sum(axis=1).min())


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
