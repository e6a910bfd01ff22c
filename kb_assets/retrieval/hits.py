"""What a search gives: passages, best first, and how they were found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that answers, and where it stands.

    Attributes:
        source: The source's name.
        path: The document's path in it.
        heading_path: The headings above the passage, outermost first.
        byte_start: Where it starts in the revision's text, in UTF-8 bytes.
        byte_end: Where it ends.
        score: What hits are ordered by: the reranker's score if there is one, else the fused one,
            else that of the only side that was asked.
        text: The passage.
        title: The document's title, if its content has one.
        tags: The document's tags.
        metadata: The document's other metadata.
        revision_id: The revision it was cut from.
        ordinal: Which chunk of the revision it is, or starts with.
        last_ordinal: Which chunk it ends with: neighbours that are both found are one passage.
        vector_score: Cosine similarity to the question, -1 to 1; None if meaning was not asked.
        lexical_score: BM25 of the question's words; None if words were not asked.
        fused_score: Both joined on one scale for all questions, 0 to 1, whatever orders the hits.
        rerank_score: What the reranker gave.
    """

    source: str
    path: str
    heading_path: tuple[str, ...]
    byte_start: int
    byte_end: int
    score: float
    text: str
    title: str | None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    revision_id: int = 0
    ordinal: int = 0
    last_ordinal: int = 0
    vector_score: float | None = None
    lexical_score: float | None = None
    fused_score: float | None = None
    rerank_score: float | None = None


@dataclass(frozen=True, slots=True)
class Results(Sequence[Hit]):
    """The hits of one search, best first, and how they were found.

    Attributes:
        hits: The passages.
        mode: What was asked in the end: `hybrid`, `vector` or `lexical`.
        space: The embedding space that was asked; empty if none was.
        provider: Who embedded the question; empty if nobody did.
        notes: What was not as it should be, in sentences: the embedding provider is down, say.
        seconds: How long each part took: `embed`, `vector`, `lexical`, `fetch`, `rerank`, `total`.
        generation: The state of the index that was searched.
        cached: Whether this is the answer to an earlier search for the same.
    """

    hits: tuple[Hit, ...]
    mode: str
    space: str = ""
    provider: str = ""
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    generation: int = 0
    cached: bool = False

    @overload
    def __getitem__(self, index: int) -> Hit: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        """Return a hit by its rank, counted from 0."""
        return self.hits[index]

    def __len__(self) -> int:
        """Return how many hits there are."""
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        """Return the hits, best first."""
        return iter(self.hits)

    def to_arrow(self) -> "pyarrow.Table":
        """Return the hits as an Arrow table, a row each; metadata as JSON text."""
        from kb_assets.retrieval.arrow import table_of

        return table_of(self.hits)
