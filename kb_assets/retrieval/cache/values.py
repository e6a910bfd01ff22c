"""Cached values as bytes, and back; what cannot be read counts as not there."""

from pydantic import TypeAdapter, ValidationError

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
