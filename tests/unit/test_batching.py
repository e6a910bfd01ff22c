from hypothesis import given
from hypothesis import strategies as st

from kb_assets.embeddings.batching import plan_batches

LENGTHS = st.lists(st.integers(0, 500), max_size=300)


def least(counts: list[int], max_texts: int, max_tokens: int) -> int:
    return max(-(-len(counts) // max_texts), -(-sum(counts) // max_tokens))


@given(LENGTHS, st.integers(1, 64), st.integers(1, 2000))
def test_every_text_is_in_one_batch_and_every_limit_is_kept(
    counts: list[int], max_texts: int, max_tokens: int
):
    batches = plan_batches(counts, max_texts=max_texts, max_tokens=max_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(counts)))
    for batch in batches:
        assert 1 <= len(batch) <= max_texts
        assert sum(counts[index] for index in batch) <= max_tokens or len(batch) == 1


@given(
    st.lists(st.sampled_from([0, 1, 3, 40, 250, 499, 500]) | st.integers(0, 500), max_size=1500),
    st.sampled_from([1, 2, 5, 32, 256, 2048]),
)
def test_requests_are_at_most_a_tenth_more_than_the_least_possible(
    counts: list[int], max_texts: int
):
    """Texts of at most a twentieth of the limit, as 8,192 tokens are of 200,000."""
    batches = plan_batches(counts, max_texts=max_texts, max_tokens=10_000)
    assert len(batches) <= 1.1 * least(counts, max_texts, 10_000) + 1
    assert all(len(batch) <= max_texts for batch in batches)


def test_long_and_short_texts_are_mixed_where_that_saves_requests():
    counts = [8000] * 100 + [10] * 1000
    assert len(plan_batches(counts, max_texts=256, max_tokens=200_000)) == 5


def test_mixing_keeps_the_limit_of_texts():
    counts = [500] * 40 + [0] * 100
    batches = plan_batches(counts, max_texts=32, max_tokens=10_000)
    assert len(batches) == 5
    assert max(map(len, batches)) == 32


def test_texts_of_similar_length_share_a_batch():
    counts = [10, 900, 12, 880, 11, 910]
    assert plan_batches(counts, max_texts=3, max_tokens=10_000) == [[5, 1, 3], [2, 4, 0]]


def test_a_text_over_the_limit_has_a_batch_of_its_own():
    assert plan_batches([5, 101, 5, 0], max_texts=10, max_tokens=100) == [[1], [0, 2, 3]]


def test_no_texts_need_no_request():
    assert plan_batches([], max_texts=10, max_tokens=100) == []
