"""From a revision's text to its chunks, ready to be stored: a pure function of the revision."""

from dataclasses import dataclass

from kb_assets.chunks.chunk import Chunk
from kb_assets.chunks.splitters import SPLITTER_VERSION, SplitSettings, split
from kb_assets.documents.parse import PARSER_VERSION
from kb_assets.documents.recipe import Recipe
from kb_assets.fingerprints import INPUT_TEXT_VERSION, input_hash, input_text
from kb_assets.settings import SplittingSettings

_STRUCTURED = ("text/markdown", "text/html")


@dataclass(frozen=True, slots=True)
class SplitJob:
    """A revision to split.

    Attributes:
        revision_id: The revision.
        title: Its title, if its content has one.
        media_type: What its text was; HTML was turned into Markdown when it was parsed.
        text: Its normalised text.
        settings: How to split it.
    """

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


def split_settings(settings: SplittingSettings) -> SplitSettings:
    """Return what the splitter is told."""
    return SplitSettings(
        strategy=settings.strategy,
        size=settings.size,
        overlap=settings.overlap,
        unit=settings.unit,
        encoding=settings.encoding,
    )


def recipe_of(settings: SplittingSettings) -> Recipe:
    """Return the recipe documents are processed by under these settings."""
    return Recipe(
        {
            "parser": PARSER_VERSION,
            "splitter": SPLITTER_VERSION,
            "input_text": INPUT_TEXT_VERSION,
            "splitting": settings.model_dump(mode="json"),
        }
    )
