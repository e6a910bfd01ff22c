"""From a document's bytes to text and metadata. Pure: the same bytes give the same document.

Markdown, plain text and reStructuredText are kept as their source, front matter left out;
HTML becomes Markdown; of a PDF the text of its pages is taken. Whatever the format, the text
is normalised (`normalise.py`), so that offsets into it mean the same everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from kb_assets.documents.formats import read_html, read_pdf
from kb_assets.documents.front_matter import JSON, read_sidecar, rst_fields, split_front_matter
from kb_assets.documents.normalise import decode, is_binary, normalise
from kb_assets.documents.titles import clean_title, markdown_title, rst_title
from kb_assets.errors import DocumentError

PARSER_VERSION = 1
"""Raised when the same bytes give another document; part of every recipe."""

MAX_TAG_BYTES = 500
"""Tags are looked up in an index, whose keys must be short."""

_MEDIA_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".rst": "text/x-rst",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
}


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """What a document says.

    Attributes:
        text: Its text, normalised.
        title: From its metadata or its content, never from its path; one line.
        tags: Each once, in the order of the document.
        metadata: Front matter (of reStructuredText: the fields below the title) and sidecar,
            which wins; safe for `jsonb`.
        media_type: `text/markdown`, `text/plain`, `text/x-rst`, `text/html` or
            `application/pdf`: what it was; the text of HTML is Markdown.
    """

    text: str
    title: str | None
    tags: tuple[str, ...]
    metadata: dict[str, JSON] = field(hash=False)
    media_type: str


def parse(path: str, content: bytes, sidecar: bytes | None = None) -> ParsedDocument:
    """Return what a document says.

    Args:
        path: Where it stands; only the ending counts, and an unknown one means plain text.
        content: Its bytes; none at all are an empty document, whatever the ending.
        sidecar: The bytes of its `<path>.meta.yaml`.

    Raises:
        DocumentError: `binary`, `front_matter`, `sidecar`, `too_deep`, `pdf_unreadable` or
            `no_text`.
    """
    media_type = _MEDIA_TYPES.get(PurePosixPath(path).suffix.lower(), "text/plain")
    beside = {} if sidecar is None else read_sidecar(sidecar)
    within, text, title = _READERS[media_type](content) if content else ({}, "", None)
    metadata = within | beside
    return ParsedDocument(
        text=text,
        title=clean_title(metadata.get("title")) or clean_title(title),
        tags=_tags(metadata.get("tags"), "sidecar" if "tags" in beside else "front_matter"),
        metadata=metadata,
        media_type=media_type,
    )


def parse_job(job: tuple[str, bytes, bytes | None]) -> ParsedDocument:
    """Parse a document given as path, content and sidecar, as a worker process is given it."""
    return parse(*job)


_Read = tuple[dict[str, JSON], str, str | None]


def _text(content: bytes, *, html: bool = False) -> str:
    if is_binary(content):
        raise DocumentError(
            "binary",
            "It is not text.",
            why="Its name says text, and its bytes are those of a picture, an archive or the like.",
            fix="Exclude it, or give it the name it should have.",
        )
    return normalise(decode(content, html=html))


def _read_markdown(content: bytes) -> _Read:
    metadata, body = split_front_matter(_text(content))
    return metadata, body, None if clean_title(metadata.get("title")) else markdown_title(body)


def _read_plain(content: bytes) -> _Read:
    return {}, _text(content), None


def _read_rst(content: bytes) -> _Read:
    text = _text(content)
    title, after = rst_title(text)
    return rst_fields(text, after), text, title


def _read_html(content: bytes) -> _Read:
    metadata, page = split_front_matter(_text(content, html=True))
    text, title = read_html(page)
    return metadata, normalise(text), title


def _read_pdf(content: bytes) -> _Read:
    text, title = read_pdf(content)
    return {}, normalise(text), title


_READERS: dict[str, Callable[[bytes], _Read]] = {
    "text/markdown": _read_markdown,
    "text/plain": _read_plain,
    "text/x-rst": _read_rst,
    "text/html": _read_html,
    "application/pdf": _read_pdf,
}


def _tags(value: JSON, place: str) -> tuple[str, ...]:
    """Return the tags in a list, or in a string with commas; `place` is where they stand."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list):
        return ()
    said = (str(item).strip() for item in items if isinstance(item, str | int | float))
    tags = tuple(dict.fromkeys(tag for tag in said if tag))
    longest = max((len(tag.encode()) for tag in tags), default=0)
    if longest > MAX_TAG_BYTES:
        raise DocumentError(
            place,
            "A tag is too long.",
            why=f"It has {longest:,} bytes; {MAX_TAG_BYTES} are allowed.",
            fix="Give short tags, as a list or with commas between them.",
        )
    return tags
