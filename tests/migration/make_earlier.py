"""Make `earlier/*.sql`: what earlier releases left in a database, as their own code wrote it.

    python -m tests.migration.make_earlier

Each commit is the last one of its revision. Its code indexes three documents with its own
embedded server, in a worktree of its own; schema and rows are dumped as SQL.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.acceptance.command_line import REPOSITORY, write

EARLIER = Path(__file__).with_name("earlier")

COMMITS = {"0001": "b2da412", "0004": "76225e6"}
"""The last commit of each revision that databases were left with."""

DOCUMENTS = {
    "herons": "# Herons\n\nHerons stand in shallow water and wait for fish.",
    "owls": "# Owls\n\nOwls are birds that hunt at night.",
    "swifts": "# Swifts\n\nSwifts sleep while flying, high above the towns.",
}

_DUMP = """
import subprocess, sys
from pathlib import Path
from kb_assets.database.embedded import embedded_binaries, start_embedded
url = start_embedded(Path(sys.argv[1])).url("kb", "postgres")
options = ["--schema=kb", "--schema=kb_space", "--inserts", "--rows-per-insert=100"]
command = [embedded_binaries() / "pg_dump", *options, f"--file={sys.argv[2]}", url]
subprocess.run(command, check=True)
"""
_NOISE = re.compile(r"^(?:--.*|\\(?:un)?restrict .*)\n", re.MULTILINE)


def make(revision: str, commit: str, folder: Path) -> None:
    """Let a commit's code index the documents, and dump what it wrote."""
    code, work = folder / "code", folder / "work"
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    subprocess.run([*git, "add", "--detach", str(code), commit], check=True)
    try:
        environment = {key: value for key, value in os.environ.items() if key[:3] != "KB_"}
        environment["PYTHONPATH"] = str(code)
        work.mkdir()

        def run(*arguments: str) -> None:
            subprocess.run([sys.executable, *arguments], cwd=work, env=environment, check=True)

        run("-m", "kb_assets.cli", "init")
        write(work / "documents", **DOCUMENTS)
        run("-m", "kb_assets.cli", "index")
        target = EARLIER / f"{revision}.sql"
        run("-c", _DUMP, str(work / ".kb"), str(target))
        text = target.read_text(encoding="utf-8").replace(str(folder), "/home/somebody")
        target.write_text(_NOISE.sub("", text), encoding="utf-8")
    finally:
        subprocess.run([*git, "remove", "--force", str(code)], check=True)


def main() -> None:
    """Make all of them."""
    EARLIER.mkdir(exist_ok=True)
    for revision, commit in COMMITS.items():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            make(revision, commit, Path(folder))


if __name__ == "__main__":
    main()
