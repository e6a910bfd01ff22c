"""`make demo` with each of its three embedders, from `kb index` to the hits it prints."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.command_line import REPOSITORY, CommandLine, variables_of
from tests.servers.openai_server import OpenAIServer
from tests.tiny_model import DIMENSIONS, write_model

COPIED = ("kb.toml", "dagster.yaml", "workspace.yaml", "samples")


@pytest.fixture
def demo(tmp_path: Path, database_urls, dagster_url) -> Callable[..., str]:
    """Run the demo in a copy of the repository, and return what it prints."""
    for name in COPIED:
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    kb = tmp_path / "kb"
    kb.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kb_assets.cli "$@"\n')
    kb.chmod(0o755)
    variables = variables_of(database_urls) | {"KB_DAGSTER_DATABASE_URL": dagster_url}

    def run(**given: str) -> str:
        environment = CommandLine(tmp_path, variables).environment(**given)
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
        done = subprocess.run(
            [tmp_path / "samples" / "demo.sh"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def three_searches(printed: str) -> list[str]:
    searches = printed.split("$ kb --text search")[1:]
    assert len(searches) == 3
    assert all(re.search(r"handbook:\S+\.(md|txt|rst|html|pdf)", one) for one in searches)
    return searches


def test_the_hash_demo_finds_the_torque_and_says_what_it_is(demo: Callable[..., str]) -> None:
    printed = demo(KB_EMBEDDING__PROVIDER="hash")
    torque, webhook, _ = three_searches(printed)
    assert "engineering/limpet-manual.md" in torque
    assert "engineering/api-guide.md" in webhook
    assert "share words with the question, not meaning" in printed


def test_the_openai_demo_sends_every_text_once(
    demo: Callable[..., str], openai_server: OpenAIServer
) -> None:
    printed = demo(
        KB_EMBEDDING__PROVIDER="openai",
        KB_EMBEDDING__BASE_URL=openai_server.base_url,
        KB_EMBEDDING__MODEL="text-embedding-3-small",
        OPENAI_API_KEY=openai_server.expected_key or "any",
    )
    three_searches(printed)
    sent = openai_server.answered_texts
    assert len(sent) > 300
    assert len(sent) == len(set(sent))


def test_the_local_demo_embeds_on_this_machine(demo: Callable[..., str], tmp_path: Path) -> None:
    printed = demo(
        KB_EMBEDDING__PROVIDER="local",
        KB_EMBEDDING__MODEL=f"{write_model(tmp_path / 'model')}@int8",
        KB_EMBEDDING__DIMENSIONS=str(DIMENSIONS),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    three_searches(printed)
    assert "share words with the question" not in printed
