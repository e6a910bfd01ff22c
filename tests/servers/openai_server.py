"""A server that speaks OpenAI's embeddings protocol, and fails as it is told to.

Its vectors are a pure function of the text (`expected_vector`), so that a test can
tell whether what was stored belongs to its text. In a test::

    with OpenAIServer() as server:
        server.script(Fault(status=500), Fault(reorder=True))

or as a process of its own, whose log outlives a `kill -9` of whoever talks to it::

    python -m tests.servers.openai_server --port-file F --log-file L --delay-seconds 0.2
"""

import argparse
import json
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.servers.openai_bodies import (
    Fault,
    answer_body,
    error_body,
    expected_vector,
    texts_of,
    token_count,
)

__all__ = ["Fault", "OpenAIServer", "Request", "expected_vector", "read_log", "token_count"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was received; `answered` if its texts were embedded."""

    number: int
    time: float
    texts: tuple[str, ...]
    body: dict[str, Any]
    headers: dict[str, str]
    answered: bool


class OpenAIServer:
    """The server. Attributes may be changed while it runs.

    Attributes:
        expected_key: What the bearer must be; None accepts any.
        refused_texts: A batch with one of them is refused with 400.
        max_text_tokens: A batch with a longer text is refused with 400.
        quota_tokens: After so many tokens every request is refused with 429.
        known_models: Other models are refused with 404; None knows all.
        always: The fault of every request that the script has none for.
        float_only: Answer with lists even where base64 was asked for.
        refuse_base64: Refuse base64 with 400.
        dimensions: Length of the vectors of models that are not in `DIMENSIONS`.
    """

    def __init__(self, *, delay_seconds: float = 0.0, log_file: Path | None = None) -> None:
        self.expected_key: str | None = None
        self.refused_texts: set[str] = set()
        self.max_text_tokens = 8192
        self.quota_tokens: int | None = None
        self.known_models: set[str] | None = None
        self.always = Fault(delay_seconds=delay_seconds)
        self.float_only = False
        self.refuse_base64 = False
        self.dimensions = 64
        self.most_at_once = 0
        self._at_once = 0
        self._tokens = 0
        self._requests: dict[int, Request] = {}
        self._script: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._log = log_file.open("a", encoding="utf-8") if log_file else None
        self._http = _HttpServer(("127.0.0.1", 0), _handler(self))

    def __enter__(self) -> "OpenAIServer":
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def serve_forever(self) -> None:
        self._http.serve_forever()

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in order of arrival."""
        with self._lock:
            return [self._requests[number] for number in sorted(self._requests)]

    @property
    def answered_texts(self) -> list[str]:
        """Every text that was embedded, and so paid for, once for each time."""
        return [text for request in self.requests if request.answered for text in request.texts]

    def script(self, *faults: Fault) -> None:
        """Let the next requests go wrong, one fault each, in order of arrival."""
        self._script.extend(faults)

    def received(self, body: dict[str, Any], headers: dict[str, str]) -> tuple[Request, Fault]:
        texts = texts_of(body)
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            number = len(self._requests)
            request = Request(number, time.time(), texts, body, headers, answered=False)
            self._requests[number] = request
            self._write({"event": "received", "number": number, "texts": texts})
            return request, self._script.popleft() if self._script else self.always

    def finished(self) -> None:
        with self._lock:
            self._at_once -= 1

    def mark_answered(self, request: Request) -> None:
        with self._lock:
            self._requests[request.number] = replace(request, answered=True)
            self._tokens += sum(map(token_count, request.texts))
            self._write({"event": "answered", "number": request.number})

    def standing_fault(self, request: Request) -> Fault | None:
        """Return what is wrong with a request, as the real server would see it."""
        model = request.body.get("model")
        if self.expected_key not in (None, request.headers.get("authorization", "")[7:]):
            said = f"Incorrect API key provided: {request.headers.get('authorization')}."
            return Fault(status=401, code="invalid_api_key", message=said)
        if self.known_models is not None and model not in self.known_models:
            said = f"The model `{model}` does not exist or you do not have access to it."
            return Fault(status=404, code="model_not_found", message=said)
        if self.quota_tokens is not None and self._tokens >= self.quota_tokens:
            return Fault(status=429, code="insufficient_quota", message="You exceeded your quota.")
        if self.refuse_base64 and request.body.get("encoding_format") == "base64":
            return Fault(status=400, param="encoding_format", message="Only float is supported.")
        if max(map(token_count, request.texts), default=0) > self.max_text_tokens:
            said = f"Invalid 'input': maximum context length is {self.max_text_tokens} tokens."
            return Fault(status=400, message=said)
        if self.refused_texts.intersection(request.texts):
            return Fault(status=400, code="content_policy_violation", message="flagged")
        return None

    def _write(self, event: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.write(json.dumps({**event, "time": time.time()}) + "\n")
            self._log.flush()


def read_log(file: Path) -> list[Request]:
    """Return the requests that a server process has logged; a line being written is left out."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    answered = {event["number"] for event in events if event["event"] == "answered"}
    return [
        Request(
            event["number"],
            event["time"],
            tuple(event["texts"]),
            {},
            {},
            answered=event["number"] in answered,
        )
        for event in events
        if event["event"] == "received"
    ]


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of the tests."""


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request, fault = server.received(body, headers)
            try:
                self._answer(request, fault)
            finally:
                server.finished()

        def _answer(self, request: Request, fault: Fault) -> None:
            time.sleep(fault.delay_seconds)
            if fault.reset == "before":
                return self._reset()
            refused = fault if fault.status != 200 else server.standing_fault(request)
            if refused is not None:
                return self._send(refused.status, error_body(refused), refused)
            server.mark_answered(request)
            if fault.reset == "after":
                return self._reset()
            if fault.error_body:
                return self._send(200, error_body(fault), fault)
            as_list = server.float_only or request.body.get("encoding_format") != "base64"
            answer = answer_body(request.body, fault, server.dimensions, as_list)
            return self._send(200, answer, fault)

        def _send(self, status: int, body: dict[str, Any], fault: Fault) -> None:
            content = json.dumps(body).encode()
            content = content[: len(content) // 2] if fault.truncate else content
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def _reset(self) -> None:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler


def main() -> None:
    """Serve until killed; the port file appears, whole, once requests are answered."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--log-file", type=Path, required=True)
    parser.add_argument("--delay-seconds", type=float, default=0.0)
    parser.add_argument("--expected-key")
    parser.add_argument("--refuse-text", action="append", default=[])
    parser.add_argument("--script", default="[]", help="a JSON list of faults")
    options = parser.parse_args()
    server = OpenAIServer(delay_seconds=options.delay_seconds, log_file=options.log_file)
    server.expected_key = options.expected_key
    server.refused_texts = set(options.refuse_text)
    server.script(*(Fault(**fault) for fault in json.loads(options.script)))
    draft = options.port_file.with_suffix(".draft")
    draft.write_text(str(server.port), encoding="utf-8")
    draft.replace(options.port_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
