"""Each mistake in `kb.toml` or `KB_*` is named, with its line and what was meant."""

from pathlib import Path

import pytest
from dagster._utils.schedules import is_valid_cron_string

from kb_assets.errors import SettingsError
from kb_assets.settings import Settings
from kb_assets.settings.lines import lines_of
from kb_assets.settings.mistakes import unknown_variables
from kb_assets.settings.times import require_cron, require_timezone

SOURCE = '[[sources]]\nname = "wiki"\nuri = "wiki"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "kb.toml"
    file.write_text(SOURCE)
    return file


def mistakes(config: Path, text: str | None = None) -> list[str]:
    """Return what is told of a file, each line without the file's name."""
    if text is not None:
        config.write_text(text)
    with pytest.raises(SettingsError) as told:
        Settings.load(config)
    assert told.value.fix
    return [line.removeprefix(f"{config}:") for line in told.value.why.splitlines()]


@pytest.mark.parametrize(
    ("below", "told"),
    [
        ("[embedding]\ndimentions = 3", "5: embedding.dimentions is not known. Did you mean dim"),
        ("[embedding]\nsize = 3", "5: embedding.size is not known. It belongs to the section spl"),
        ('database_url = ""', "4: sources.database_url is not known. It belongs above the first"),
        ('[archiv]\nuri = "x"', "4: archiv is not known. Did you mean archive?"),
        ("shards = 'many'", "4: sources.shards must be a whole number."),
        ("shards = 0", "4: sources.shards: it must be greater than or equal to 1."),
        ("[search]\nmode = 'hybird'", "5: search.mode must be 'hybrid', 'vector' or 'lexical'. Di"),
        ("[backup]\nuri = 3", "5: backup.uri must be a text, in quotation marks."),
        ("[schedule]\n\nenabled = 'perhaps'", "6: schedule.enabled must be true or false."),
        ("[schedule]\ncron = '* * * *'", "5: schedule.cron: a cron has five fields"),
        ("[schedule]\ncron = ''", "5: schedule.cron: a cron has five fields"),
        ("[backup]\ncron = '0 25 * * *'", "5: backup.cron: '25' is no hour: it goes from 0 to 23."),
        ("[archive]\ntimezone = 'Europe/Berln'", "5: archive.timezone: there is no time zone"),
        ("[archive]\ntimezone = 'europe/berlin'", "write it like Europe/Berlin."),
        ("[splitting]\nsize = 9\noverlap = 9", "4: splitting: overlap must be smaller than size."),
        (
            "[[backup]]\nuri = 'x'",
            "4: backup must be a section: write its header as [backup], once",
        ),
        (SOURCE, "5: sources.name: it has the same name as another."),
        ('[[sources]]\nname = "b"', "4: sources.uri is missing."),
        ("include = [\n'a',\n3,\n]", "4: sources.include must be a text, in quotation marks."),
        ("[embedding]\nprovider = openai", "5: Invalid value"),
        ("[embedding]\n[embedding]", "5: Cannot declare"),
    ],
)
def test_a_mistake_is_named_with_its_line(config: Path, below: str, told: str) -> None:
    [said] = mistakes(config, SOURCE + below)
    assert told in said
    assert said[0].isdigit()


def test_a_source_needs_two_brackets(config: Path) -> None:
    [said] = mistakes(config, '[sources]\nname = "wiki"\nuri = "wiki"\n')
    assert said.startswith("1: sources must be a list: write its header as [[sources]]")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(config: Path) -> None:
    said = mistakes(
        config,
        f"owner = ['x']\n{SOURCE}{SOURCE}[embedding]\ndimensions = 5000\n[schedule]\ncron = 'x'\n",
    )
    assert [line.partition(":")[0] for line in said] == ["1", "6", "9", "11"]


