"""docs/backup.md, done command by command as an operator would."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kb_assets.database.account import ServerAccount
from kb_assets.database.cluster import Cluster
from kb_assets.database.embedded import Major, embedded_binaries
from tests.acceptance.command_line import CommandLine, write
from tests.conftest import Server

RUNBOOK = (Path(__file__).parents[2] / "docs/backup.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
COMMANDS = "".join(text for language, text in BLOCKS if language == "sh")


@pytest.fixture
def rescue(servers: Callable[[Major], Server]) -> Iterator[str]:
    """An empty database beside, as its owner."""
    server = servers(16)
    with server.new_database(None) as name:
        yield server.url(name, "kb_migrator")


def copied(folder: Path) -> Cluster:
    """Return a server on a copy of the embedded one's files, as others would restore it."""
    cluster = Cluster(folder / "copy", 16)
    cluster.make_folder()
    shutil.copytree(folder / ".kb" / "postgres" / "data", cluster.data)
    account = ServerAccount.choose(embedded_binaries())
    for path in (cluster.data, *cluster.data.rglob("*")):
        account.own(path)
    return cluster


def test_every_command_of_the_runbook_works_in_order(
    fresh: CommandLine, rescue: str, tmp_path: Path
) -> None:
    fresh.must("init")
    write(fresh.folder / "documents", owls="# Owls\n\nOwls are birds that hunt at night.")
    fresh.must("index")
    before = fresh.must("search", "birds that hunt at night")["hits"]
    assert before
    cluster = copied(fresh.folder)
    restored = cluster.ensure_running({}).url("kb", "kb_backup")

    kb = tmp_path / "kb"
    kb.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kb_assets.cli "$@"\n', encoding="utf-8")
    kb.chmod(0o755)
    environment = fresh.environment(RESCUE_URL=rescue, RESTORED_URL=restored)
    done = subprocess.run(
        ["sh", "-eux", "-c", COMMANDS],
        cwd=fresh.folder,
        env={**environment, "PATH": f"{tmp_path}:{environment['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    cluster.stop()

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (fresh.folder / "lost").is_dir()
    assert fresh.must("search", "birds that hunt at night")["hits"] == before


def test_every_command_of_the_runbook_is_among_those() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "ini"}
    for command in ("run", "list", "verify", "drill", "restore", "prune"):
        assert f"kb backup {command}" in COMMANDS
    assert len(re.findall(r"^kb backup restore", COMMANDS, re.MULTILINE)) == 2
