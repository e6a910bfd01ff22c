"""The recipe: everything but content that decides what a document becomes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kb_assets.fingerprints import settings_fingerprint


@dataclass(frozen=True)
class Recipe:
    """Versions and settings of parser, splitter and input text.

    Attributes:
        settings: JSON-safe; equal settings make equal revisions of equal contents.
    """

    settings: Mapping[str, Any]

    @cached_property
    def fingerprint(self) -> bytes:
        """What the recipe is known by."""
        return settings_fingerprint(self.settings)
