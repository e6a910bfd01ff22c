"""Who or what is erased."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from kb_assets.errors import NotFoundError, SettingsError

Scope = Literal["conversation", "user", "document"]


@dataclass(frozen=True, slots=True)
class Subject:
    """Who or what is erased.

    Attributes:
        scope: What the name is of.
        name: An id as clients know it; of a document, its source and path with `/` in between.
    """

    scope: Scope
    name: str

    def __post_init__(self) -> None:
        try:
            self.name.encode()
        except UnicodeEncodeError:
            raise self.not_found() from None
        if not self.name or "\0" in self.name:
            raise self.not_found()
        if self.scope == "document" and not all(self.source_and_path):
            raise SettingsError(
                f"{self.name!r} names no document.",
                why="A document is named by its source and its path in it.",
                fix="Write SOURCE/PATH, as `kb search` and `kb why` show them.",
            )

    @property
    def hash(self) -> bytes:
        """The SHA-256 of the name: what the ledger keeps instead of it."""
        return sha256(self.name.encode()).digest()

    @property
    def source_and_path(self) -> tuple[str, str]:
        """A document's source, and its path in it."""
        source, _, path = self.name.partition("/")
        return source, path

    def not_found(self, fix: str = "Look at the name again; nothing was erased.") -> NotFoundError:
        """Return the error for a subject that nothing is known of."""
        return NotFoundError(f"There is no {self.scope} {self.name!r}.", fix=fix)
