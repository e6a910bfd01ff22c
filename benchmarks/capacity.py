"""How much a knowledge base takes as it grows, by arithmetic: bytes, seconds, money, limits.

    python -m benchmarks.capacity

prints the tables of docs/scale.md. Sizes follow from how PostgreSQL and pgvector lay out pages;
what cannot be derived is a constant here, beside where it was measured. `benchmarks.scale`
compares all of it with knowledge bases of other sizes than those the constants are from.

Times are those of the machine of RESULTS.md: two cores that client and server share, local
solid-state disk, the embedded server with 512 MB of `shared_buffers`.
"""

import math
from dataclasses import dataclass

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


def _row_bytes(size: int) -> float:
    """Bytes of a row with so many bytes of columns: as many whole rows as fit share a page."""
    row = _aligned(_ROW_HEADER_BYTES + size) + _LINE_POINTER_BYTES
    return PAGE_BYTES / (_USABLE_BYTES // row)


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


DOCUMENT_ROWS_BYTES = 1000
POSTINGS_BYTES_PER_TEXT_BYTE = 1.0


def bytes_of(corpus: Corpus) -> dict[str, float]:
    """Return what each part takes, by name."""
    chunk_columns = 16 + _aligned(_HASH_BYTES, 4) + 12 + _HEADINGS_BYTES
    chunk = _row_bytes(_aligned(chunk_columns, 4) + 4 + corpus.text_bytes)
    vector = _row_bytes(_aligned(_HASH_BYTES, 4) + 8 + 2 * corpus.dimensions)
    long_value = PAGE_BYTES / 4 / _LONG_VALUE_BYTES
    return {
        "documents": corpus.documents * DOCUMENT_ROWS_BYTES,
        "text of documents": corpus.chunks * corpus.text_bytes * long_value,
        "chunks": corpus.chunks * chunk,
        "indexes of chunks": corpus.chunks
        * (_entry_bytes(12, _FILL_OF_APPENDED) + _entry_bytes(_HASH_BYTES, _FILL_OF_HASHES)),
        "vectors": corpus.chunks * vector,
        "index of texts": corpus.chunks * _entry_bytes(_HASH_BYTES, _FILL_OF_HASHES),
        "HNSW index": corpus.chunks * graph_bytes(corpus.dimensions),
        "postings": corpus.chunks * corpus.text_bytes * POSTINGS_BYTES_PER_TEXT_BYTE,
    }
