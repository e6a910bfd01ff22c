"""From a revision's text to its chunks, ready to be stored: a pure function of the revision."""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kb_assets.chunks.chunk import Chunk
from kb_assets.chunks.splitters import SPLITTER_VERSION, SplitSettings, split
from kb_assets.database.binary import TEXT, array, field
from kb_assets.fingerprints import INPUT_TEXT_VERSION, input_hash, input_text

# Workers import this module, and would wait for these.
if TYPE_CHECKING:
    from kb_assets.documents.recipe import Recipe
    from kb_assets.settings import SplittingSettings

CHUNK_COLUMNS = (
    *("revision_id", "ordinal", "source_id", "input_hash", "byte_start", "byte_end"),
    *("token_count", "heading_path", "text"),
)
"""The columns of `ChunkRows`, in their order."""

_LEADING = struct.Struct("!h iq ii ii i32s ii ii ii")
"""The number of fields, and those of fixed length, each after its length."""

_STRUCTURED = ("text/markdown", "text/html")


@dataclass(frozen=True, slots=True)
class SplitJob:
    """A revision to split.

    Attributes:
        source_id: The source of its document.
        revision_id: The revision.
        title: Its title, if its content has one.
        media_type: What its text was; HTML was turned into Markdown when it was parsed.
        text: Its normalised text.
        settings: How to split it.
    """

    source_id: int
    revision_id: int
    title: str | None
    media_type: str
    text: str
    settings: SplitSettings


@dataclass(frozen=True, slots=True)
class KeyedChunk:
    """A chunk and the hash of its input text."""

    chunk: Chunk
    input_hash: bytes


def chunk_revision(job: SplitJob) -> list[KeyedChunk]:
    """Split a revision; a blank one has no chunks."""
    return [
        KeyedChunk(chunk, input_hash(input_text(job.title, chunk.heading_path, chunk.text)))
        for chunk in split(job.text, job.settings, markdown=job.media_type in _STRUCTURED)
    ]


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """The chunks of a revision as rows of the table, in the binary format of COPY.

    Attributes:
        rows: Values of `CHUNK_COLUMNS`.
        chunks: How many rows there are.
        tokens: Tokens in the chunks.
    """

    rows: bytes
    chunks: int
    tokens: int


def chunk_rows(job: SplitJob) -> ChunkRows:
    """Split a revision, and write its chunks as they are stored."""
    made = chunk_revision(job)
    return ChunkRows(
        rows=b"".join(_row(job, keyed) for keyed in made),
        chunks=len(made),
        tokens=sum(keyed.chunk.token_count for keyed in made),
    )


def _row(job: SplitJob, keyed: KeyedChunk) -> bytes:
    chunk = keyed.chunk
    return b"".join(
        (
            _LEADING.pack(
                len(CHUNK_COLUMNS),
                *(8, job.revision_id),
                *(4, chunk.ordinal),
                *(4, job.source_id),
                *(32, keyed.input_hash),
                *(4, chunk.byte_start),
                *(4, chunk.byte_end),
                *(4, chunk.token_count),
            ),
            field(array(TEXT, [heading.encode() for heading in chunk.heading_path])),
            field(chunk.text.encode()),
        )
    )


def split_settings(settings: "SplittingSettings") -> SplitSettings:
    """Return what the splitter is told."""
    return SplitSettings(
        strategy=settings.strategy,
        size=settings.size,
        overlap=settings.overlap,
        unit=settings.unit,
        encoding=settings.encoding,
    )


def recipe_of(settings: "SplittingSettings") -> "Recipe":
    """Return the recipe documents are processed by under these settings."""
    from kb_assets.documents.parse import PARSER_VERSION
    from kb_assets.documents.recipe import Recipe

    return Recipe(
        {
            "parser": PARSER_VERSION,
            "splitter": SPLITTER_VERSION,
            "input_text": INPUT_TEXT_VERSION,
            "splitting": settings.model_dump(mode="json"),
        }
    )
