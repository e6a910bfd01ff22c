"""Reports as metadata: what a person wants to see of a materialization, and nothing secret."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import dagster as dg

from kb_assets.chunks.sizes import chunk_sizes
from kb_assets.database.connect import Database
from kb_assets.defs.plots import sizes_plot
from kb_assets.embeddings.stage import EmbedReport
from kb_assets.fingerprints import Shard
from kb_assets.index.account import (
    Account,
    Quarantined,
    account_for,
    contents_of,
    list_quarantine,
)
from kb_assets.index.samples import SAMPLE_ROWS, count_chunks, newest_chunks, newest_documents
from kb_assets.index.vectors import VectorIndexReport

Metadata = dict[str, dg.MetadataValue]

MAX_CELL = 80
"""The most characters of a value that a table's cell shows."""


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """Return a Markdown table; whatever documents contain is shown, and never rendered."""
    lines = [heads, ["---"] * len(heads), *([cell(value) for value in row] for row in rows)]
    if len(lines) == 2:
        return dg.MetadataValue.md("none")
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def cell(value: object) -> str:
    """Return a value as the text of one cell: one line, cut to length, nothing left to render."""
    text = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in str(value))).strip()
    if len(text) > MAX_CELL:
        text = text[: MAX_CELL - 1] + "…"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#!$:@])", lambda found: f"&#{ord(found[0])};", text)


def counts(report: Mapping[str, Any]) -> Metadata:
    """Return a report's numbers, each under its own name."""
    return {name: _value(name, value) for name, value in report.items()}


def place(where: str) -> dg.MetadataValue:
    """Return a file, folder or object so that the UI lets people copy its path, or follow it."""
    return dg.MetadataValue.url(where) if "://" in where else dg.MetadataValue.path(where)


def read_metadata(database: Database, shard: Shard) -> Metadata:
    """Return what the materialization of a shard's documents shows of what there is."""
    account = account_for(database, shard)
    documents = [
        (one.path, one.title or "", one.media_type, f"{one.text_bytes:,}", moment(one.read_at))
        for one in newest_documents(database, shard)
    ]
    return {
        "dagster/row_count": dg.MetadataValue.int(account.listed or 0),
        "in_quarantine": dg.MetadataValue.int(account.quarantined),
        "quarantine": quarantine_table(list_quarantine(database, shard, SAMPLE_ROWS)),
        "newest_documents": table(["path", "title", "type", "bytes", "read (UTC)"], documents),
    }


def chunk_metadata(database: Database, shard: Shard) -> Metadata:
    """Return what the materialization of a shard's chunks shows of what there is."""
    chunks = [
        (one.path, " > ".join(one.heading_path), str(one.tokens), one.text)
        for one in newest_chunks(database, shard)
    ]
    sizes = chunk_sizes(database, shard)
    plot = {"chunk_sizes": sizes_plot("Chunks by tokens", sizes)} if sizes else {}
    return {
        "dagster/row_count": dg.MetadataValue.int(count_chunks(database, shard)),
        **plot,
        "newest_chunks": table(["path", "headings", "tokens", "text"], chunks),
    }


def embed_metadata(reports: Sequence[EmbedReport]) -> Metadata:
    """Return what the materialization of a shard's vectors shows; all spaces together."""
    spaces = [
        (
            one.space,
            one.state,
            *map(str, (one.texts, one.had, one.embedded, one.quarantined, one.tokens)),
            f"{one.cost_usd:.4f}",
            str(one.failure or ""),
        )
        for one in reports
    ]
    numbers = ["texts", "had", "embedded", "quarantined", "tokens", "USD"]
    heads = ["space", "state", *numbers, "failure"]
    summed = {
        "texts": sum(one.texts for one in reports),
        "cache_hits": sum(one.had + one.elsewhere for one in reports),
        "embedded": sum(one.embedded for one in reports),
        "quarantined": sum(one.quarantined for one in reports),
        "requests": sum(one.requests for one in reports),
        "tokens": sum(one.tokens for one in reports),
        "cost_usd": sum(one.cost_usd for one in reports),
        "seconds": sum(one.seconds for one in reports),
    }
    return {**counts(summed), "spaces": table(heads, spaces)}


def spaces_note(reports: Sequence[EmbedReport]) -> dict[str, Any]:
    """Return the same, safe for JSON, for who follows the run."""
    return {
        "spaces": [
            {**asdict(replace(one, failure=None)), "failure": str(one.failure or "")}
            for one in reports
        ]
    }


def publish_metadata(database: Database, shard: Shard) -> Metadata:
    """Return what the materialization of a shard's published documents shows of what there is."""
    account, contents = account_for(database, shard), contents_of(database, shard)
    return {
        "dagster/row_count": dg.MetadataValue.int(account.live),
        "live_chunks": dg.MetadataValue.int(contents.chunks),
        "live_texts": dg.MetadataValue.int(contents.texts),
        "live_tokens": dg.MetadataValue.int(contents.tokens),
        "account": account_table([("documents", account)]),
    }


def vector_metadata(
    reports: Sequence[VectorIndexReport], collected: int, seconds: float
) -> Metadata:
    """Return what the materialization of the vector indexes shows."""
    spaces = [
        (
            one.space,
            f"{one.vectors:,}",
            one.action,
            "yes" if one.valid else "no",
            f"{one.index_bytes:,}",
            "yes" if one.fits_memory else "no, so building was slow",
            f"{one.seconds:.2f}",
        )
        for one in reports
    ]
    heads = ["space", "vectors", "action", "valid", "bytes", "fits in memory", "seconds"]
    return {
        "dagster/row_count": dg.MetadataValue.int(sum(one.vectors for one in reports)),
        "unused_vectors_collected": dg.MetadataValue.int(collected),
        "index_bytes": dg.MetadataValue.int(sum(one.index_bytes for one in reports)),
        "seconds": dg.MetadataValue.float(round(seconds, 3)),
        "spaces": table(heads, spaces),
    }


def account_table(accounts: Sequence[tuple[str, Account]]) -> dg.MarkdownMetadataValue:
    """Return where the documents of shards are, a line for each."""
    heads = ["shard", "listed", "live", "partial", "quarantined"]
    heads += ["pending", "missing", "vanishing", "erased"]
    rows = [
        (
            name,
            *map(str, (one.listed, one.live, one.partial, one.quarantined)),
            *map(str, (one.pending, one.missing, one.vanishing, one.erased)),
        )
        for name, one in accounts
    ]
    return table(heads, rows)


def quarantine_table(refused: Sequence[Quarantined]) -> dg.MarkdownMetadataValue:
    """Return the documents that cannot be processed, and why."""
    rows = [(one.path, one.reason, one.detail, str(one.attempts)) for one in refused]
    return table(["path", "reason", "detail", "attempts"], rows)


def moment(at: datetime) -> str:
    """Return a time whose date a narrow cell does not break."""
    return f"{at:%F %R}".replace("-", "\N{NON-BREAKING HYPHEN}")


def _value(name: str, value: object) -> dg.MetadataValue:
    if isinstance(value, float):
        return dg.MetadataValue.float(round(value, 6 if name.endswith("usd") else 3))
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    return dg.MetadataValue.text(str(value))
