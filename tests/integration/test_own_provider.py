"""Providers by `module:factory`, opened as a user's kb.toml opens them."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy
import pytest

from kb_assets.embeddings.open import embedder_for, model_of, open_embedder, price_of
from kb_assets.embeddings.providers.hash import HashEmbedder
from kb_assets.embeddings.request import EmbeddedBatch, RefusedText, Text, embed_all
from kb_assets.errors import ProviderRefusedError, SettingsError
from kb_assets.settings import EmbeddingSettings

MODULE = """
import numpy
from kb_assets.embeddings.embedder import Answer, Model
from kb_assets.errors import TextRefusedError


class Lengths:
    usd_per_million_tokens = 1.5

    def __init__(self, settings):
        dimensions = settings.dimensions or 3
        self.model = Model(settings.provider, settings.model or "lengths", dimensions,
                           settings.query_prefix, settings.document_prefix)

    def embed(self, texts):
        rows = [[len(text) + place for place in range(self.model.dimensions)] for text in texts]
        return Answer(self.spoil(numpy.array(rows, dtype=numpy.float64), texts), len(texts))

    def spoil(self, rows, texts):
        return rows


class Refuses(Lengths):
    def spoil(self, rows, texts):
        if "bad" in texts:
            raise TextRefusedError("dislike", "I do not like it.")
        return rows


class Breaks(Lengths):
    def spoil(self, rows, texts):
        raise RuntimeError("out of memory")


class ForgetsOne(Lengths):
    def spoil(self, rows, texts):
        return rows[:-1]


class ForgetsOneOf(Lengths):
    def spoil(self, rows, texts):
        return rows[:-1] if "bad" in texts else rows


class Wide(Lengths):
    def spoil(self, rows, texts):
        return numpy.hstack([rows, rows])


class Flat(Lengths):
    def spoil(self, rows, texts):
        return rows[0]


class Nan(Lengths):
    def spoil(self, rows, texts):
        for row, text in enumerate(texts):
            if text == "bad":
                rows[row] = numpy.nan
        return rows


class OtherProvider(Lengths):
    def __init__(self, settings):
        super().__init__(settings)
        self.model = Model("mine", "lengths", 3)


class Renamed(Lengths):
    def __init__(self, settings):
        super().__init__(settings)
        self.model = Model(settings.provider, "renamed", 3)


class TooWide(Lengths):
    def __init__(self, settings):
        super().__init__(settings)
        self.model = Model(settings.provider, "lengths", 5000)


class NoEmbedder:
    def __init__(self, settings):
        pass


def broken(settings):
    raise KeyError("MY_VARIABLE")
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_embedders.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "unfinished_embedders.py").write_text("import not_installed_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    monkeypatch.delitem(__import__("sys").modules, "own_embedders", raising=False)


def settings(name: str, **changes: object) -> EmbeddingSettings:
    provider = name if ":" in name else f"own_embedders:{name}"
    return EmbeddingSettings.model_validate({"provider": provider, **changes})


def run(name: str, texts: list[str]) -> tuple[set[str], dict[str, str]]:
    """Return which texts were embedded, and why others were refused."""
    wanted = [Text(b"", text, 1) for text in texts]
    embedded: set[str] = set()
    refused: dict[str, str] = {}
    embedder = open_embedder(settings(name))
    answers = embed_all(embedder, [wanted], in_flight=2, max_texts=8, max_tokens=100)
    for outcome in chain.from_iterable(answers):
        match outcome:
            case EmbeddedBatch(given, vectors):
                assert vectors.dtype == numpy.float32
                for text, vector in zip(given, vectors, strict=True):
                    assert vector[0] == len(text.text)
                    embedded.add(text.text)
            case RefusedText(text, error):
                refused[text.text] = error.reason
    return embedded, refused


GOOD = [f"text {'x' * number}" for number in range(20)]


def test_a_provider_of_ones_own_embeds():
    assert run("Lengths", GOOD) == (set(GOOD), {})
    assert price_of(settings("Lengths")) == 1.5


def test_its_model_names_the_space_and_the_space_brings_it_back():
    model = model_of(settings("Lengths", dimensions=5, query_prefix="q: "))
    assert (model.name, model.dimensions, model.query_prefix) == ("lengths", 5, "q: ")
    assert embedder_for(model, EmbeddingSettings()).model == model


def test_a_space_whose_provider_changed_is_not_mixed():
    model = model_of(settings("Lengths"))
    changed = replace(model, provider="own_embedders:Renamed")
    with pytest.raises(SettingsError, match="no longer gives the model 'lengths'"):
        embedder_for(changed, settings("Renamed"))


def test_a_space_does_not_need_the_current_provider_to_be_sound():
    stored = model_of(EmbeddingSettings(provider="hash"))
    assert isinstance(embedder_for(stored, settings("broken")), HashEmbedder)


@pytest.mark.parametrize(("name", "reason"), [("Refuses", "dislike"), ("Nan", "not_finite")])
def test_one_bad_text_costs_no_other_its_vector(name: str, reason: str):
    assert run(name, [*GOOD, "bad"]) == (set(GOOD), {"bad": reason})


def test_a_row_too_few_is_traced_to_its_text():
    assert run("ForgetsOneOf", [*GOOD, "bad"]) == (set(GOOD), {"bad": "wrong_count"})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Breaks", "RuntimeError: out of memory"),
        ("ForgetsOne", "refuses every text"),
        ("Wide", "6 dimensions, not 3"),
        ("Flat", "refuses every text"),
    ],
)
def test_a_provider_that_is_wrong_throughout_quarantines_nothing(name: str, said: str):
    with pytest.raises(ProviderRefusedError, match=said):
        run(name, GOOD)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module_anywhere:factory", "ModuleNotFoundError"),
        ("unfinished_embedders:factory", "not_installed_at_all"),
        ("own_embedders:Missing", "Missing"),
        ("own_embedders:", "own_embedders"),
        (":factory", "ValueError"),
        ("broken", "MY_VARIABLE"),
        ("NoEmbedder", "no model"),
        ("OtherProvider", "provider 'own_embedders:OtherProvider'"),
        ("TooWide", "5000 dimensions"),
    ],
)
def test_what_is_no_provider_says_why(name: str, said: str):
    with pytest.raises(SettingsError, match=said) as caught:
        open_embedder(settings(name))
    assert caught.value.fix


def test_the_hash_provider_has_one_model():
    assert open_embedder(EmbeddingSettings(dimensions=16)).model.dimensions == 16
    with pytest.raises(SettingsError):
        open_embedder(EmbeddingSettings(model="text-embedding-3-small"))
