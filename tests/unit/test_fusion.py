"""Joining both sides into one order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_assets.retrieval.fusion import Candidate, fuse


def fused(
    *candidates: Candidate, mode: Any = "hybrid", fusion: Any = "convex", weight: float = 0.25
) -> list[Candidate]:
    fuse(candidates, mode=mode, fusion=fusion, vector_weight=weight)
    return sorted(candidates, key=lambda one: -one.score)


def test_convex_adds_what_both_sides_say() -> None:
    both, near, worded, far = fused(
        Candidate(1, 0, similarity=0.8, bm25=9.0, share=0.6),
        Candidate(2, 0, similarity=0.9, bm25=0.0, share=0.0),
        Candidate(3, 0, similarity=None, bm25=2.0, share=0.2),
        Candidate(4, 0, similarity=-0.5, bm25=1.0, share=0.1),
    )
    assert both.score == both.fused == pytest.approx(0.25 * 0.8 + 0.75 * 0.6)
    assert near.score == near.fused == pytest.approx(0.25 * 0.9)
    assert worded.score == worded.fused == pytest.approx(0.75 * 0.2)
    assert far.score == far.fused == pytest.approx(0.75 * 0.1)


def test_one_side_alone() -> None:
    made = Candidate(1, 0, similarity=-0.5, bm25=9.0, share=0.6)
    fused(made, mode="vector")
    assert (made.score, made.fused) == (-0.5, 0.0)
    fused(made, mode="lexical")
    assert (made.score, made.fused) == (0.6, 0.6)


def test_rrf_orders_by_ranks_and_leaves_the_fused_score() -> None:
    first, second, third = fused(
        Candidate(1, 0, similarity=0.9, share=0.0, vector_rank=1),
        Candidate(2, 0, similarity=0.5, share=0.4, vector_rank=3, lexical_rank=2),
        Candidate(3, 0, similarity=0.4, share=0.5, lexical_rank=4),
        fusion="rrf",
    )
    assert [first.revision_id, second.revision_id, third.revision_id] == [2, 1, 3]
    assert first.score == pytest.approx(1 / 63 + 1 / 62)
    assert first.fused == pytest.approx(0.25 * 0.5 + 0.75 * 0.4)
    for mode, score in (("vector", 0.5), ("lexical", 0.4)):
        fused(first, mode=mode, fusion="rrf")
        assert first.score == score


SHARES = st.floats(0, 1)


@given(st.floats(-1, 1), SHARES, SHARES, st.sampled_from(["convex", "rrf"]))
def test_the_fused_score_is_a_share_of_one(
    similarity: float, share: float, weight: float, fusion: str
) -> None:
    for mode in ("hybrid", "vector", "lexical"):
        made = Candidate(1, 0, similarity=similarity, share=share, vector_rank=1, lexical_rank=1)
        fused(made, mode=mode, fusion=fusion, weight=weight)
        assert 0 <= made.fused <= 1 + 1e-9


@given(SHARES, SHARES, SHARES, SHARES, SHARES)
def test_who_is_better_on_both_sides_is_not_worse(
    near: float, nearer: float, less: float, more: float, weight: float
) -> None:
    worse = Candidate(1, 0, similarity=min(near, nearer), share=min(less, more))
    better = Candidate(2, 0, similarity=max(near, nearer), share=max(less, more))
    fused(worse, better, weight=weight)
    assert better.score >= worse.score
