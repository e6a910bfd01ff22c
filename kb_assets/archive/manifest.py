"""What is known of a segment's object, and the manifest that says so beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from kb_assets.archive.plan import Window
from kb_assets.archive.relation import Aging

MANIFEST_VERSION = 1
NOTE_VERSION = 1
SOURCES = ("month", "late", "rewrite")
"""What a segment's rows come from: a month's partition, late rows, or another segment."""


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


@dataclass(frozen=True, slots=True)
class Replacement:
    """That an object's rows are in others from now on: noted beside it before that is committed.

    A database that is restored to a state of before finds them by it.

    Attributes:
        object_key: The object that is replaced.
        by: The objects that take its place; none if nothing is left of it.
        is_rewrite: They are what is left of it after an erasure; else they are all of a month
            that was restored and archived again.
    """

    object_key: str
    by: tuple[str, ...]
    is_rewrite: bool

    @property
    def key(self) -> str:
        """Where the note lies; it is another one for each attempt."""
        stem = self.object_key.removesuffix(".parquet")
        return f"{stem}.replaced-{sha256(self.content).hexdigest()[:16]}.json"

    @property
    def content(self) -> bytes:
        """The note as it lies there."""
        return manifest_bytes(
            {
                "version": NOTE_VERSION,
                "object": self.object_key,
                "by": list(self.by),
                "is_rewrite": self.is_rewrite,
            }
        )


def parse_replacement(content: bytes) -> Replacement:
    """Return the note that some bytes are.

    Raises:
        ValueError: They are none.
    """
    try:
        told = json.loads(content)
        note = Replacement(told["object"], tuple(told["by"]), told["is_rewrite"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"It is no note: {error}") from error
    if content != note.content:
        raise ValueError("It is not as this version writes notes.")
    return note


def parse_manifest(
    content: bytes, object_key: str, aging: Aging
) -> tuple[dict[str, Any], ObjectFacts, Window]:
    """Return the manifest that lies beside an object, and what it says of the object.

    Raises:
        ValueError: It is no manifest of this object.
    """
    try:
        told = json.loads(content)
        facts = ObjectFacts(
            object_key=told["object"],
            sha256=bytes.fromhex(told["sha256"]),
            object_bytes=int(told["bytes"]),
            rows=int(told["rows"]),
            row_hash_sum=bytes.fromhex(told["row_hash_sum"]),
            conversation_low=str(told[f"{aging.group}_low"]),
            conversation_high=str(told[f"{aging.group}_high"]),
        )
        window = Window(datetime.fromisoformat(told["low"]), datetime.fromisoformat(told["high"]))
        is_ours = told["version"] == MANIFEST_VERSION and told["relation"] == aging.name
        is_ours = is_ours and facts.object_key == object_key and told["source"] in SOURCES
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"It is no manifest: {error}") from error
    if not is_ours:
        raise ValueError("It is the manifest of something else.")
    return told, facts, window
