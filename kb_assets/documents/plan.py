"""What a listed document calls for, decided without looking at anything but values.

Values are tuples, which are made in a third of the time of dataclasses: there are several for
each document, changed or not.
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from kb_assets.documents.source import Entry


class State(NamedTuple):
    """Content under a recipe.

    Attributes:
        content_hash: SHA-256 of the content, sidecar included.
        recipe_id: The recipe it was, or would be, processed by.
    """

    content_hash: bytes
    recipe_id: int


class Candidate(NamedTuple):
    """A listed document that may have changed, and what is known of it.

    Attributes:
        entry: What the listing says.
        document_id: None if the path is new.
        seen: What was last read; None if it never could be.
        live: What readers see; None if nothing.
        judge_again: It is in quarantine, under conditions that no longer hold.
    """

    entry: Entry
    document_id: int | None = None
    seen: State | None = None
    live: State | None = None
    judge_again: bool = False


class Decision(Enum):
    """What to do with a document whose content was read."""

    TOUCH = "remember the version token"
    REVERT = "drop what waits: the content is what readers see already"
    PARSE = "make a new revision"


def decide(candidate: Candidate, content: State) -> Decision:
    """Say what a document's content calls for."""
    if candidate.seen == content and not candidate.judge_again:
        return Decision.TOUCH
    if candidate.live == content:
        return Decision.REVERT
    return Decision.PARSE


def batches(
    candidates: Iterable[Candidate], *, max_bytes: int, max_documents: int
) -> Iterator[list[Candidate]]:
    """Group candidates so that the contents of a group fit in memory.

    A document larger than `max_bytes` makes a group of its own.
    """
    group: list[Candidate] = []
    size = 0
    for candidate in candidates:
        full = len(group) >= max_documents or size + candidate.entry.size_bytes > max_bytes
        if group and full:
            yield group
            group, size = [], 0
        group.append(candidate)
        size += candidate.entry.size_bytes
    if group:
        yield group
