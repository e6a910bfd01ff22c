"""What goes wrong says what, why and what to do, and exits with a code that stays."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kb_assets.database.connect import DatabaseUrls
from tests.acceptance.command_line import COMMAND, CommandLine, started, variables_of
from tests.conftest import Server
from tests.servers.openai_server import Fault, OpenAIServer


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def use(kb: CommandLine, base_url: str, key: str = "a-key") -> None:
    kb.variables |= {
        "KB_EMBEDDING__PROVIDER": "openai",
        "KB_EMBEDDING__BASE_URL": base_url,
        "KB_EMBEDDING__MODEL": "text-embedding-3-small",
        "KB_EMBEDDING__RETRIES": "0",
        "OPENAI_API_KEY": key,
    }


def assert_told(kb: CommandLine, code: int, *arguments: str, words: str) -> None:
    result = kb(*arguments)
    assert result.code == code, f"exit {result.code}\n{result.out}\n{result.err}"
    assert words in result.err
    assert "Traceback" not in result.err
    error = result.json["error"]
    assert words in " ".join((error["what"], error["why"], error["fix"]))
    assert error["exit_code"] == code
    assert error["fix"] or error["kind"] == "UsageError"


def test_there_is_no_knowledge_base(bare: CommandLine) -> None:
    for command in (("index",), ("plan",), ("status",), ("search", "x"), ("upgrade",), ("dev",)):
        assert_told(bare, 3, *command, words="kb init")


def test_settings_that_cannot_be_used(bare: CommandLine) -> None:
    config = bare.folder / "kb.toml"
    config.write_text("[[sources]\n")
    assert_told(bare, 3, "status", words="not TOML")
    config.write_text('[[sources]]\nname = "Bad Name"\nuri = "."\n')
    assert_told(bare, 3, "status", words="sources")
    config.write_text("[embeding]\n")
    assert_told(bare, 3, "status", words="embeding")
    config.write_text("")
    assert_told(bare, 75, "status", words="could not be reached")


def test_a_source_that_is_not_there(kb: CommandLine, tmp_path: Path) -> None:
    kb.must("index")
    shutil.rmtree(tmp_path / "documents")
    assert_told(kb, 5, "plan", words="does not exist")
    assert_told(kb, 5, "index", words="does not exist")
    assert len(kb.must("search", "owls")["hits"]) == 3, "readers keep what they have"
    assert_told(kb, 3, "index", "--source", "elsewhere", words="There is no source")
    assert_told(kb, 3, "search", "owls", "--source", "elsewhere", words="There is no source")
    assert_told(kb, 9, "why", "nothing.md", words="No document")
    assert_told(kb, 9, "why", "ow", words="owls.md")


def test_nothing_was_indexed_yet(kb: CommandLine) -> None:
    assert_told(kb, 7, "search", "owls", words="kb index")
    assert_told(kb, 3, "search", " ", words="Give a question")
    assert kb.must("status")["settled"] is False


def test_the_provider_cannot_be_reached(kb: CommandLine) -> None:
    use(kb, "http://127.0.0.1:9/v1")
    result = kb("index")
    assert result.code == 75, result.err
    assert result.json["error"]["kind"] == "ProviderUnavailableError"
    assert result.json["waiting"] == 3
    status = kb.must("status")
    assert not status["settled"]
    assert status["totals"]["pending"] == 3
    assert "not published yet" in kb.text("status")
    assert "Stopped" in kb("--text", "index").out


def test_the_provider_refuses_the_key(kb: CommandLine, provider: OpenAIServer) -> None:
    provider.expected_key = "right"
    use(kb, provider.base_url, key="wrong")
    assert_told(kb, 6, "index", words="key")
    assert kb("doctor", "--probe").code == 13
    (kb.folder / ".env").write_text("OPENAI_API_KEY=right\nKB_EMBEDDING__MODEL=ignored\n")
    del kb.variables["OPENAI_API_KEY"]
    assert kb.must("index")["waiting"] == 0
    assert kb.must("status")["settled"]
    assert kb.must("search", "owls hunt")["provider"] == "openai"


def test_a_text_the_provider_refuses_costs_its_document_nothing_else(
    kb: CommandLine, provider: OpenAIServer
) -> None:
    use(kb, provider.base_url)
    kb.variables["KB_EMBEDDING__USD_PER_MILLION_TOKENS"] = "1000000"
    forecast = kb.must("plan")
    assert forecast["needs_confirm_cost"]
    assert_told(kb, 8, "index", words="--confirm-cost")
    assert not provider.requests
    assert kb.must("status")["totals"]["pending"] == 3
    assert kb.must("index", "--confirm-cost")["error"] is None


def test_a_provider_that_fails_for_a_while(kb: CommandLine, provider: OpenAIServer) -> None:
    use(kb, provider.base_url)
    provider.always = Fault(status=500)
    assert kb("index").code == 75
    provider.always = Fault()
    assert kb.must("index")["waiting"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_the_next_time(
    kb: CommandLine, provider: OpenAIServer, number: signal.Signals
) -> None:
    use(kb, provider.base_url)
    provider.always = Fault(delay_seconds=3)
    with started(
        [*COMMAND, "index"], cwd=kb.folder, env=kb.environment(), stderr=subprocess.PIPE
    ) as running:
        give_up = time.monotonic() + 60
        while not provider.requests and time.monotonic() < give_up:
            time.sleep(0.05)
        running.send_signal(number)
        assert running.wait(60) == 130
        said = running.stderr.read().decode()
    assert "Traceback" not in said
    assert "kept" in said
    assert kb.must("status")["totals"]["documents"] == 3
    provider.always = Fault()
    assert kb.must("index")["waiting"] == 0


def test_the_database_cannot_be_reached(bare: CommandLine) -> None:
    bare.must("init")
    for command in (("index",), ("plan",), ("status",), ("search", "x"), ("space", "list")):
        assert_told(bare, 75, *command, words="could not be reached")
    assert bare("doctor").code == 13
    bare.variables["KB_DATABASE_URL"] = "mysql://elsewhere"
    assert_told(bare, 3, "status", words="database URL")


def test_a_database_of_ones_own_is_never_migrated_unasked(servers, tmp_path: Path) -> None:
    server: Server = servers(16)
    with server.new_database(template=None) as name:
        urls: DatabaseUrls = server.urls(name)
        kb = CommandLine(tmp_path, variables_of(urls))
        kb.must("init")
        for command in (("index",), ("status",), ("search", "x")):
            assert_told(kb, 4, *command, words="kb upgrade")
        kb.must("upgrade")
        kb.must("upgrade")
        assert kb.must("status")["totals"]["documents"] == 0


def test_command_lines_that_mean_nothing(bare: CommandLine) -> None:
    for arguments in (
        ("unknown",),
        ("index", "--unknown"),
        ("search",),
        ("search", "x", "--limit", "many"),
        ("search", "x", "--meta", "year"),
        ("dev", "--port", "0"),
    ):
        result = bare(*arguments)
        assert result.code == 2, arguments
        assert "Usage" in result.err
        assert result.json["error"]["exit_code"] == 2


def test_what_nobody_thought_of_is_one_line(bare: CommandLine) -> None:
    (bare.folder / "kb.toml").mkdir()
    assert bare("status").code == 3
    bare.variables["KB_EMBEDDING__PROVIDER"] = "nowhere:factory"
    (bare.folder / "kb.toml").rmdir()
    bare.must("init")
    result = bare("doctor")
    assert result.code == 13
    assert "nowhere" in result.out
