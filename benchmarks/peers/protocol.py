"""How the benchmark talks with contestants: JSON lines to a process that lives for a round.

Each contestant is a process of its own, in its own environment, and imports nothing but this,
the embedder and its library. It is opened and used once on an empty folder before anything is
timed, so that imports, connections and tables are not in the numbers.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.embedding import EMBEDDER

Texts = dict[str, set[str]]
"""The texts of the chunks of each document, by its path relative to the folder."""

CHUNK_CHARACTERS = 1000
BATCH_TEXTS = 1000
PATIENCE_SECONDS = 1800.0


_ANSWERS = "KB_BENCHMARK_ANSWERS"
"""The variable that says where answers go: libraries print, some while they are imported."""


_QUIET = {"COCOINDEX_DISABLE_USAGE_TRACKING": "1", "LANGSMITH_TRACING": "false"}
"""Nobody reports to its makers while it is measured."""


class Contestant:
    """What is measured."""

    def open(self, folder: Path, home: Path, url: str) -> None:
        """Import, connect, create.

        Args:
            folder: The Markdown files; empty now.
            home: For files of one's own; empty now.
            url: A database of one's own, as its owner; pgvector is installed in it.
        """
        raise NotImplementedError

    def index(self) -> dict[str, float]:
        """Make the index what the folder says; return seconds of parts, if they are known."""
        raise NotImplementedError

    def stored(self) -> Texts:
        """Return what the index holds."""
        raise NotImplementedError

    def wanted(self) -> Texts:
        """Return what it should hold: every file, split anew."""
        raise NotImplementedError

    def flaw(self) -> str:
        """Return what else is wrong."""
        return ""


def markdown_files(folder: Path) -> list[str]:
    """Return the paths of a folder's Markdown files, relative to it."""
    return [
        os.path.relpath(os.path.join(parent, name), folder)  # noqa: PTH118 - ten times as fast
        for parent, _, names in os.walk(folder)
        for name in names
        if name.endswith(".md")
    ]


def serve(contestant: Contestant) -> None:
    """Answer the benchmark until it closes the pipe."""
    answers = os.fdopen(int(os.environ[_ANSWERS]), "w")
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "open": lambda **where: _open(contestant, **where),
        "index": lambda: _index(contestant),
        "check": lambda: _check(contestant),
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = actions[request.pop("do")](**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[:1]}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


def _open(contestant: Contestant, folder: str, home: str, url: str) -> dict[str, Any]:
    contestant.open(Path(folder), Path(home), url)
    contestant.index()
    return {}


def _index(contestant: Contestant) -> dict[str, Any]:
    cpu, started = _cpu_seconds(), time.perf_counter()
    parts = contestant.index()
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": _cpu_seconds() - cpu,
        "parts": parts,
    }


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _check(contestant: Contestant) -> dict[str, Any]:
    texts_embedded, texts_new = EMBEDDER.count()
    stored, wanted = (
        {path: texts for path, texts in found.items() if texts}
        for found in (contestant.stored(), contestant.wanted())
    )
    return {
        "texts_embedded": texts_embedded,
        "texts_new": texts_new,
        "chunk_texts": sum(map(len, stored.values())),
        "distinct_texts": len(set().union(*stored.values())),
        "flaw": _difference(stored, wanted) or contestant.flaw(),
    }


def _difference(stored: Texts, wanted: Texts) -> str:
    if missing := wanted.keys() - stored.keys():
        return f"{len(missing)} documents are missing, such as {min(missing)}"
    if stale := stored.keys() - wanted.keys():
        return f"{len(stale)} documents should be gone, such as {min(stale)}"
    if wrong := [path for path, texts in wanted.items() if stored[path] != texts]:
        return f"{len(wrong)} documents have other chunks than their files, such as {min(wrong)}"
    return ""


class ContestantFailedError(Exception):
    """A contestant raised, died or hung."""


class Remote:
    """A contestant from the benchmark's side."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        answers, theirs = os.pipe()
        self._answers = os.fdopen(answers)
        with log.open("ab") as printed:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                text=True,
                cwd=Path(__file__).parents[2],
                pass_fds=[theirs],
                env=os.environ | _QUIET | {_ANSWERS: str(theirs)},
            )
        os.close(theirs)

    def ask(self, do: str, **details: str) -> dict[str, Any]:
        """Have something done and return the answer.

        Raises:
            ContestantFailedError: It was not done.
        """
        assert self._process.stdin is not None
        alarm = threading.Timer(PATIENCE_SECONDS, self._process.kill)
        alarm.start()
        try:
            print(json.dumps({"do": do} | details), file=self._process.stdin, flush=True)
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        finally:
            alarm.cancel()
        if not line:
            raise ContestantFailedError("its process died, or took longer than half an hour")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContestantFailedError(answer["error"])
        return answer

    def close(self) -> None:
        """Let it end, or end it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
