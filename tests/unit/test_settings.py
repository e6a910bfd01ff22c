"""`kb.toml` and `KB_*`: what is read, what wins, and what is refused."""

from pathlib import Path

import pytest

from kb_assets.errors import SettingsError
from kb_assets.settings import Settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "kb.toml"
    file.write_text('[[sources]]\nname = "wiki"\nuri = "wiki"\nshards = 4\n')
    return file


def test_a_small_file_is_enough(config: Path) -> None:
    settings = Settings.load(config)
    assert [shard.key for shard in settings.shards][:2] == ["wiki-01-of-04", "wiki-02-of-04"]
    assert settings.splitting.size == 400
    assert settings.embedding.provider == "hash"
    assert settings.home_folder == config.parent / ".kb"


def test_the_environment_wins_over_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(config.read_text() + '[embedding]\nprovider = "openai"\nmodel = "a"\n')
    monkeypatch.setenv("KB_EMBEDDING__MODEL", "b")
    settings = Settings.load(config)
    assert (settings.embedding.provider, settings.embedding.model) == ("openai", "b")


def test_the_file_may_be_named_by_a_variable(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_CONFIG", str(config))
    assert Settings.load().source("wiki").shards == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources = 3", "sources"),
        ('[[sources]]\nname = "Wiki"\nuri = "x"', "a-z"),
        ('[[sources]]\nname = "wiki-01-of-02"\nuri = "x"', "-01-of-02"),
        ('[[sources]]\nname = "a"\nuri = "x"\n' * 2, "same name"),
        ("[splitting]\nsize = 10\noverlap = 10", "smaller than size"),
        ("[splitting]\nsise = 10", "sise"),
        ("[embedding]\nprovider = 'magic'", "module:factory"),
        ("[embedding]\ndimensions = 4001", "4000"),
        ("[backup]\nkeep_daily = 0", "keep_daily"),
        ("this is not toml", "not TOML"),
    ],
)
def test_what_is_impossible_is_refused_and_named(config: Path, text: str, said: str) -> None:
    config.write_text(text)
    with pytest.raises(SettingsError, match=said):
        Settings.load(config)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="kb init"):
        Settings.load(tmp_path / "kb.toml")


def test_an_unknown_source_names_the_known_ones(config: Path) -> None:
    with pytest.raises(SettingsError, match="wiki"):
        Settings.load(config).source("handbook")
