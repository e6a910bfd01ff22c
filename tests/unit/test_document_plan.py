"""What a listed document calls for."""

from hypothesis import given
from hypothesis import strategies as st

from kb_assets.documents.listing import Absence
from kb_assets.documents.plan import Candidate, Decision, State, batches, decide
from kb_assets.documents.source import Entry

OLD, NEW = State(b"old", 1), State(b"new", 1)


def candidate(**known: object) -> Candidate:
    return Candidate(Entry("a.md", "1", 10), **known)


def test_what_was_seen_is_only_touched() -> None:
    assert decide(candidate(document_id=1, seen=OLD, live=OLD), OLD) is Decision.TOUCH


def test_new_content_is_parsed() -> None:
    assert decide(candidate(), NEW) is Decision.PARSE
    assert decide(candidate(document_id=1, seen=OLD, live=OLD), NEW) is Decision.PARSE


def test_the_same_content_under_another_recipe_is_parsed() -> None:
    seen = candidate(document_id=1, seen=OLD, live=OLD)
    assert decide(seen, State(OLD.content_hash, 2)) is Decision.PARSE


def test_going_back_to_what_readers_see_drops_what_waits() -> None:
    assert decide(candidate(document_id=1, seen=NEW, live=OLD), OLD) is Decision.REVERT


def test_a_quarantined_document_is_judged_again_although_it_is_the_same() -> None:
    again = candidate(document_id=1, seen=OLD, live=None, judge_again=True)
    assert decide(again, OLD) is Decision.PARSE
    still = candidate(document_id=1, seen=OLD, live=None)
    assert decide(still, OLD) is Decision.TOUCH


def test_the_guard_withholds_above_its_share_only() -> None:
    lost = tuple(range(3))
    assert Absence(live=10, moved=(), unseen=(), lost=lost).withheld(0.3) == ()
    assert Absence(live=9, moved=(), unseen=(), lost=lost).withheld(0.3) == lost
    assert Absence(live=9, moved=tuple(range(9)), unseen=(7, 8), lost=()).withheld(0.3) == ()


sizes = st.lists(st.integers(0, 50), max_size=60)


@given(sizes, st.integers(1, 100), st.integers(1, 10))
def test_batches_keep_order_and_bounds(sizes: list[int], max_bytes: int, most: int) -> None:
    all_ = [Candidate(Entry(str(n), None, size)) for n, size in enumerate(sizes)]
    groups = list(batches(all_, max_bytes=max_bytes, max_documents=most))
    assert [one for group in groups for one in group] == all_
    for group in groups:
        assert 0 < len(group) <= most
        assert len(group) == 1 or sum(one.entry.size_bytes for one in group) <= max_bytes
