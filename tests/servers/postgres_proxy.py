"""A proxy in front of PostgreSQL that loses a COMMIT, or the answer to it."""

import re
import select
import socket
import threading
import time
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingUnixStreamServer
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

Fault = Literal[
    "refuse",  # the connection breaks, and the server does not hear of the COMMIT
    "lose",  # the server commits, and the connection breaks before the answer
    "overtake",  # the connection breaks at once, and the server commits a moment later
]

COMMIT = b"Q\0\0\0\x0bCOMMIT\0"
_CHUNK_BYTES = 1 << 20


class PostgresProxy:
    """The proxy; a fault is used up by one COMMIT.

    Args:
        url: The server's, with the folder of its socket.
        folder: Where the proxy's own socket goes; its path must be short.
        delay_seconds: How much later the server commits when it is overtaken.
    """

    def __init__(self, url: str, folder: Path, delay_seconds: float = 0.4) -> None:
        parts = urlsplit(url)
        self.upstream = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self.url = parts._replace(query=f"host={quote(str(folder), safe='/')}&port=5432").geturl()
        self.delay_seconds = delay_seconds
        self._armed: tuple[bytes, Fault] | None = None
        self._lock = threading.Lock()
        self._server = _Server(str(folder / ".s.PGSQL.5432"), _handler(self))

    def __enter__(self) -> "PostgresProxy":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def arm(self, marker: bytes, fault: Fault) -> None:
        """Let the COMMIT go wrong of the next transaction in which a client says something."""
        self._armed = (marker, fault)

    @property
    def is_armed(self) -> bool:
        return self._armed is not None

    def fault_for(self, said: bytes) -> Fault | None:
        """Return what goes wrong with a COMMIT, by what was said since the last one."""
        with self._lock:
            if self._armed is None or self._armed[0] not in said:
                return None
            fault, self._armed = self._armed[1], None
            return fault

    def serve(self, client: socket.socket) -> None:
        """Hand everything on, in both directions, until one side is gone or a fault is due."""
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(self.upstream)
            said = b""
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    content = ready.recv(_CHUNK_BYTES)
                    if not content:
                        return
                    if ready is server:
                        client.sendall(content)
                        continue
                    said += content
                    if content.endswith(COMMIT):
                        if fault := self.fault_for(said):
                            self._go_wrong(fault, client, server)
                            return
                        said = b""
                    server.sendall(content)

    def _go_wrong(self, fault: Fault, client: socket.socket, server: socket.socket) -> None:
        if fault == "overtake":
            client.shutdown(socket.SHUT_RDWR)
            time.sleep(self.delay_seconds)
        if fault != "refuse":
            server.sendall(COMMIT)
            answer = server.recv(_CHUNK_BYTES)
            assert re.match(rb"C....COMMIT\0", answer, re.DOTALL), answer


def _handler(proxy: PostgresProxy) -> type[BaseRequestHandler]:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            proxy.serve(self.request)

    return Handler


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are part of the tests."""
