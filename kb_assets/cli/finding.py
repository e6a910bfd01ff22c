"""What one look of `kb doctor` showed."""

from dataclasses import dataclass
from typing import Literal

from kb_assets.errors import KbError

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look showed.

    Attributes:
        name: What was looked at.
        level: `ok`, `warn` or `fail`.
        words: What was seen.
        fix: What to do about it.
    """

    name: str
    level: Level
    words: str
    fix: str = ""

    @classmethod
    def failed(cls, name: str, error: KbError) -> "Finding":
        """Return what an error says."""
        return cls(name, "fail", " ".join(filter(None, (error.what, error.why))), error.fix)
