"""The real `kb`, in a process of its own, as a person or a script would call it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kb_assets.database.connect import DatabaseUrls

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "kb_assets.cli"]


@dataclass(frozen=True)
class Result:
    """What a command said, and what it exited with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class CommandLine:
    """`kb` in a folder, with variables of its own."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, **variables: str) -> Result:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=180,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KB_", "OPENAI_", "DAGSTER_")) and name != "NO_COLOR"
        }
        return {**kept, "PYTHONPATH": str(REPOSITORY), **self.variables, **variables}

    def text(self, *arguments: str, **variables: str) -> str:
        """Return what a command says to a person; it must succeed."""
        result = self("--text", *arguments, **variables)
        assert result.code == 0, result.err
        return result.out

    def must(self, *arguments: str, code: int = 0, **variables: str) -> Any:
        """Return the JSON of a command that must exit with a code."""
        result = self(*arguments, **variables)
        assert result.code == code, f"exit {result.code}\n{result.out}\n{result.err}"
        return result.json


@contextmanager
def started(arguments: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen]:
    """Lend a process that may be interrupted, and that is killed if the test fails."""
    interruptible = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(arguments, **interruptible, **settings) as process:
        try:
            yield process
        finally:
            process.kill()


def variables_of(urls: DatabaseUrls) -> dict[str, str]:
    """Return the variables that lead to a database."""
    return {
        "KB_DATABASE_URL": urls.writer,
        "KB_READ_DATABASE_URL": urls.reader,
        "KB_CALLER_DATABASE_URL": urls.caller,
        "KB_ARCHIVE_DATABASE_URL": urls.archiver,
        "KB_MIGRATION_DATABASE_URL": urls.migrator,
        "KB_BACKUP_DATABASE_URL": urls.backup,
        "KB_DAGSTER_DATABASE_URL": urls.dagster,
    }


def write(folder: Path, **documents: str) -> None:
    """Write Markdown documents; two underscores stand for a folder."""
    for name, text in documents.items():
        path = folder / f"{name.replace('__', '/')}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
