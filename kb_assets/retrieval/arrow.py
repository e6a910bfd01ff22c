"""Hits as an Arrow table, for DuckDB, Polars and pandas."""

import json
from collections.abc import Sequence

import pyarrow

from kb_assets.retrieval.hits import Hit

SCHEMA = pyarrow.schema(
    [
        pyarrow.field("rank", pyarrow.int32(), nullable=False),
        pyarrow.field("score", pyarrow.float64(), nullable=False),
        pyarrow.field("source", pyarrow.string(), nullable=False),
        pyarrow.field("path", pyarrow.string(), nullable=False),
        pyarrow.field("title", pyarrow.string()),
        pyarrow.field("heading_path", pyarrow.list_(pyarrow.string()), nullable=False),
        pyarrow.field("text", pyarrow.string(), nullable=False),
        pyarrow.field("byte_start", pyarrow.int64(), nullable=False),
        pyarrow.field("byte_end", pyarrow.int64(), nullable=False),
        pyarrow.field("tags", pyarrow.list_(pyarrow.string()), nullable=False),
        pyarrow.field("metadata", pyarrow.string(), nullable=False),
        pyarrow.field("revision_id", pyarrow.int64(), nullable=False),
        pyarrow.field("ordinal", pyarrow.int32(), nullable=False),
        pyarrow.field("last_ordinal", pyarrow.int32(), nullable=False),
        pyarrow.field("vector_score", pyarrow.float64()),
        pyarrow.field("lexical_score", pyarrow.float64()),
        pyarrow.field("fused_score", pyarrow.float64()),
        pyarrow.field("rerank_score", pyarrow.float64()),
    ]
)


def table_of(hits: Sequence[Hit]) -> pyarrow.Table:
    """Return hits as a table, a row each, in order; metadata as JSON text."""
    columns = {
        name: [getattr(hit, name) for hit in hits]
        for name in SCHEMA.names
        if name not in ("rank", "metadata")
    }
    columns["rank"] = list(range(1, len(hits) + 1))
    columns["metadata"] = [json.dumps(hit.metadata, ensure_ascii=False) for hit in hits]
    return pyarrow.table(columns, schema=SCHEMA)
