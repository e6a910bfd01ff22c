"""From chunks to passages: neighbours become one, and no document takes every place. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from kb_assets.retrieval.fusion import Candidate

MAX_CHUNKS = 4
"""A passage of more chunks is no longer one that answers, but the document."""


@dataclass(slots=True)
class Passage:
    """Chunks of one revision that stand side by side.

    Attributes:
        best: The one that was found first, whose score counts.
        first: The ordinal it starts with.
        last: The ordinal it ends with.
    """

    best: Candidate
    first: int
    last: int
    chunks: list[Candidate] = field(default_factory=list)

    @property
    def revision_id(self) -> int:
        """The revision it stands in."""
        return self.best.revision_id


def passages_of(
    ranked: Sequence[Candidate], limit: int, *, merge: bool, per_document: int
) -> list[Passage]:
    """Return at most `limit` passages, best first.

    Args:
        ranked: Candidates, best first.
        limit: The most passages wanted.
        merge: Whether a candidate that stands beside a passage becomes part of it.
        per_document: The most passages of one revision; 0 sets no bound.
    """
    made: list[Passage] = []
    owner: dict[tuple[int, int], Passage] = {}
    of_revision: Counter[int] = Counter()
    for one in ranked:
        if merge and (beside := _beside(one, owner)) is not None:
            beside.chunks.append(one)
            beside.first = min(beside.first, one.ordinal)
            beside.last = max(beside.last, one.ordinal)
            owner[one.revision_id, one.ordinal] = beside
            continue
        if len(made) == limit:
            # Later ones may still widen a passage, but not for ever: they are much worse.
            break
        if per_document and of_revision[one.revision_id] == per_document:
            continue
        passage = Passage(one, one.ordinal, one.ordinal, [one])
        made.append(passage)
        of_revision[one.revision_id] += 1
        owner[one.revision_id, one.ordinal] = passage
    return made


def _beside(one: Candidate, owner: dict[tuple[int, int], Passage]) -> Passage | None:
    """Return the passage that a candidate would lengthen, unless it is long enough.

    Two passages never grow into one: the second was found by itself.
    """
    for neighbour in (one.ordinal - 1, one.ordinal + 1):
        passage = owner.get((one.revision_id, neighbour))
        if passage is not None and len(passage.chunks) < MAX_CHUNKS:
            return passage
    return None
