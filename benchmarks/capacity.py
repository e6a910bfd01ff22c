"""How much a knowledge base takes as it grows, by arithmetic: bytes, seconds, money, limits.

`benchmarks.capacity_tables` makes the tables of docs/scale.md of it. Sizes follow from how
PostgreSQL and pgvector lay out pages; what cannot be derived is a constant here, beside where it
was measured. `benchmarks.scale` compares all of it with knowledge bases that are made for that.

Times are those of the machine of RESULTS.md: two cores that client and server share, local
solid-state disk, the embedded server with 512 MB of `shared_buffers`.
"""

import math
from dataclasses import dataclass

from benchmarks.fleet import ChunkCost
from kb_assets.index.merge import MOST_GENERATIONS
from kb_assets.index.publish import MAX_DOCUMENTS, MAX_TEXT_BYTES

PAGE_BYTES = 8192
_USABLE_BYTES = PAGE_BYTES - 24
_ROW_HEADER_BYTES = 24
_LINE_POINTER_BYTES = 4
_INDEX_HEADER_BYTES = 8

_FILL_OF_APPENDED = 0.9
"""B-tree leaves that grow at their end: the fill factor."""

_FILL_OF_HASHES = 0.69
"""B-tree leaves that grow anywhere, by hashes: ln 2."""

_HASH_BYTES = 33
_HEADINGS_BYTES = 45
"""A path of one heading of some 20 letters."""

_LONG_VALUE_BYTES = 1996
"""What PostgreSQL cuts long values into; four pieces fill a page."""

GRAPH_NEIGHBOURS = 16
"""`m` of pgvector's HNSW."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is indexed. The defaults are those of docs/scale.md.

    Attributes:
        chunks: How many.
        chunks_per_document: As Markdown of some 10 kB has with the default splitting.
        text_bytes: Text of a chunk.
        tokens: The provider's tokens in a chunk.
        dimensions: Of its vector, two bytes each.
    """

    chunks: int
    chunks_per_document: float = 10
    text_bytes: int = 1200
    tokens: int = 300
    dimensions: int = 1536

    @property
    def documents(self) -> int:
        return math.ceil(self.chunks / self.chunks_per_document)