def test_a_variable_is_named_by_its_name(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(f"{SOURCE}[embedding]\ndimensions = 64\n")
    monkeypatch.setenv("KB_EMBEDDING__DIMENSIONS", "5000")
    monkeypatch.setenv("KB_LIMITS__PARSE_SECOND", "3")
    said = sorted(mistakes(config))
    assert said[0].startswith("KB_EMBEDDING__DIMENSIONS: embedding.dimensions: it must be less")
    assert said[1].startswith("KB_LIMITS__PARSE_SECOND: limits.parse_second is not known. Did you")
    assert len(said) == 2


def test_a_variable_with_a_list_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_SOURCES", '[{"name": "wiki"}]')
    assert mistakes(config) == ["KB_SOURCES: sources.uri is missing."]
    monkeypatch.setenv("KB_SOURCES", "[")
    with pytest.raises(SettingsError, match="KB_SOURCES is no JSON"):
        Settings.load(config)


def test_a_value_is_not_repeated(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_EMBEDDING__DIMENSIONS", "sk-canary")
    config.write_text(f'{SOURCE}databse_url = "postgresql://u:canary@h/d"\nkind = "canary"\n')
    with pytest.raises(SettingsError) as told:
        Settings.load(config)
    assert "canary" not in str(told.value)


def test_a_variable_that_means_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_EMBEDING__PROVIDER", "openai")
    monkeypatch.setenv("KB_DATABSE_URL", "")
    monkeypatch.setenv("KB_SERCH__X", "")
    monkeypatch.setenv("KB_NOWHERE__X", "")
    monkeypatch.setenv("KB_DEBUG", "1")
    monkeypatch.setenv("KB_SEARCH__MODE", "vector")
    assert unknown_variables(Settings) == {
        "KB_EMBEDING__PROVIDER": "KB_EMBEDDING__PROVIDER",
        "KB_DATABSE_URL": "KB_DATABASE_URL",
        "KB_SERCH__X": "KB_SEARCH__X",
        "KB_NOWHERE__X": "",
    }


def test_lines_of_headers_lists_and_long_values() -> None:
    text = 'a = """\n[b]\n"""\n\n[[s]]\nx = 1\n[s.o]\ny = {z = 2}\n[[s]]\n# c\nx = [\n  3,\n]\n'
    assert lines_of(text.replace("\n", "\r\n")) == lines_of(text)
    assert lines_of(text) == {
        ("a",): 1,
        ("s",): 5,
        ("s", 0): 5,
        ("s", 0, "x"): 6,
        ("s", 0, "o"): 7,
        ("s", 0, "o", "y"): 8,
        ("s", 0, "o", "y", "z"): 8,
        ("s", 1): 9,
        ("s", 1, "x"): 11,
        ("s", 1, "x", 0): 11,
    }


@pytest.mark.parametrize(
    "cron",
    [
        *("* * * * *", "*/15 * * * *", "0 3 * * *", "0 3 1,15 * *", "0 9-17/2 * * mon-fri"),
        *("5 4 * JAN-mar 0", "0 0 29 2 *", "0 0 1 2 mon", "@daily", "0 0 * * 7", "1/5 * * * *"),
    ],
)
def test_a_cron_that_dagster_takes(cron: str) -> None:
    assert require_cron(cron) == cron
    assert is_valid_cron_string(cron)


@pytest.mark.parametrize(
    "cron",
    [
        *("", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *"),
        *("* * * * 8", "a * * * *", "*/0 * * * *", "1-x * * * *", "0 0 30 2 *", "0 3 * * monday"),
        *("1,, * * * *", "-1 * * * *", "0 0 31 4,6 *", "0 0 31 2 mon", "every day", "@sometimes"),
    ],
)
def test_a_cron_that_never_comes_true(cron: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        require_cron(cron)


def test_a_time_zone_is_one_of_iana() -> None:
    assert require_timezone("America/Argentina/Ushuaia")
    for name in ("", "CEST+2", "../../etc/passwd", "Nowhere", "Europe"):
        with pytest.raises(ValueError, match="time zone"):
            require_timezone(name)
