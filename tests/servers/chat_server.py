"""A server of OpenAI's chat completions protocol, streamed, that fails as it is told to."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.servers.scripted import Exchange, Request, ScriptedServer

Writer = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class ChatFault:
    """What goes wrong with one request; without arguments, nothing.

    `end` says how the stream ends after its first pieces: as it should (empty), by a reset, by a
    connection that is closed (`close`), with an `error` in the stream, with half a line of JSON
    (`broken`), or by silence that outlasts the client (`silence`).
    """

    status: int = 200
    message: str = "scripted"
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    end: str = ""
    finish_reason: str = "stop"


class ChatServer(ScriptedServer[ChatFault]):
    """The server.

    Attributes:
        write: What the model answers, from the system's and the user's message.
        counts_tokens: Say how many tokens were used if the request asks for that.
        refused: Parameters that are refused with 400, as servers do that do not know them.
    """

    def __init__(self, write: Writer = lambda system, user: "Yes [1].") -> None:
        super().__init__(ChatFault())
        self.write = write
        self.counts_tokens = True
        self.refused: set[str] = set()

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def prompts(self) -> list[tuple[str, str]]:
        """The system's and the user's message of each request."""
        return [_prompt(request) for request in self.requests]

    def answer(self, exchange: Exchange, request: Request, fault: ChatFault) -> None:
        refused = self.refused & request.body.keys()
        if refused:
            name = min(refused)
            other = "; use 'max_completion_tokens' instead" if name == "max_tokens" else ""
            fault = ChatFault(400, f"Unsupported parameter: '{name}'{other}.", param=name)
        if fault.status != 200:
            error = {"message": fault.message, "code": fault.code, "param": fault.param}
            return exchange.send(fault.status, json.dumps({"error": error}), fault.headers)
        return _Stream(exchange).write(self, request, fault)


class _Stream:
    """One answer, piece by piece."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def write(self, server: ChatServer, request: Request, fault: ChatFault) -> None:
        self.exchange.send_response(200)
        self.exchange.send_header("content-type", "text/event-stream")
        self.exchange.send_header("connection", "close")
        self.exchange.end_headers()
        self.exchange.close_connection = True
        text = server.write(*_prompt(request))
        pieces = [text[start : start + 7] for start in range(0, len(text), 7)]
        self._send({"choices": [_choice({"role": "assistant", "content": ""})]})
        for piece in pieces[: max(1, len(pieces) // 2)] if fault.end else pieces:
            self._send({"choices": [_choice({"content": piece})]})
        if fault.end:
            return self._break(fault.end)
        self._send({"choices": [_choice({}, fault.finish_reason)]})
        wants_usage = request.body.get("stream_options", {}).get("include_usage")
        if server.counts_tokens and wants_usage:
            prompt = sum(len(part.split()) for part in _prompt(request))
            written = len(text.split())
            counted = {"prompt_tokens": prompt, "completion_tokens": written}
            self._send({"choices": [], "usage": {**counted, "total_tokens": prompt + written}})
        return self._line("data: [DONE]\n\n")

    def _break(self, how: str) -> None:
        if how == "reset":
            time.sleep(0.2)  # what was sent must arrive before the reset discards it
            self.exchange.reset()
        elif how == "error":
            self._send({"error": {"message": "The engine fell over.", "type": "server_error"}})
        elif how == "broken":
            self._line('data: {"choices": [{"del\n\n')
        elif how == "silence":
            time.sleep(3)

    def _send(self, chunk: dict[str, Any]) -> None:
        whole = {"id": "made-up", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        self._line(f"data: {json.dumps({**whole, **chunk})}\n\n")

    def _line(self, line: str) -> None:
        self.exchange.wfile.write(line.encode())
        self.exchange.wfile.flush()


def _prompt(request: Request) -> tuple[str, str]:
    system, user = request.body["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    return system["content"], user["content"]


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}
