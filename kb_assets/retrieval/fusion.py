"""Joining both sides into one order. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

RRF_CONSTANT = 60
"""Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", 2009."""


@dataclass(slots=True)
class Candidate:
    """A chunk that one side or both have found.

    Attributes:
        revision_id: Its revision.
        ordinal: Its place in the revision.
        similarity: Cosine similarity to the question; None if it has no vector.
        bm25: What its words score; None if words were not asked for.
        share: The same as a share, 0 to 1, of what the question's words could score.
        vector_rank: Its rank by similarity among the candidates of that side, from 1.
        lexical_rank: Its rank by words.
        place: Its source, and its ordinal among the source's words; None if not analysed.
        fused: Both joined, 0 to 1.
        score: What candidates are ordered by.
    """

    revision_id: int
    ordinal: int
    similarity: float | None = None
    bm25: float | None = None
    share: float | None = None
    vector_rank: int | None = None
    lexical_rank: int | None = None
    place: tuple[int, int] | None = None
    fused: float = 0.0
    score: float = 0.0


def fuse(
    candidates: Sequence[Candidate],
    *,
    mode: Literal["hybrid", "vector", "lexical"],
    fusion: Literal["convex", "rrf"],
    vector_weight: float,
) -> None:
    """Give each candidate its fused score, and the score it is ordered by.

    The fused score is convex, `w · max(cosine, 0) + (1 - w) · share`, whatever the order is by:
    neither side is stretched to what the question happens to find, so that scores of different
    questions can be compared.

    Args:
        candidates: What was found, with what each side says of it.
        mode: Which sides count.
        fusion: How two sides are joined.
        vector_weight: The weight of similarity, 0 to 1.
    """
    weight = {"vector": 1.0, "lexical": 0.0, "hybrid": vector_weight}[mode]
    for one in candidates:
        nearness = max(one.similarity or 0.0, 0.0)
        one.fused = one.score = weight * nearness + (1 - weight) * (one.share or 0.0)
        if mode == "hybrid" and fusion == "rrf":
            ranks = (one.vector_rank, one.lexical_rank)
            one.score = sum(1 / (RRF_CONSTANT + rank) for rank in ranks if rank is not None)
        elif mode == "vector" and one.similarity is not None:
            one.score = one.similarity
