"""From the JSON of an embeddings answer to rows: nothing in it is taken on trust.

Results are matched by their `index`, never by their place. The package's own
parser is passed by: it turns each number into a Python object, and lets an error
body or a missing row through.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from kb_assets.embeddings.embedder import Answer, Vectors
from kb_assets.errors import ProviderUnavailableError, TextRefusedError

_Row = numpy.typing.NDArray[numpy.float32]


class MalformedAnswerError(ProviderUnavailableError):
    """The answer is not what the protocol says; asking again may help."""


def read_json(content: bytes, key: str) -> Mapping[str, Any]:
    """Return the JSON object of an answer with status 200.

    Args:
        content: The body as it came.
        key: The key that was sent; it is taken out of what the error repeats.

    Raises:
        MalformedAnswerError: It is cut off, is not JSON, or is an error in disguise.
    """
    try:
        body = json.loads(content)
    except ValueError:
        raise _malformed(f"its {len(content)} bytes are not JSON") from None
    if isinstance(body, dict) and isinstance(body.get("data"), list):
        return body
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    said = str(message or "").replace(key, "***")
    raise _malformed(f"it says {said!r}" if said else "there is no data in it")


def answer_of(body: Mapping[str, Any], texts: int, dimensions: int) -> Answer:
    """Return one row for each text, in the order of the texts.

    A row that is missing from the answer, or whose length is not that of the
    others, is filled with NaN: the check that follows asks for it again, and
    keeps the rest. Rows that all have the wrong length are returned as they are.

    Args:
        body: The answer's JSON object.
        texts: How many texts were sent.
        dimensions: The length that was promised.

    Raises:
        MalformedAnswerError: A result has no index or no vector.
        TextRefusedError: There are more results than texts, or two for one text
            (`wrong_count`): none of them can be trusted to be in its place.
    """
    rows: dict[int, _Row] = {}
    for result in body["data"]:
        index, row = _result(result)
        if index in rows or not 0 <= index < texts:
            raise _wrong_count(texts, len(body["data"]))
        rows[index] = row
    return Answer(_matrix(rows, texts, dimensions), _tokens(body))


def _matrix(rows: Mapping[int, _Row], texts: int, dimensions: int) -> Vectors:
    lengths = {len(row) for row in rows.values()}
    width = lengths.pop() if len(lengths) == 1 else dimensions
    vectors = numpy.full((texts, width), numpy.nan, dtype=numpy.float32)
    for index, row in rows.items():
        if len(row) == width:
            vectors[index] = row
    return vectors


def _result(result: object) -> tuple[int, _Row]:
    index = result.get("index") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(index, int):
        raise _malformed("a result in it has no index")
    return index, _row(result.get("embedding"))


def _row(embedding: object) -> _Row:
    """Return a vector from base64 or, for servers that ignore what was asked, from a list."""
    try:
        if isinstance(embedding, str):
            raw = numpy.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
            return raw.astype(numpy.float32)
        if isinstance(embedding, Sequence):
            with numpy.errstate(over="ignore"):
                return numpy.array(embedding, dtype=numpy.float32).reshape(-1)
    except (ValueError, TypeError, binascii.Error):
        pass
    raise _malformed("a result in it has no vector")


def _tokens(body: Mapping[str, Any]) -> int:
    usage = body.get("usage")
    tokens = usage.get("total_tokens", usage.get("prompt_tokens")) if isinstance(usage, dict) else 0
    return tokens if isinstance(tokens, int) else 0


def _malformed(why: str) -> MalformedAnswerError:
    return MalformedAnswerError(
        "The embedding provider gave an answer that cannot be used.",
        why=f"Its status was 200, but {why[:300]}.",
        fix="Try again; if it stays so, the server does not speak the OpenAI protocol.",
    )


def _wrong_count(texts: int, results: int) -> TextRefusedError:
    return TextRefusedError(
        "wrong_count",
        f"The embedding provider answered {texts} texts with {results} results.",
        why="It is not known which vector belongs to which text.",
        fix="Ask the provider's operator; `kb index` tries again when the text changes.",
    )
