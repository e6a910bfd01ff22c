"""A few rows of a shard for people to look at."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.fingerprints import Shard

SAMPLE_ROWS = 5

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class DocumentSample:
    """A document of the newest ones."""

    path: str
    title: str | None
    media_type: str
    text_bytes: int
    read_at: datetime


@dataclass(frozen=True, slots=True)
class ChunkSample:
    """A chunk of one of the newest documents."""

    path: str
    heading_path: tuple[str, ...]
    tokens: int
    text: str


def newest_documents(database: Database, shard: Shard) -> tuple[DocumentSample, ...]:
    """Return the documents of a shard that were read last."""
    return tuple(DocumentSample(*row) for row in _rows(database, shard, "newest_documents"))


def newest_chunks(database: Database, shard: Shard) -> tuple[ChunkSample, ...]:
    """Return the last chunk of each of the documents that were read last."""
    return tuple(
        ChunkSample(path, tuple(headings), tokens, text)
        for path, headings, tokens, text in _rows(database, shard, "newest_chunks")
    )


def count_chunks(database: Database, shard: Shard) -> int:
    """Return how many chunks a shard has, those that wait to be published included."""
    rows = _rows(database, shard, "count_shard_chunks", limited=False)
    return int(rows[0][0]) if rows else 0


def _rows(
    database: Database, shard: Shard, statement: str, *, limited: bool = True
) -> list[tuple[Any, ...]]:
    with database.transaction() as connection:
        source = connection.execute(_statements("source_id"), {"name": shard.source}).fetchone()
        if source is None:
            return []
        named = {"source_id": source[0], "slot_low": shard.slot_low, "slot_high": shard.slot_high}
        if limited:
            named["limit"] = SAMPLE_ROWS
        return connection.execute(_statements(statement), named).fetchall()
