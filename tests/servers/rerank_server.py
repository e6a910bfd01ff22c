"""A reranker that speaks either wire format, and fails as it is told to.

A text's score is what follows `score=` in it, or 0: a test says itself what should come first.
"""

import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from tests.servers.scripted import Exchange, Request, ScriptedServer

COHERE_FIELDS = {"model", "query", "documents", "top_n", "max_tokens_per_doc", "priority"}
TEI_BATCH = 32


@dataclass(frozen=True, slots=True)
class RerankFault:
    """What goes wrong with one request; without arguments, nothing.

    `results` replaces the results by place with something else; None takes one away.
    """

    status: int = 200
    said: str = "scripted"
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0
    reset: bool = False
    truncate: bool = False
    body: str = ""
    results: dict[int, Any] = field(default_factory=dict)


def score_of(text: str) -> float:
    """Return what the server thinks of a text."""
    found = re.search(r"score=([0-9.]+)", text)
    return float(found[1]) if found else 0.0


class RerankServer(ScriptedServer[RerankFault]):
    """The server; best first, as the real ones answer.

    Attributes:
        tei: Speak the format of text-embeddings-inference.
    """

    def __init__(self, *, tei: bool = False) -> None:
        super().__init__(RerankFault())
        self.tei = tei

    def answer(self, exchange: Exchange, request: Request, fault: RerankFault) -> None:
        time.sleep(fault.delay_seconds)
        if fault.reset:
            return exchange.reset()
        if fault.status != 200:
            return exchange.send(fault.status, fault.said, fault.headers)
        if (said := self._refusal(request.body)) is not None:
            return exchange.send(422, said)
        content = fault.body or json.dumps(self._results(request.body, fault))
        if fault.drip_seconds:
            return self._drip(exchange, content, fault.drip_seconds)
        return exchange.send(200, content[: len(content) // 2] if fault.truncate else content)

    def _refusal(self, sent: dict[str, Any]) -> str | None:
        if self.tei:
            if "texts" not in sent:
                return (
                    "Failed to deserialize the JSON body into the target type: "
                    "missing field `texts` at line 1 column 57"
                )
            if len(sent["texts"]) > TEI_BATCH:
                return '{"error": "batch size > maximum allowed batch size 32"}'
        elif unknown := sent.keys() - COHERE_FIELDS:
            return json.dumps({"message": f"unknown field: parameter {unknown} is not valid"})
        return None

    def _results(self, sent: dict[str, Any], fault: RerankFault) -> Any:
        texts = sent["texts"] if self.tei else sent["documents"]
        name = "score" if self.tei else "relevance_score"
        results: list[Any] = [
            {"index": index, name: score_of(text)} for index, text in enumerate(texts)
        ]
        for place, result in fault.results.items():
            results[place] = result
        kept = [result for result in results if result is not None]
        if not fault.results:
            kept.sort(key=lambda result: -result[name])
        return kept if self.tei else {"id": "made-up", "results": kept, "meta": {}}

    def _drip(self, exchange: Exchange, content: str, seconds: float) -> None:
        exchange.send_response(200)
        exchange.send_header("content-length", str(len(content)))
        exchange.end_headers()
        for character in content:
            exchange.wfile.write(character.encode())
            time.sleep(seconds)