def _aligned(size: int, to: int = 8) -> int:
    return -(-size // to) * to


def _row_bytes(size: int) -> int:
    """Bytes of a row with so many bytes of columns."""
    return _aligned(_ROW_HEADER_BYTES + size) + _LINE_POINTER_BYTES


def _paged(row: int) -> float:
    """Bytes that a row takes of its pages: only whole rows of that size fit into one."""
    return PAGE_BYTES / (_USABLE_BYTES // row)


def _loosely_paged(row: int) -> float:
    """The same where rows differ in size: half of one stays free at the end of a page."""
    return PAGE_BYTES / ((_USABLE_BYTES - row / 2) / row)


def _entry_bytes(size: int, fill: float) -> float:
    """Bytes of a B-tree entry whose key has so many."""
    return (_aligned(_INDEX_HEADER_BYTES + size) + _LINE_POINTER_BYTES) / fill


def graph_bytes(dimensions: int) -> float:
    """Bytes of one vector in the HNSW index: itself and its neighbours, which share a page."""
    vector = _aligned(72 + 8 + 2 * dimensions)
    upper_layers = GRAPH_NEIGHBOURS / (GRAPH_NEIGHBOURS - 1) - 1
    neighbours = _aligned(4 + int((2 + upper_layers) * GRAPH_NEIGHBOURS * 6))
    together = vector + neighbours + 2 * _LINE_POINTER_BYTES
    return PAGE_BYTES / ((_USABLE_BYTES - 8) // together)


EMPTY_DOCUMENTS_BYTES = 0.39e6
DOCUMENT_BYTES = 1570
"""Rows and index entries of a document, its version, its revision and its words: measured by
`benchmarks.scale` at 5,000 and 20,000 chunks; 80,000 are to agree."""

POSTINGS_BYTES_PER_TEXT_BYTE = 0.654
POSTINGS_BYTES_OF_VOCABULARY = 1084
"""Measured there, too: five bytes for each term of a chunk; rows and keys of rare terms, of which
there are as many as the square root of all text (Heaps' law)."""


def bytes_of(corpus: Corpus) -> dict[str, float]:
    """Return what each part takes, by name."""
    chunk_columns = _aligned(16 + _HASH_BYTES, 4) + 12 + _HEADINGS_BYTES
    chunk = _loosely_paged(_row_bytes(_aligned(chunk_columns, 4) + 4 + corpus.text_bytes))
    vector = _paged(_row_bytes(_aligned(_HASH_BYTES, 4) + 8 + 2 * corpus.dimensions))
    by_hash = _entry_bytes(_HASH_BYTES, _FILL_OF_HASHES)
    by_place = _entry_bytes(12, _FILL_OF_APPENDED)
    text = corpus.chunks * corpus.text_bytes
    each = {
        "text of documents": corpus.text_bytes * PAGE_BYTES / 4 / _LONG_VALUE_BYTES,
        "chunks": chunk,
        "indexes of chunks": by_place + by_hash,
        "vectors": vector,
        "index of texts": by_hash,
        "HNSW index": graph_bytes(corpus.dimensions),
    }
    terms = POSTINGS_BYTES_OF_VOCABULARY * math.sqrt(text)
    return {
        "documents": EMPTY_DOCUMENTS_BYTES + corpus.documents * DOCUMENT_BYTES,
        **{part: corpus.chunks * size for part, size in each.items()},
        "postings": POSTINGS_BYTES_PER_TEXT_BYTE * text + terms,
    }


@dataclass(frozen=True, slots=True)
class StageCost:
    """Seconds of one stage, the server's included.

    Attributes:
        per_document: Of each document.
        per_chunk: Of each chunk.
        cold: By how much more, once the tables are far larger than `shared_buffers`.
    """

    per_document: float
    per_chunk: float
    cold: float


SHARED_BUFFERS_BYTES = 512 * 2**20
"""kb_assets/database/embedded.conf."""

STAGES = {
    "reading": StageCost(108e-6, 7.6e-6, 1.3),
    "splitting": StageCost(63e-6, 92e-6, 3.0),
    "storing vectors": StageCost(0, 17e-6, 1.5),
    "analysing words": StageCost(33e-6, 170e-6, 1.95),
    "publishing": StageCost(6e-6, 28e-6, 1.95),
    "merging postings": StageCost(0, 65e-6, 1.0),
}
"""From results/growth.json (10,000 documents of a chunk) and growth-large.json (1,080 documents of
84, which is still warm; 9,400, cold). There, storing vectors is within the time of the embedder:
it is from components-vectors.json (20,000 vectors: 0.18 s to claim, 0.14 s to store); and what
publishing does under its lock, a seventh, from `benchmarks.scale` at 20,000 chunks."""

GRAPH_SECONDS = 13e-6
"""For each vector of 384 dimensions and each doubling of their number, by two processes: 12 with
30,000 vectors (components-hnsw.json), 14 with a million (backup-drill.json)."""

GRAPH_MEMORY_BYTES = 2 * 2**30
GRAPH_BYTES_BESIDE_VECTOR = 720
"""What a build may have, and what it needs beside vectors (kb_assets/index)."""

GRAPH_OVERHEAD_DIMENSIONS = 300
"""What building costs whatever the dimensions are, as if it were so many more: measured by
`benchmarks.scale` with 10,000 vectors of 384 and of 1,536."""

SPILLED = 2.6
"""How much longer a build takes that does not fit into that (kb_assets/database/embedded.conf)."""

BUSY_CORES = 1.5
"""A worker and its part of the server: processor time beside time of the first load
(results/peers-fastapi-docs-a.json: 4.30 + 1.04 beside 3.56 s)."""

SEARCH_MILLISECONDS = 0.5
STEP_MILLISECONDS = 0.24
READ_MILLISECONDS = 1.6
"""A search by vectors: whatever it finds, each doubling of the graph, and as much again for pages
that the operating system has but `shared_buffers` has not. From 4.5 ms at 100,000 chunks and 23 at
a million (docs/retrieval.md)."""

WORDS_MILLISECONDS = 2.8
WORD_MILLISECONDS_PER_CHUNK = 9.2e-6
"""A search by words reads all postings of its terms: 3.7 ms at 100,000 chunks and 12 at a million
(docs/retrieval.md)."""

BACKUP_SECONDS_PER_GB = 7.0
RESTORE_SECONDS_PER_GB = 9.2
"""A million chunks, 7.59 GB: 53.1 s, and 348.5 s less 278.5 for the HNSW index
(backup-run.json, backup-drill.json)."""


def graph_fits(corpus: Corpus) -> bool:
    """Say whether the HNSW index can be built in memory."""
    needed = corpus.chunks * (2 * corpus.dimensions + GRAPH_BYTES_BESIDE_VECTOR)
    return needed <= GRAPH_MEMORY_BYTES


def uncached_share(size: float) -> float:
    """Return how much of so many bytes is not in `shared_buffers`, if all is used alike."""
    return max(0.0, 1 - SHARED_BUFFERS_BYTES / size)


def seconds_of(corpus: Corpus) -> dict[str, float]:
    """Return what each stage of the first load takes one worker, without the provider."""
    uncached = uncached_share(sum(bytes_of(corpus).values()))
    found = {
        name: (corpus.documents * cost.per_document + corpus.chunks * cost.per_chunk)
        * (1 + (cost.cold - 1) * uncached)
        for name, cost in STAGES.items()
    }
    distance = (GRAPH_OVERHEAD_DIMENSIONS + corpus.dimensions) / (GRAPH_OVERHEAD_DIMENSIONS + 384)
    graph = corpus.chunks * math.log2(corpus.chunks) * GRAPH_SECONDS * distance
    if publishes_of(corpus) <= MOST_GENERATIONS:
        found["merging postings"] = 0.0
    return found | {"HNSW index": graph if graph_fits(corpus) else graph * SPILLED}


def publishes_of(corpus: Corpus) -> int:
    """Return how many transactions the first load is published in."""
    by_text = corpus.chunks * corpus.text_bytes / MAX_TEXT_BYTES
    return math.ceil(max(by_text, corpus.documents / MAX_DOCUMENTS))


def load_cost(corpus: Corpus) -> ChunkCost:
    """Return what a chunk costs a worker of a fleet; the graph is built once, at the end."""
    each = {name: seconds / corpus.chunks for name, seconds in seconds_of(corpus).items()}
    return ChunkCost(
        prepare_seconds=each["reading"] + each["splitting"],
        store_seconds=each["storing vectors"],
        analyse_seconds=each["analysing words"],
        locked_seconds=each["publishing"],
        busy_cores=BUSY_CORES,
        tokens=corpus.tokens,
    )


def usd_of(corpus: Corpus, per_million_tokens: float) -> float:
    """Return what a provider takes for all texts, none of which it has seen before."""
    return corpus.chunks * corpus.tokens * per_million_tokens / 1e6


def search_milliseconds(corpus: Corpus) -> dict[str, float]:
    """Return the median of a search by one caller, its pages in memory, by mode."""
    read = uncached_share(corpus.chunks * graph_bytes(corpus.dimensions))
    doublings = math.log2(corpus.chunks)
    vector = SEARCH_MILLISECONDS + doublings * (STEP_MILLISECONDS + READ_MILLISECONDS * read)
    lexical = WORDS_MILLISECONDS + corpus.chunks * WORD_MILLISECONDS_PER_CHUNK
    return {"vector": vector, "lexical": lexical, "hybrid": vector + lexical}


def backup_seconds(corpus: Corpus) -> dict[str, float]:
    """Return what a backup and a drill take; a drill builds every index anew."""
    gigabytes = sum(bytes_of(corpus).values()) / 1e9
    rebuilt = seconds_of(corpus)["HNSW index"]
    return {
        "backup": gigabytes * BACKUP_SECONDS_PER_GB,
        "drill": gigabytes * RESTORE_SECONDS_PER_GB + rebuilt,
    }
