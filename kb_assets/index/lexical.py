"""The words of what readers see, ready for BM25: kept exact by the transaction that publishes.

A source has its own postings, in its own language. What leaves is only marked as dead, and not
counted any more; postings of one term are spread over as many rows as there were publishes,
until they are merged.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy
import psycopg

from kb_assets.database.bulk import copy_encoded, copy_rows
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.errors import DocumentError
from kb_assets.fingerprints import input_text
from kb_assets.index.analysis import VERSION, Integers, Occurrences, Reading, occurrences, read
from kb_assets.index.postings import COLUMNS, Posting, encoded, postings_of
from kb_assets.index.stems import remembered_stems, server_major, stems_of
from kb_assets.isolation import IsolatedWorker, processes_worth_having

MAX_BATCH_BYTES = 16_000_000
"""Text that is analysed at once; what bounds memory."""

MAX_PIECE_CHARACTERS = 2_000_000
"""Text that a worker reads at once, so that several have something to do."""

_statements = Statements.beside(__file__)

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


@dataclass(frozen=True, slots=True)
class _Piece:
    """Chunks that are read at once: the revision and the input text of each."""

    server: int
    revision_ids: list[int]
    texts: list[str]
    is_last: bool


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
    run: Run, language: str, groups: Iterable[Sequence[int]], *, few: bool
) -> Generator[Analysed, None, None]:
    """Analyse the chunks of groups of revisions, one group after the other.

    Nothing is written, and no transaction is open between two groups.

    Args:
        run: Whose database they are in.
        language: In which language.
        groups: Revisions to be analysed together.
        few: There is so little text that other processes are not worth it. Otherwise they
            read the next groups while the caller is busy with one.
    """
    readings: list[Reading] = []
    revision_ids: list[int] = []
    stems: dict[str, str | None] = {}
    for piece, reading in _readings(run, _pieces(run, groups, cut=not few), few=few):
        stems |= _stems(run, piece.server, language, reading.words)
        readings.append(reading)
        revision_ids += piece.revision_ids
        if piece.is_last:
            ids = numpy.array(revision_ids, dtype=numpy.int64)
            yield Analysed(language, ids, occurrences(readings, stems))
            readings, revision_ids, stems = [], [], {}


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
            reading = read(_texts(batch))
            found = occurrences([reading], stems_of(connection, language, reading.words))
            ids = numpy.array([chunk[0] for chunk in batch], dtype=numpy.int64)
            analysed = Analysed(language, ids, found)
            add_revisions(connection, source_id, analysed, set(ids.tolist()))


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
    copy_encoded(
        connection, ("kb", "lexical_posting"), COLUMNS, encoded(source_id, generation, postings)
    )


def _advance(
    connection: psycopg.Connection[Any], source_id: int, chunks: int, tokens: int
) -> tuple[int, int]:
    row = connection.execute(
        _statements("advance_lexical_source"),
        {"source_id": source_id, "chunks": chunks, "tokens": tokens},
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _stems(run: Run, server: int, language: str, words: Sequence[str]) -> dict[str, str | None]:
    found = remembered_stems(server, language, words)
    if len(found) == len(words):
        return found
    with run.database.transaction() as connection:
        return stems_of(connection, language, words)


def _pieces(run: Run, groups: Iterable[Sequence[int]], *, cut: bool) -> Iterator[_Piece]:
    """Yield the chunks of groups of revisions, each group in one piece or more."""
    for group in groups:
        with run.database.transaction() as connection:
            named = {"revision_ids": list(group)}
            chunks = connection.execute(_statements("chunks_to_analyse"), named).fetchall()
            server = server_major(connection)
        revision_ids = [chunk[0] for chunk in chunks]
        texts = _texts(chunks)
        edges = _edges(texts) if cut else [0, len(texts)]
        for start, end in pairwise(edges):
            is_last = end == len(texts)
            yield _Piece(server, revision_ids[start:end], texts[start:end], is_last)


def _edges(texts: Sequence[str]) -> list[int]:
    edges, size = [0], 0
    for place, text in enumerate(texts):
        if size > MAX_PIECE_CHARACTERS:
            edges.append(place)
            size = 0
        size += len(text)
    return [*edges, len(texts)]


def _readings(run: Run, pieces: Iterable[_Piece], *, few: bool) -> Iterator[tuple[_Piece, Reading]]:
    if few:
        for piece in pieces:
            yield piece, read(piece.texts)
        return
    asked: deque[_Piece] = deque()

    def texts() -> Iterator[list[str]]:
        for piece in pieces:
            asked.append(piece)
            yield piece.texts

    with IsolatedWorker[list[str], Reading](
        f"{read.__module__}:{read.__name__}",
        seconds=run.settings.limits.parse_seconds,
        memory_bytes=run.settings.limits.parse_memory_bytes,
        processes=processes_worth_having(),
    ) as worker:
        for some, made in worker.map(texts()):
            # A process that was ended, whatever by, costs time only.
            yield asked.popleft(), read(some) if isinstance(made, DocumentError) else made


def _texts(chunks: Iterable[tuple[Any, ...]]) -> list[str]:
    return [input_text(title, headings, text) for _, title, headings, text in chunks]


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
