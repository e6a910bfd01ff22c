"""What all shards have together, and how that came to be: numbers and plots for `vector_index`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.defs.metadata import Metadata, counts
from kb_assets.defs.plots import lines_plot
from kb_assets.embeddings.space import list_spaces
from kb_assets.fingerprints import Shard
from kb_assets.index.vectors import VectorIndexReport

HISTORY = "history"
"""Where a materialization keeps the points of its plots, for the next one to go on with."""

MOST_POINTS = 100
"""Beyond this, every second one of the older half goes."""

COUNTED_VECTORS = 100_000
"""So many are counted; of more, the planner knows well enough how many there are."""

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Whole:
    """What a knowledge base has, and what that took.

    Attributes:
        documents: What the sources listed.
        live_chunks: What can be found.
        distinct_texts: How many texts those have: how many vectors of the space that answers are
            used.
        paid_tokens: What providers counted, from the first day on.
        paid_usd: What that cost.
        saved_usd: What the live chunks would have cost besides, had each been paid for.
        saved_tokens: The same in tokens.
    """

    documents: int
    live_chunks: int
    distinct_texts: int
    paid_tokens: int
    paid_usd: float
    saved_usd: float
    saved_tokens: int


def find_whole(
    database: Database, shards: Sequence[Shard], reports: Sequence[VectorIndexReport]
) -> Whole:
    """Return what there is, at a cost that does not grow with it.

    Args:
        database: Where it is.
        shards: Those of the settings.
        reports: About how many vectors each space has.
    """
    named = {
        "sources": [one.source for one in shards],
        "lows": [one.slot_low for one in shards],
        "highs": [one.slot_high for one in shards],
    }
    with database.transaction() as connection:
        row = connection.execute(_statements("find_whole"), named).fetchone()
    assert row is not None
    documents, chunks, unused, texts, tokens, cost_usd = row
    distinct_texts = max(0, _vectors(database, reports) - unused)
    repeated = max(0, chunks - distinct_texts) / texts if texts else 0.0
    return Whole(
        documents=documents,
        live_chunks=chunks,
        distinct_texts=distinct_texts,
        paid_tokens=tokens,
        paid_usd=cost_usd,
        saved_usd=repeated * cost_usd,
        saved_tokens=round(repeated * tokens),
    )


def _vectors(database: Database, reports: Sequence[VectorIndexReport]) -> int:
    about = {one.space: one.vectors for one in reports}
    for space in list_spaces(database):
        if space.state == "live":
            statement = _statements("count_vectors", embeddings=space.table)
            with database.transaction() as connection:
                row = connection.execute(statement, {"most": COUNTED_VECTORS}).fetchone()
            counted = int(row[0]) if row else 0
            return counted if counted < COUNTED_VECTORS else about.get(space.name, counted)
    return 0


def whole_metadata(whole: Whole, before: Mapping[str, Any]) -> Metadata:
    """Return numbers that Dagster plots, and plots of how they came to be.

    Args:
        whole: What there is now.
        before: What the last materialization showed.
    """
    numbers = asdict(whole)
    points = _points_of(before)
    if not points or {**points[-1], "at": None} != {**numbers, "at": None}:
        points.append({**numbers, "at": datetime.now(UTC).isoformat(timespec="seconds")})
    if len(points) > MOST_POINTS:
        half = len(points) // 2
        points = [*points[:half:2], *points[half:]]
    at = [datetime.fromisoformat(one["at"]) for one in points]
    paid, saved = _unit(whole)
    return {
        **counts(numbers),
        "growth": lines_plot(
            "Documents, chunks and texts",
            at,
            {
                "documents": [one["documents"] for one in points],
                "live chunks": [one["live_chunks"] for one in points],
                "distinct texts": [one["distinct_texts"] for one in points],
            },
        ),
        "spending": lines_plot(
            "What embeddings cost, and what shared texts saved",
            at,
            {name.replace("_", " "): [one[name] for one in points] for name in (paid, saved)},
        ),
        HISTORY: dg.MetadataValue.json(points),
    }


def _unit(whole: Whole) -> tuple[str, str]:
    """Return what is plotted: money, or tokens where nothing costs any."""
    if whole.paid_usd:
        return "paid_usd", "saved_usd"
    return "paid_tokens", "saved_tokens"


def _points_of(before: Mapping[str, Any]) -> list[dict[str, Any]]:
    kept = before.get(HISTORY)
    if not isinstance(kept, dg.JsonMetadataValue) or not isinstance(kept.data, list):
        return []
    wanted = {"at", *Whole.__dataclass_fields__}
    return [dict(one) for one in kept.data if isinstance(one, dict) and set(one) == wanted]
