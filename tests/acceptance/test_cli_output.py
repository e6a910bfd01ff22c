"""What is printed: text for people, JSON for programs, and nothing loaded for nothing."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

from tests.acceptance.command_line import COMMAND, REPOSITORY, CommandLine, write
from tests.tiny_model import DIMENSIONS, write_model

LIGHT = """
import sys
from kb_assets.cli import main
code = main(["--help"])
heavy = {"alembic", "dagster", "dotenv", "numpy", "openai", "psycopg", "pyarrow", "pydantic",
         "rich", "sqlalchemy", "kb_assets.settings", "kb_assets.knowledge_base"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or code)
"""


def test_help_loads_nothing_it_does_not_need(bare: CommandLine) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], env=bare.environment(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    started = time.monotonic()
    told = bare("--help")
    assert time.monotonic() - started < 2, "half a second on an idle machine"
    for command in ("init", "doctor", "plan", "index", "search", "status", "why", "space", "dev"):
        assert f"  {command} " in told.out
    assert "...\n" not in told.out.partition("Commands:")[2]
    for code in (10, 11, 12, 13, 75, 130):
        assert f"{code} " in told.out


LIGHT_SEARCH = """
import sys
from kb_assets.cli import main
code = main(["search", "owls"])
heavy = {"alembic", "dagster", "duckdb", "huggingface_hub", "onnx", "openai", "pandas", "pyarrow",
         "pypdfium2", "sqlalchemy", "torch", "trafilatura", "transformers"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or code)
"""


def test_a_search_by_the_local_model_loads_nothing_it_does_not_need(
    kb: CommandLine, tmp_path: Path
) -> None:
    kb.variables |= {
        "KB_EMBEDDING__PROVIDER": "local",
        "KB_EMBEDDING__MODEL": str(write_model(tmp_path / "model")),
        "KB_EMBEDDING__DIMENSIONS": str(DIMENSIONS),
    }
    kb.must("index")
    done = subprocess.run(
        [sys.executable, "-c", LIGHT_SEARCH],
        cwd=kb.folder,
        env=kb.environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["provider"] == "local"


def test_every_command_has_help_and_the_common_options(bare: CommandLine) -> None:
    for command in ("init", "index", "search", "why", "dev"):
        told = bare(command, "--help").out
        assert "--json" in told
        assert "--config" in told
    assert bare("--version").out.startswith("kb, version")


def test_json_when_piped_and_text_when_asked(kb: CommandLine) -> None:
    kb.must("index")
    for command in (("status",), ("plan",), ("search", "owls"), ("why", "owls.md"), ("doctor",)):
        assert isinstance(kb(*command).json, dict)
        text = kb("--text", *command).out
        assert not text.startswith("{")
        assert "\x1b" not in text
    assert kb("status", "--text").out.startswith("Source")
    hit = kb.must("search", "owls hunt")["hits"][0]
    assert hit["byte_start"] < hit["byte_end"]
    assert {"score", "source", "path", "heading_path", "text", "tags", "metadata"} <= set(hit)
    moment = kb.must("status")["shards"][0]["account"]["listed_at"]
    assert "T" in moment
    assert moment.endswith("+00:00")


def test_text_fits_its_width(kb: CommandLine) -> None:
    long = " ".join(f"word{number}" for number in range(60))
    write(kb.folder / "documents", long=f"# Long\n\n{long}\n")
    kb.must("index")
    for command in (("status",), ("plan",), ("search", "word7"), ("index",)):
        lines = kb.text(*command, COLUMNS="80").splitlines()
        assert [line for line in lines if len(line) > 80] == []
    found = kb.text("search", "word7", COLUMNS="120").splitlines()
    assert 80 < max(map(len, found)) <= 120


def test_what_a_document_says_does_not_steer_the_terminal(kb: CommandLine) -> None:
    write(
        kb.folder / "documents", hostile="# Sly\n\nSly \x1b[31mred\x1b[0m [bold]markup[/bold] owl."
    )
    kb.must("index")
    for options in ((), ("--full",)):
        told = kb.text("search", "sly markup", "--limit", "1", *options)
        assert "\x1b" not in told
        assert "[bold]markup[/bold]" in told


def test_search_says_what_the_hash_embedder_is(kb: CommandLine) -> None:
    kb.must("index")
    told = kb.text("search", "owls hunt at night", "--limit", "1")
    assert "1. " in told
    assert "documents:owls.md" in told
    assert "Owls" in told
    assert "not by meaning" in told
    assert "bytes" in told


def test_colours_only_where_they_are_wanted(kb: CommandLine) -> None:
    kb.must("index")
    assert "\x1b[" in on_a_terminal(kb, "status", TERM="xterm-256color")
    assert "\x1b[3" not in on_a_terminal(kb, "status", TERM="xterm-256color", NO_COLOR="1")


def on_a_terminal(kb: CommandLine, *arguments: str, **variables: str) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=kb.folder,
        env=kb.environment(**variables),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            said += part
    os.close(ours)
    return said.decode()


def test_a_reader_that_leaves_is_no_error(kb: CommandLine) -> None:
    kb.must("index")
    command = " ".join([*COMMAND, "--text", "search", "owls"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        cwd=kb.folder,
        env=kb.environment(),
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    assert done.stdout.strip() in (b"0", b"141")


def test_an_error_is_text_for_people_and_json_for_programs(bare: CommandLine) -> None:
    result = bare("status")
    assert result.err.startswith("Error: ")
    assert "  why: " in result.err
    assert "  fix: " in result.err
    assert json.loads(result.out)["error"]["kind"] == "SettingsError"
    assert bare("--text", "status").out == ""
    assert "Traceback" in bare("status", KB_DEBUG="1").err


def test_templates_are_the_repositorys_own() -> None:
    templates = REPOSITORY / "kb_assets" / "cli" / "templates"
    for name, template in (
        ("dagster.yaml", "dagster.yaml"),
        ("workspace.yaml", "workspace.yaml"),
        (".env.example", "env.example"),
    ):
        assert (templates / template).read_text() == (REPOSITORY / name).read_text(), name


def test_a_file_beside_kb_toml_sets_variables(kb: CommandLine, tmp_path: Path) -> None:
    kb.must("index")
    url = kb.variables.pop("KB_DATABASE_URL")
    config = str(tmp_path / "kb.toml")
    away = CommandLine(tmp_path / "documents", kb.variables)
    (tmp_path / ".env").write_text(f"KB_DATABASE_URL={url}\nKB_LIMITS__MAX_DELETED_SHARE=0.25\n")
    assert away("status").code == 3
    assert away.must("--config", config, "status")["totals"]["live"] == 3
    assert away.must("status", KB_CONFIG=config)["totals"]["live"] == 3
