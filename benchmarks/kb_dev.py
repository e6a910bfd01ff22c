"""How long `kb dev` takes until its UI can be used, and what it needs while nothing is done.

python -m benchmarks.kb_dev [--rounds N]
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.components import seconds
from benchmarks.record import Row, record

ROUNDS = 3
MOST_SECONDS = 15.0
MOST_BYTES = 900_000_000
MOST_LOADING_SECONDS = 3.0

SETTLE_SECONDS = 20.0
"""By then the daemon has ticked, and whatever was only needed for the start has ended."""

PATIENCE_SECONDS = 120.0

_LOADED = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"


@dataclass(slots=True)
class Measured:
    """What the rounds came to."""

    usable: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    by_program: dict[str, int] = field(default_factory=dict)


@contextmanager
def knowledge_base() -> Iterator[Path]:
    """The folder of a knowledge base that has a database, as after `kb index`."""
    folder = Path(tempfile.mkdtemp(prefix="kb-dev-"))
    folder.chmod(0o755)  # As root, the server runs as another account.
    try:
        run = [sys.executable, "-m", "kb_assets.cli"]
        for arguments in (["init"], ["index"]):
            (folder / "documents").mkdir(exist_ok=True)
            (folder / "documents" / "tides.md").write_text("# Tides\n\nTwice a day.\n")
            subprocess.run([*run, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path, into: Measured) -> None:
    """Start `kb dev`, look at it, and stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "kb_assets.cli", "dev", "--port", str(port)]
    before = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_usable(process, port)
            into.usable.append(time.perf_counter() - before)
            time.sleep(SETTLE_SECONDS)
            sizes = dict(_sizes(process.pid, folder))
            into.bytes.append(sum(sizes.values()))
            into.by_program = sizes
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def load(folder: Path) -> None:
    """Load the definitions in a new process, as a code server does."""
    command = [sys.executable, "-c", "import kb_assets.definitions"]
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})


def _wait_until_usable(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Wait until the UI answers that it knows the definitions."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            told = _graphql(port, _LOADED)["workspaceOrError"]["locationEntries"]
            if told and all(one["loadStatus"] == "LOADED" for one in told):
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"The UI did not answer within {PATIENCE_SECONDS:.0f} s, or `kb dev` ended.")


def _graphql(port: int, query: str) -> Any:  # noqa: ANN401
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def _sizes(parent: int, folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the memory of each program, shared pages in shares, with PostgreSQL as one."""
    started = psutil.Process(parent)
    family = [started, *started.children(recursive=True)]
    family += [
        one
        for server in psutil.process_iter(["cmdline"])
        if str(folder / ".kb") in " ".join(server.info["cmdline"] or []) and server not in family
        for one in (server, *server.children(recursive=True))
    ]
    found: dict[str, int] = {}
    for one in set(family):
        name = _name(one.cmdline())
        found[name] = found.get(name, 0) + _share(one.pid)
    yield from sorted(found.items(), key=lambda size: -size[1])


def _name(command: list[str]) -> str:
    words = " ".join(command)
    known = ("kb_assets.cli dev", "dagster_webserver", "dagster._daemon", "code-server", "api grpc")
    return next((name for name in known if name in words), command[0].split()[0].split("/")[-1])


def _share(pid: int) -> int:
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in told.splitlines() if line[:4] == "Pss:")


def rows(measured: Measured) -> Iterator[Row]:
    """Yield the claims."""
    usable, loading = statistics.median(measured.usable), statistics.median(measured.loading)
    most = max(measured.bytes)
    yield Row(
        name="`kb dev` until its UI can be used",
        measured=f"{usable:.1f} s",
        target=f"≤ {MOST_SECONDS:.0f} s",
        met=usable <= MOST_SECONDS,
        detail=f"of {len(measured.usable)} starts: "
        + ", ".join(f"{one:.1f} s" for one in measured.usable),
    )
    yield Row(
        name="memory of `kb dev` while nothing is done, PostgreSQL included",
        measured=f"{most / 1e6:.0f} MB",
        target=f"≤ {MOST_BYTES / 1e6:.0f} MB",
        met=most <= MOST_BYTES,
        detail=", ".join(f"{name} {size / 1e6:.0f}" for name, size in measured.by_program.items()),
    )
    yield Row(
        name="loading the code location in a new process",
        measured=f"{loading:.1f} s",
        target=f"≤ {MOST_LOADING_SECONDS:.0f} s",
        met=loading <= MOST_LOADING_SECONDS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    measured = Measured()
    with knowledge_base() as folder:
        for _ in range(rounds):
            measured.loading.append(seconds(lambda: load(folder)))
            measure(folder, measured)
    record("kb_dev", "kb dev", list(rows(measured)))


if __name__ == "__main__":
    main()
