"""Dagster on many machines as docs/celery.md sets it up; here each machine is a process or two.

A code server, a daemon and workers, with `deploy/celery/dagster.yaml` and a real Redis. Each has a
log beside kb.toml, and can be killed with all its processes.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LOAD = """
mutation Load($wanted: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $wanted) { __typename }
}
"""
STOP = """
mutation Stop($run: String!) { terminateRun(runId: $run) { __typename } }
"""
SHARD_ASSETS = ("raw_documents", "document_chunks", "chunk_embeddings", "published_documents")


def wait_until(reached: Callable[[], bool], seconds: float, what: str, pause: float = 0.05) -> None:
    """Wait for something that must happen."""
    give_up = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        time.sleep(pause)


class Member:
    """A process and those it starts."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.log = folder / f"{command[0]}-{len(list(folder.glob('*.log')))}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, words: str, seconds: float = 90.0) -> None:
        """Wait until it says something."""
        wait_until(lambda: words in self.said or self.is_over, seconds, f"{words} in {self.log}")
        assert words in self.said, self.said[-4000:]

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        """Let it end as when the power of its machine fails."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()


class CeleryCluster:
    """All processes of one installation; `folder` has its kb.toml.

    Args:
        folder: Where kb.toml is.
        variables: Where the databases are.
        broker_url: Where Redis is.
    """

    def __init__(self, folder: Path, variables: dict[str, str], broker_url: str) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KB_", "DAGSTER_"))
        }
        self.environment = {
            **kept,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "DAGSTER_HOME": str(folder),
            "DAGSTER_EVENT_BATCH_SIZE": "100",
            "KB_EXECUTION": "cluster",
            "KB_CELERY_BROKER_URL": broker_url,
            **variables,
        }
        self._members: list[Member] = []
        shutil.copy(REPOSITORY / "deploy/celery/dagster.yaml", folder)
        self.configure("run_monitoring", poll_interval_seconds=2)

    def __enter__(self) -> "CeleryCluster":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        place = {"host": "127.0.0.1", "port": port, "location_name": "kb_assets"}
        (self.folder / "workspace.yaml").write_text(
            yaml.safe_dump({"load_from": [{"grpc_server": place}]})
        )
        served = ("--host", "127.0.0.1", "--port", str(port))
        self.code_server = self._start(
            "dagster", "code-server", "start", *served, "-m", "kb_assets.definitions"
        )
        return self

    def __exit__(self, *error: object) -> None:
        for member in self._members:
            member.kill()

    def configure(self, section: str, **values: object) -> None:
        """Change what dagster.yaml says."""
        file = self.folder / "dagster.yaml"
        config = yaml.safe_load(file.read_text())
        config[section] |= values
        file.write_text(yaml.safe_dump(config))

    def wait_for_code(self) -> None:
        """Wait until definitions are served."""
        self.code_server.wait_for("Started Dagster code")

    def start_daemon(self) -> Member:
        return self._start("dagster-daemon", "run", "--workspace", "workspace.yaml")

    def start_worker(self, name: str) -> Member:
        """Start a worker that has one run at a time; it is no other machine, so it has a name."""
        options = ("--concurrency", "1", "--loglevel", "INFO", "--hostname", f"{name}@%h")
        return self._start("celery", "--app", "kb_assets.defs.celery_worker", "worker", *options)

    def load_all(self, shards: Sequence[str]) -> None:
        """Do what the UI's "Materialize all" does."""
        wanted = {
            "assetSelection": [{"path": [name]} for name in SHARD_ASSETS],
            "partitionNames": list(shards),
        }
        assert self.ask(LOAD, wanted=wanted) == "LaunchBackfillSuccess"

    def stop(self, run_id: str) -> None:
        """Do what the UI's "Terminate" does."""
        assert self.ask(STOP, run=run_id) == "TerminateRunSuccess"

    def ask(self, document: str, **variables: object) -> str:
        """Ask of Dagster what the UI asks; returns the kind of its answer."""
        command = (str(BIN / "dagster-graphql"), "--workspace", "workspace.yaml")
        answer = self.folder / "answer.json"
        options = ("--variables", json.dumps(variables), "--output", str(answer))
        done = subprocess.run(
            [*command, "--text", document, *options],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        (found,) = json.loads(answer.read_text())["data"].values()
        return str(found["__typename"])

    def _start(self, *command: str) -> Member:
        member = Member(command, self.folder, self.environment)
        self._members.append(member)
        return member
