"""Cached values as bytes, and back; what cannot be read counts as not there."""

import numpy
from pydantic import TypeAdapter, ValidationError

from kb_assets.embeddings.embedder import Vectors
from kb_assets.retrieval.hits import Results

_results = TypeAdapter(Results)


def bytes_of_results(results: Results) -> bytes:
    """Return an answer as JSON."""
    return _results.dump_json(results)


def results_of_bytes(value: bytes) -> Results | None:
    """Return the very same answer again, or None if the bytes are not one."""
    try:
        return _results.validate_json(value, strict=True)
    except ValidationError:
        return None


def bytes_of_vector(vector: Vectors) -> bytes:
    """Return a question's vector as little-endian float32."""
    return vector.astype("<f4").tobytes()


def vector_of_bytes(value: bytes, dimensions: int) -> Vectors | None:
    """Return the very same vector again, or None if the bytes are not a usable one."""
    if len(value) != 4 * dimensions:
        return None
    vector: Vectors = numpy.frombuffer(value, dtype="<f4").astype(numpy.float32)
    return vector if numpy.isfinite(vector).all() and vector.any() else None
