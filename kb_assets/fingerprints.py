"""What things are known by: contents, texts, recipes, slots and shards.

All of it is pure, and all of it is stored: a change to any function here makes
every stored value wrong, so each has a test with a literal result.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kb_assets.errors import SettingsError

INPUT_TEXT_VERSION = 1
"""Raised when `input_text` changes; part of every recipe."""

SLOTS = 4096
"""How many slots the documents of a source fall into."""


def content_hash(content: bytes, sidecar: bytes | None = None) -> bytes:
    """Return the SHA-256 of a document's bytes, and of its sidecar's if it has one."""
    digest = hashlib.sha256(content)
    if sidecar is not None:
        digest.update(b"\x00sidecar\x00")
        digest.update(hashlib.sha256(sidecar).digest())
    return digest.digest()


def input_text(title: str | None, heading_path: Sequence[str], text: str) -> str:
    """Return the text that is embedded for a chunk: title, headings, then the chunk.

    The path is left out on purpose: a renamed document costs nothing. The title
    must come from the content for the same reason. A title that is also the
    outermost heading is said once. White space around the chunk is left out: a
    paragraph at the end of a document is the same text as one in its middle.
    """
    heads = list(heading_path)
    if title and (not heads or heads[0] != title):
        heads.insert(0, title)
    return f"{' > '.join(heads)}\n\n{text.strip()}" if heads else text.strip()


def input_hash(text: str) -> bytes:
    """Return the SHA-256 of an input text's UTF-8 bytes: the key of its vector."""
    return hashlib.sha256(text.encode()).digest()


def settings_fingerprint(settings: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of settings, independent of the order of their keys."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).digest()


def slot(path: str) -> int:
    """Return the slot, 0 to 4095, that a path belongs to for ever."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:2], "big") % SLOTS


@dataclass(frozen=True, slots=True)
class Shard:
    """A range of a source's slots: the unit of parallel work and a Dagster partition.

    Attributes:
        source: The source's name.
        number: Which shard, from 1.
        of: How many shards the source has.
    """

    source: str
    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= SLOTS:
            raise SettingsError(f"Shard {self.number} of {self.of} does not exist.")

    @property
    def key(self) -> str:
        """The partition key: `handbook`, or `wiki-03-of-16`."""
        if self.of == 1:
            return self.source
        width = max(2, len(str(self.of)))
        return f"{self.source}-{self.number:0{width}}-of-{self.of:0{width}}"

    @property
    def slot_low(self) -> int:
        """The first slot of the shard."""
        return (self.number - 1) * SLOTS // self.of

    @property
    def slot_high(self) -> int:
        """The first slot after the shard."""
        return self.number * SLOTS // self.of

    def owns(self, path: str) -> bool:
        """Say whether a path's slot lies in this shard."""
        return self.slot_low <= slot(path) < self.slot_high


def shards_of(source: str, count: int) -> tuple[Shard, ...]:
    """Return all shards of a source, in order."""
    return tuple(Shard(source, number, count) for number in range(1, count + 1))
