"""docs/backup.md, done command by command as an operator would."""

import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.command_line import CommandLine, write

RUNBOOK = (Path(__file__).parents[2] / "docs/backup.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)


def test_every_command_of_the_runbook_works_in_order(fresh: CommandLine, tmp_path: Path) -> None:
    fresh.must("init")
    write(fresh.folder / "documents", owls="# Owls\n\nOwls are birds that hunt at night.")
    fresh.must("index")
    before = fresh.must("search", "birds that hunt at night")["hits"]
    assert before
    assert "kb backup restore\n" in "".join(BLOCKS)

    kb = tmp_path / "kb"
    kb.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kb_assets.cli "$@"\n', encoding="utf-8")
    kb.chmod(0o755)
    environment = fresh.environment()
    done = subprocess.run(
        ["sh", "-eux", "-c", "".join(BLOCKS)],
        cwd=fresh.folder,
        env={**environment, "PATH": f"{tmp_path}:{environment['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (fresh.folder / "lost").is_dir()
    assert fresh.must("search", "birds that hunt at night")["hits"] == before
