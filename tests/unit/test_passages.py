"""From chunks to passages."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kb_assets.retrieval.fusion import Candidate
from kb_assets.retrieval.passages import MAX_CHUNKS, Passage, passages_of


def ranked(*places: tuple[int, int]) -> list[Candidate]:
    """Return candidates, best first, from revisions and ordinals."""
    return [
        Candidate(revision, ordinal, score=1 - rank / 1000)
        for rank, (revision, ordinal) in enumerate(places)
    ]


def made(
    *places: tuple[int, int], limit: int = 10, merge: bool = True, per_document: int = 0
) -> list[tuple[int, int, int, int]]:
    """Return revision, first, last and best ordinal of each passage."""
    passages = passages_of(ranked(*places), limit, merge=merge, per_document=per_document)
    return [(one.revision_id, one.first, one.last, one.best.ordinal) for one in passages]


def test_neighbours_become_one_passage_at_the_place_of_the_best() -> None:
    places = (1, 5), (2, 0), (1, 4), (1, 6), (2, 2), (1, 8)
    assert made(*places) == [(1, 4, 6, 5), (2, 0, 0, 0), (2, 2, 2, 2), (1, 8, 8, 8)]
    assert made(*places, merge=False) == [(one, at, at, at) for one, at in places]


def test_equal_ordinals_of_two_revisions_are_no_neighbours() -> None:
    assert made((1, 0), (2, 1)) == [(1, 0, 0, 0), (2, 1, 1, 1)]


def test_two_passages_do_not_grow_into_one() -> None:
    assert made((1, 0), (1, 2), (1, 1)) == [(1, 0, 1, 0), (1, 2, 2, 2)]


def test_a_long_passage_is_cut() -> None:
    assert made(*((1, ordinal) for ordinal in range(6))) == [(1, 0, 3, 0), (1, 4, 5, 4)]
    # What a full passage does not take may lengthen the one on the other side.
    full = [(1, ordinal) for ordinal in range(MAX_CHUNKS)]
    assert made(*full, (1, 5), (1, 4)) == [(1, 0, 3, 0), (1, 4, 5, 5)]


def test_no_more_passages_than_wanted_and_of_a_document() -> None:
    places = (1, 0), (1, 2), (1, 4), (2, 0), (1, 1), (3, 0)
    assert made(*places, limit=2) == [(1, 0, 0, 0), (1, 2, 2, 2)]
    assert made(*places, per_document=1) == [(1, 0, 1, 0), (2, 0, 0, 0), (3, 0, 0, 0)]
    assert made(*places, per_document=2, limit=3) == [(1, 0, 1, 0), (1, 2, 2, 2), (2, 0, 0, 0)]
    assert made(*places, per_document=1, merge=False, limit=2) == [(1, 0, 0, 0), (2, 0, 0, 0)]
    assert made(limit=3) == []


def test_what_is_found_before_the_last_place_is_given_away_still_widens() -> None:
    assert made((1, 0), (1, 1), (2, 0), (2, 1), limit=2) == [(1, 0, 1, 0), (2, 0, 1, 0)]


PLACES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 15)), unique=True)


@given(PLACES, st.integers(1, 12), st.booleans(), st.integers(0, 3))
def test_passages_hold_every_promise(
    places: list[tuple[int, int]], limit: int, merge: bool, per_document: int
) -> None:
    candidates = ranked(*places)
    passages = passages_of(candidates, limit, merge=merge, per_document=per_document)
    assert len(passages) <= limit
    scores = [one.best.score for one in passages]
    assert scores == sorted(scores, reverse=True)
    chunks = [(one.revision_id, one.ordinal) for passage in passages for one in passage.chunks]
    assert len(chunks) == len(set(chunks))
    for passage in passages:
        assert_whole(passage)
        assert len(passage.chunks) <= (MAX_CHUNKS if merge else 1)
    for revision in {passage.revision_id for passage in passages}:
        mine = sorted((one.first, one.last) for one in passages if one.revision_id == revision)
        assert all(before[1] < after[0] for before, after in pairwise(mine))
    of_revision = Counter(passage.revision_id for passage in passages)
    assert not per_document or max(of_revision.values(), default=0) <= per_document
    if len(passages) < limit and not per_document:
        assert set(chunks) == set(places), "something was left out although there was room"


def assert_whole(passage: Passage) -> None:
    """It has each chunk from first to last, and its best is the best of them."""
    assert [one.ordinal for one in sorted(passage.chunks, key=lambda one: one.ordinal)] == list(
        range(passage.first, passage.last + 1)
    )
    assert {one.revision_id for one in passage.chunks} == {passage.revision_id}
    assert passage.best.score == max(one.score for one in passage.chunks)
