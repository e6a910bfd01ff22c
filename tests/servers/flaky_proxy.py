"""A proxy in front of a store that speaks HTTP: it hands everything on, or goes wrong as told."""

import http.client
import threading
from collections import deque
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.servers.scripted import Exchange

Fault = Literal[
    "refuse",  # the connection breaks before the store hears of the request
    "lose",  # the store does what it was asked, and the connection breaks before the answer
    "fail",  # 500, and the store does not hear of the request
    "lose_and_fail",  # the store does what it was asked, and the answer is 500
    "too_slow",  # 400, as S3 says it to a client that was too slow to send
    "unsupported",  # 501 if a condition is set, as of a store that knows no conditional puts
    "error_body",  # 200 with an error in the body; the store does not hear of the request
    "cut",  # the answer's body breaks off in the middle
    "shorten",  # the answer's body has only its first half, and its length says so
    "flip",  # one bit in the middle of the answer's body is another
]
_STATUS = {
    "fail": 500,
    "lose_and_fail": 500,
    "too_slow": 400,
    "unsupported": 501,
    "error_body": 200,
}
_CODE = {"unsupported": "NotImplemented", "too_slow": "RequestTimeout"}
_LENGTH = "content-length"
_NOT_HANDED_ON = frozenset(("connection", "transfer-encoding", _LENGTH, "keep-alive"))

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, and the status it was answered with; 0 if the connection broke instead."""

    method: str
    path: str
    status: int


class FlakyProxy:
    """The proxy; each fault is used up by one request of its method.

    Attributes:
        seen: Every request so far, in the order in which they were answered.
    """

    def __init__(self, upstream: str) -> None:
        self.seen: list[Seen] = []
        self._upstream = urlsplit(upstream).netloc
        self._script: list[tuple[str, deque[Fault | None]]] = []
        self._lock = threading.Lock()
        self._http = _HttpServer(("127.0.0.1", 0), _handler(self))

    def __enter__(self) -> "FlakyProxy":
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def script(self, method: str, *faults: Fault | None) -> None:
        """Let the next requests of a method go wrong, one fault each; None is no fault."""
        with self._lock:
            self._script.append((method, deque(faults)))

    def forget(self) -> None:
        """Let nothing more go wrong."""
        with self._lock:
            self._script.clear()

    def count(self, method: str) -> int:
        """How many requests of a method came."""
        return sum(request.method == method for request in self.seen)

    def handle(self, exchange: Exchange) -> None:
        body = exchange.rfile.read(int(exchange.headers.get("content-length", 0)))
        fault = self._next(exchange.command)
        if fault == "refuse":
            return self._break_off(exchange)
        if fault == "unsupported" and "if-none-match" not in exchange.headers:
            fault = None
        if fault in ("fail", "too_slow", "unsupported", "error_body"):
            return self._say(exchange, fault)
        status, headers, content = self._ask(exchange, body)
        if fault == "lose":
            return self._break_off(exchange)
        if fault == "lose_and_fail":
            return self._say(exchange, fault)
        return self._hand_on(exchange, status, headers, content, fault)

    def _hand_on(
        self, exchange: Exchange, status: int, headers: Headers, content: bytes, fault: Fault | None
    ) -> None:
        middle = len(content) // 2
        if fault == "shorten":
            content = content[:middle]
        elif fault == "flip":
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        self.seen.append(Seen(exchange.command, exchange.path, status))
        exchange.send_response_only(status)
        is_head = exchange.command == "HEAD"
        for name, value in headers:
            if name.lower() not in _NOT_HANDED_ON or (is_head and name.lower() == _LENGTH):
                exchange.send_header(name, value)
        if not is_head and status != 204:
            exchange.send_header(_LENGTH, str(len(content)))
        exchange.end_headers()
        exchange.wfile.write(content[:middle] if fault == "cut" else content)
        if fault == "cut":
            exchange.close_connection = True

    def _next(self, method: str) -> Fault | None:
        with self._lock:
            for wanted, faults in self._script:
                if wanted == method and faults:
                    return faults.popleft()
        return None

    def _ask(self, exchange: Exchange, body: bytes) -> tuple[int, Headers, bytes]:
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            connection.putrequest(exchange.command, exchange.path, True, True)
            # The client signed the address it knows, so it is not replaced.
            for name, value in exchange.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _break_off(self, exchange: Exchange) -> None:
        self.seen.append(Seen(exchange.command, exchange.path, 0))
        exchange.reset()

    def _say(self, exchange: Exchange, fault: Fault) -> None:
        self.seen.append(Seen(exchange.command, exchange.path, _STATUS[fault]))
        code = _CODE.get(fault, "InternalError")
        exchange.send(
            _STATUS[fault],
            f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>scripted</Message></Error>",
            {"etag": '"scripted"', "connection": "close"},
        )
        exchange.close_connection = True


def _handler(proxy: FlakyProxy) -> type[Exchange]:
    class Handler(Exchange):
        def _handle(self) -> None:
            proxy.handle(self)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    return Handler


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of the tests."""
