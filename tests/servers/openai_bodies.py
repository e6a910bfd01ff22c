"""What the embeddings server answers: vectors that are a function of the text, and faults."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy

DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}


def expected_vector(text: str, dimensions: int) -> numpy.ndarray:
    """Return the vector of a text: float32, length 1, different for every text."""
    raw = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    numbers = numpy.frombuffer(raw, dtype="<i2").astype(numpy.float64) + 0.5
    return (numbers / numpy.sqrt((numbers * numbers).sum())).astype(numpy.float32)


def token_count(text: str) -> int:
    """Return how many tokens the server counts in a text: its words, at least one."""
    return max(1, len(text.split()))


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request; without arguments, nothing.

    `reset` closes the connection without an answer, before or after the texts were
    embedded (and charged). `rows` replaces vectors by place: a list of numbers, or
    `nan`, `inf`, `zero`, `short`.
    """

    status: int = 200
    code: str | None = None
    param: str | None = None
    message: str = "scripted"
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    reset: Literal["", "before", "after"] = ""
    truncate: bool = False
    error_body: bool = False
    reorder: bool = False
    drop: int = 0
    extra: int = 0
    repeat_first: bool = False
    rows: dict[int, str] = field(default_factory=dict)
    dimensions: int = 0
    model: str = ""


def texts_of(sent: dict[str, Any]) -> tuple[str, ...]:
    given = sent.get("input", [])
    return (given,) if isinstance(given, str) else tuple(given)


def error_body(fault: Fault) -> dict[str, Any]:
    kind = "insufficient_quota" if fault.code == "insufficient_quota" else "invalid_request_error"
    error = {"message": fault.message, "type": kind, "param": fault.param, "code": fault.code}
    return {"error": error}


def answer_body(
    sent: dict[str, Any], fault: Fault, own_dimensions: int, as_list: bool
) -> dict[str, Any]:
    model, texts = sent["model"], texts_of(sent)
    asked_for = sent.get("dimensions") or DIMENSIONS.get(model, own_dimensions)
    dimensions = fault.dimensions or asked_for
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, as_list)}
        for index, vector in enumerate(_vectors(texts, dimensions, fault))
    ]
    data = data[: len(data) - fault.drop] + ([data[0]] if fault.repeat_first else [])
    tokens = sum(map(token_count, texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    data = data[::-1] if fault.reorder else data
    return {"object": "list", "data": data, "model": fault.model or model, "usage": usage}


def _vectors(texts: Sequence[str], dimensions: int, fault: Fault) -> list[numpy.ndarray]:
    surplus = [f"surplus {number}" for number in range(fault.extra)]
    vectors = [expected_vector(text, dimensions) for text in (*texts, *surplus)]
    for row, kind in fault.rows.items():
        if row < len(vectors):
            vectors[row] = _spoilt(vectors[row], kind)
    return vectors


def _spoilt(vector: numpy.ndarray, kind: str) -> numpy.ndarray:
    if kind == "short":
        return vector[:-1]
    if kind == "zero":
        return numpy.zeros_like(vector)
    spoilt = vector.copy()
    spoilt[len(spoilt) // 2] = float(kind)
    return spoilt


def _encoded(vector: numpy.ndarray, as_list: bool) -> str | list[float]:
    if as_list:
        return [float(number) for number in vector]
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
