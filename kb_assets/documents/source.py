"""What a source is: something that lists entries and reads them."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """One document of a listing; a tuple, because there are as many as there are documents.

    Attributes:
        path: Where it stands in the source, with `/` between folders; valid UTF-8.
        token: Changes whenever the content may have changed (sidecar included); None when
            nothing is known that would show a change, so that it is read every time.
        size_bytes: Size of the content.
        sidecar: Path of `<path>.meta.yaml`, if there is one.
        problem: Why it cannot be read at all (a stable word), if that is already known.
    """

    path: str
    token: str | None
    size_bytes: int
    sidecar: str | None = None
    problem: str | None = None


class Content(NamedTuple):
    """What was read of an entry.

    Attributes:
        content: The document's bytes.
        sidecar: The sidecar's bytes, if there is one.
        token: The version the bytes belong to; None if it may have changed while it was read.
    """

    content: bytes
    sidecar: bytes | None
    token: str | None


class DocumentSource(Protocol):
    """A place documents come from."""

    def entries(self) -> Iterator[Entry]:
        """List the documents, in the same order for as long as nothing changes.

        Raises:
            SourceError: The place does not exist, or is not ours to read.
            SourceUnavailableError: The place cannot be reached, or the listing broke off.
        """

    def read(self, entry: Entry) -> Content:
        """Read one document.

        Raises:
            DocumentError: It is gone, unreadable, too large, or points outside the source.
            SourceUnavailableError: The place cannot be reached.
        """
