"""Dagster's processes, started by `kb dev` and stopped with all that they started."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import yaml

from kb_assets.errors import PermanentError, SettingsError

if TYPE_CHECKING:
    from kb_assets.knowledge_base import KnowledgeBase

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_PATIENCE_SECONDS = 120.0
"""How long the UI may take until it answers."""

_GRACE_SECONDS = 20.0
"""How long a process may take to end before it is killed."""


class Children:
    """Dagster's processes, each with its own group, so that a whole group can be stopped.

    Attributes:
        logs: The folder of what they say.
    """

    def __init__(self, folder: Path, logs: Path, environment: dict[str, str]) -> None:
        """Remember where they work; nothing is started yet.

        Args:
            folder: The folder of dagster.yaml and workspace.yaml.
            logs: Where their output goes.
            environment: What they are told.
        """
        self.logs = logs
        self._folder = folder
        self._environment = environment
        self._workspace = folder / "workspace.yaml"
        self._sockets: Path | None = None
        self._code: Path | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def beside(cls, kb: "KnowledgeBase") -> "Children":
        """Return the processes that serve a knowledge base.

        Raises:
            SettingsError: dagster.yaml or workspace.yaml is not beside kb.toml.
        """
        folder = kb.settings.root
        for name in ("dagster.yaml", "workspace.yaml"):
            if not (folder / name).is_file():
                raise SettingsError(
                    f"There is no {folder / name}.",
                    why="Dagster reads it; `kb init` writes it.",
                    fix="Run `kb init` in an empty folder and copy it from there.",
                )
        logs = kb.settings.home_folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        scripts = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(folder),
            "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
        }
        return cls(folder, logs, environment)

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start_code_server(self) -> None:
        """Start the server of the definitions, which UI and daemon share.

        Each would start one of its own, and the daemon a new one every minute. A workspace with
        other code beside the knowledge base's is left to them all the same.
        """
        location = _only_module(self._workspace)
        if location is None:
            return
        self._sockets = Path(tempfile.mkdtemp(prefix="kb-dev-"))
        at = self._sockets / "code"
        named = ("-m", location["module_name"], "--location-name", location["location_name"])
        self._start("code", "dagster", "code-server", "start", "--socket", str(at), *named)
        served = {"grpc_server": {"socket": str(at), "location_name": location["location_name"]}}
        self._workspace = self._sockets / "workspace.yaml"
        self._workspace.write_text(json.dumps({"load_from": [served]}), encoding="utf-8")
        self._code = at

    def start_webserver(self, host: str, port: int) -> None:
        """Start Dagster's UI."""
        where = ("-h", host, "-p", str(port), "-w", str(self._workspace))
        self._start_with_code("webserver", "dagster_webserver", *where)

    def start_daemon(self) -> None:
        """Start what runs schedules and sensors."""
        self._start_with_code("daemon", "dagster._daemon", "run", "-w", str(self._workspace))

    def require_free(self, host: str, port: int) -> None:
        """Make sure that nobody listens on a port.

        Raises:
            SettingsError: Somebody does, or the host is not this machine.
        """
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"Nothing can listen on {host}:{port}.",
                why=str(error.strerror or error),
                fix="End what listens there (another `kb dev`?), or choose another --port.",
            ) from error

    def wait_until_it_answers(self, host: str, port: int) -> None:
        """Wait until the UI answers.

        Raises:
            PermanentError: It ended, or took too long.
        """
        near = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
        self._wait("webserver", lambda: _answers(f"http://{near}:{port}/server_info"))

    def require_alive(self) -> None:
        """Make sure that all processes run.

        Raises:
            PermanentError: One has ended; the end of its log is in the error.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                raise self._failed(name, f"It ended with code {process.returncode}.")

    def stop(self) -> None:
        """Ask all to end, and kill what does not."""
        for process in self._running.values():
            _signal(process, signal.SIGINT)
        give_up = time.monotonic() + _GRACE_SECONDS
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, give_up - time.monotonic()))
        for process in self._running.values():
            _signal(process, signal.SIGKILL)
            process.wait()
        self._running.clear()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def _start_with_code(self, name: str, module: str, *arguments: str) -> None:
        if self._code is None:
            self._start(name, module, *arguments)
        else:
            self._start(name, "kb_assets.cli.after", str(self._code), module, *arguments)

    def _start(self, name: str, module: str, *arguments: str) -> None:
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    def _wait(self, name: str, is_there: Callable[[], bool]) -> None:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not is_there():
            self.require_alive()
            if time.monotonic() > give_up:
                raise self._failed(name, f"It did not answer within {_PATIENCE_SECONDS:.0f} s.")
            time.sleep(0.1)

    def _failed(self, name: str, why: str) -> PermanentError:
        log = self.logs / f"{name}.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        return PermanentError(
            f"Dagster's {name} does not run.", why=f"{why}\n{tail}", fix=f"Its log is {log}."
        )


def _only_module(workspace: Path) -> dict[str, str] | None:
    """Return the module a workspace loads, if that is all it does."""
    said = yaml.safe_load(workspace.read_text(encoding="utf-8"))
    match said:
        case {
            "load_from": [{"python_module": {"module_name": module, "location_name": name, **more}}]
        }:
            return None if more else {"module_name": module, "location_name": name}
    return None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _end_with_parent() -> None:
    """Let the kernel end this process when `kb dev` is killed without a chance to do it."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process and all it started, as far as they are still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
