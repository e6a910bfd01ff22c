"""The words of what readers see, ready for BM25: kept exact by the transaction that publishes.

A source has its own postings, in its own language. What leaves is only marked as dead, and not
counted any more; postings of one term are spread over as many rows as there were publishes,
until they are merged.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import psycopg

from kb_assets.database.bulk import copy_rows
from kb_assets.database.statements import Statements
from kb_assets.fingerprints import input_text
from kb_assets.index.analysis import (
    VERSION,
    Integers,
    Occurrences,
    occurrences,
    raw_tokens,
    words_of,
)
from kb_assets.index.postings import Posting, postings_of
from kb_assets.index.stems import server_major, stems_of

MAX_BATCH_BYTES = 16_000_000
"""Text that is analysed at once; what bounds memory."""

_statements = Statements.beside(__file__)

_POSTING = {
    "source_id": "int4",
    "term": "text",
    "block": "int4",
    "generation": "int4",
    "ordinals": "bytea",
    "counts": "bytea",
    "lengths": "bytea",
}
_DOCUMENT = {
    "source_id": "int4",
    "first_ordinal": "int4",
    "chunks": "int4",
    "tokens": "int8",
    "revision_id": "int8",
}


@dataclass(frozen=True, slots=True)
class Analysed:
    """Revisions whose chunks were analysed.

    Attributes:
        language: In which language.
        revision_ids: The revision of each chunk; chunks of one stand together, in order.
        found: What occurs in the chunks.
    """

    language: str
    revision_ids: Integers
    found: Occurrences


def analyser_name(connection: psycopg.Connection[Any], language: str) -> str:
    """Return what a source's terms depend on beside its texts."""
    return f"{VERSION}/{language}/postgres{server_major(connection)}"


def is_current(connection: psycopg.Connection[Any], source_id: int, language: str) -> bool:
    """Say whether a source's postings were made as they would be made now."""
    row = connection.execute(
        _statements("find_lexical_source"), {"source_id": source_id}
    ).fetchone()
    return row is not None and row[0] == analyser_name(connection, language)


def analyse(
    connection: psycopg.Connection[Any], language: str, revision_ids: Sequence[int]
) -> Analysed:
    """Analyse the chunks of revisions; nothing is written."""
    chunks = connection.execute(
        _statements("chunks_to_analyse"), {"revision_ids": list(revision_ids)}
    )
    return _analysed(connection, language, chunks.fetchall())


def add_revisions(
    connection: psycopg.Connection[Any], source_id: int, analysed: Analysed, live: Iterable[int]
) -> None:
    """Let the words of revisions be found; under the publish lock.

    Args:
        connection: In the transaction that makes them live.
        source_id: Their source.
        analysed: Their chunks, and perhaps those of others.
        live: The revisions that went live.
    """
    kept = numpy.isin(analysed.revision_ids, numpy.fromiter(live, numpy.int64))
    count = int(kept.sum())
    if not count:
        return
    if not is_current(connection, source_id, analysed.language):
        # A run with other settings, or of another version, analysed the source meanwhile.
        rebuild_source(connection, source_id, analysed.language)
        return
    tokens = analysed.found.lengths * kept
    first, generation = _advance(connection, source_id, count, int(tokens.sum()))
    ordinals = numpy.where(kept, numpy.cumsum(kept) - 1 + first, -1)
    revisions, starts, chunks = numpy.unique(
        analysed.revision_ids[kept], return_index=True, return_counts=True
    )
    sums = numpy.add.reduceat(tokens[kept], starts)
    columns = zip(
        (starts + first).tolist(), chunks.tolist(), sums.tolist(), revisions.tolist(), strict=True
    )
    copy_documents(connection, ((source_id, *row) for row in columns))
    copy_postings(connection, source_id, generation, postings_of(analysed.found, ordinals))


def remove_revisions(connection: psycopg.Connection[Any], revision_ids: Sequence[int]) -> None:
    """Let the words of revisions no longer be found or counted; under the publish lock."""
    connection.execute(_statements("mark_dead"), {"revision_ids": list(revision_ids)})


def rebuild_source(connection: psycopg.Connection[Any], source_id: int, language: str) -> None:
    """Analyse everything readers see of a source anew; under the publish lock."""
    connection.execute(_statements("delete_lexical_source"), {"source_id": source_id})
    connection.execute(
        _statements("add_lexical_source"),
        {
            "source_id": source_id,
            "language": language,
            "analyser": analyser_name(connection, language),
        },
    )
    with connection.cursor(name="live_chunks") as cursor:
        cursor.itersize = 2000
        cursor.execute(_statements("live_chunks_to_analyse"), {"source_id": source_id})
        for batch in _batches(cursor):
            analysed = _analysed(connection, language, batch)
            add_revisions(connection, source_id, analysed, set(analysed.revision_ids.tolist()))


def copy_documents(
    connection: psycopg.Connection[Any], rows: Iterable[tuple[int, int, int, int, int]]
) -> None:
    """Store which ordinals revisions have: source, first ordinal, chunks, tokens, revision."""
    columns, types = list(_DOCUMENT), list(_DOCUMENT.values())
    copy_rows(connection, ("kb", "lexical_document"), columns, types, rows)


def copy_postings(
    connection: psycopg.Connection[Any],
    source_id: int,
    generation: int,
    postings: Iterable[Posting],
) -> None:
    """Store rows as one generation."""
    rows = (
        (source_id, row.term, row.block, generation, row.ordinals, row.counts, row.lengths)
        for row in postings
    )
    columns, types = list(_POSTING), list(_POSTING.values())
    copy_rows(connection, ("kb", "lexical_posting"), columns, types, rows)


def _advance(
    connection: psycopg.Connection[Any], source_id: int, chunks: int, tokens: int
) -> tuple[int, int]:
    row = connection.execute(
        _statements("advance_lexical_source"),
        {"source_id": source_id, "chunks": chunks, "tokens": tokens},
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _analysed(
    connection: psycopg.Connection[Any], language: str, chunks: Sequence[tuple[Any, ...]]
) -> Analysed:
    tokens = [raw_tokens(input_text(title, headings, text)) for _, title, headings, text in chunks]
    words = words_of({raw for some in tokens for raw in some})
    found = occurrences(tokens, stems_of(connection, language, words))
    revision_ids = numpy.array([row[0] for row in chunks], dtype=numpy.int64)
    return Analysed(language, revision_ids, found)


def _batches(chunks: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Cut chunks into batches of whole revisions, of about `MAX_BATCH_BYTES` each."""
    batch: list[tuple[Any, ...]] = []
    size = 0
    for chunk in chunks:
        if size > MAX_BATCH_BYTES and chunk[0] != batch[-1][0]:
            yield batch
            batch, size = [], 0
        batch.append(chunk)
        size += len(chunk[3])
    if batch:
        yield batch
