"""What reading some documents came to, ready to be stored in one transaction."""

from dataclasses import dataclass, field
from typing import NamedTuple

from kb_assets.documents.parse import ParsedDocument
from kb_assets.documents.plan import Candidate, State
from kb_assets.errors import DocumentError


class Read(NamedTuple):
    """A document that was read.

    Attributes:
        candidate: What was known of it.
        token: The version the content belongs to; None if it may have changed meanwhile.
        state: What its content is.
    """

    candidate: Candidate
    token: str | None
    state: State


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document that gets a new revision."""

    read: Read
    document: ParsedDocument


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that goes to quarantine; without `read`, nothing could be read of it."""

    candidate: Candidate
    read: Read | None
    error: DocumentError


@dataclass(slots=True)
class Batch:
    """What one transaction will say of some documents.

    Attributes:
        touched: Read, and as they were.
        reverted: Back to what readers see.
        moved: Known under another path until now, with the ids of their documents.
        parsed: To become new revisions.
        refused: To be quarantined.
    """

    touched: list[Read] = field(default_factory=list)
    reverted: list[Read] = field(default_factory=list)
    moved: list[tuple[Read, int]] = field(default_factory=list)
    parsed: list[Parsed] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    @property
    def read(self) -> list[Read]:
        """All of which the content is known, the touched ones first."""
        parsed = [one.read for one in self.parsed]
        refused = [one.read for one in self.refused if one.read is not None]
        moved = [read for read, _ in self.moved]
        return [*self.touched, *self.reverted, *moved, *parsed, *refused]

    @property
    def candidates(self) -> list[Candidate]:
        """All of them."""
        unread = [one.candidate for one in self.refused if one.read is None]
        return [*(one.candidate for one in self.read), *unread]
