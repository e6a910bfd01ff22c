"""What test servers share: a socket, what was asked of them, and faults in a queue."""

import json
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Generic, TypeVar

Fault = TypeVar("Fault")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was received."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


class ScriptedServer(Generic[Fault]):
    """Answers POST requests of JSON; each fault is used up by one request.

    Attributes:
        requests: Every request so far.
        always: The fault of every request that the script has none for.
        expected_key: What the bearer must be; None accepts any.
    """

    def __init__(self, fault: Fault) -> None:
        self.requests: list[Request] = []
        self.always = fault
        self.expected_key: str | None = None
        self._script: deque[Fault] = deque()
        self._http = _HttpServer(("127.0.0.1", 0), _handler(self))

    def __enter__(self) -> Any:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def script(self, *faults: Fault) -> None:
        """Let the next requests go wrong, one fault each, in order of arrival."""
        self._script.extend(faults)

    def answer(self, exchange: "Exchange", request: Request, fault: Fault) -> None:
        """Answer one request."""
        raise NotImplementedError

    def received(self, exchange: "Exchange", request: Request) -> None:
        self.requests.append(request)
        fault = self._script.popleft() if self._script else self.always
        bearer = request.headers.get("authorization", "")
        if self.expected_key is not None and bearer != f"Bearer {self.expected_key}":
            said = {"error": {"message": f"Incorrect key: {bearer}", "code": "invalid_api_key"}}
            return exchange.send(401, json.dumps(said))
        return self.answer(exchange, request, fault)


class Exchange(BaseHTTPRequestHandler):
    """One connection, and the ways to answer on it."""

    protocol_version = "HTTP/1.1"

    def send(self, status: int, content: str, headers: dict[str, str] | None = None) -> None:
        body = content.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Break the connection off, so that the client sees a reset."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _handler(server: ScriptedServer[Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(Exchange):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.received(self, Request(self.path, body, headers))

    return Handler


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of the tests."""
