"""What is known of a segment's object, and the manifest that says so beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kb_assets.archive.plan import Window
from kb_assets.archive.relation import Aging

MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What an object must be.

    Attributes:
        object_key: Where it lies below the destination.
        sha256: Its hash.
        object_bytes: Its size.
        rows: How many rows it holds.
        row_hash_sum: The sum of their hashes, 16 bytes.
        conversation_low: The least value of the column that it is sorted by.
        conversation_high: The greatest.
    """

    object_key: str
    sha256: bytes
    object_bytes: int
    rows: int
    row_hash_sum: bytes
    conversation_low: str
    conversation_high: str


@dataclass(frozen=True, slots=True)
class Made:
    """When, where and by whom an object was made.

    Attributes:
        segment: The number of its segment.
        run_id: Who made it.
        server: The version of PostgreSQL.
        schema_revision: The revision of the database's schema.
    """

    segment: int
    run_id: str
    server: str
    schema_revision: str


def manifest_of(
    facts: ObjectFacts, made: Made, window: Window, source: str, aging: Aging
) -> dict[str, Any]:
    """Return a manifest: all one needs to read an object, and to know that it is whole."""
    return {
        "version": MANIFEST_VERSION,
        "segment": made.segment,
        "relation": aging.name,
        "source": source,
        "low": window.low.isoformat(),
        "high": window.high.isoformat(),
        "object": facts.object_key,
        "sha256": facts.sha256.hex(),
        "bytes": facts.object_bytes,
        "rows": facts.rows,
        "row_hash": "sha256 of record_send of the columns in this order",
        "row_hash_sum": facts.row_hash_sum.hex(),
        "columns": [{"name": one.name, "type": one.type} for one in aging.columns],
        "sorted_by": list(aging.order),
        f"{aging.group}_low": facts.conversation_low,
        f"{aging.group}_high": facts.conversation_high,
        "run": made.run_id,
        "server": made.server,
        "schema": made.schema_revision,
    }


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return a manifest as it lies beside its object."""
    return json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True).encode()
