import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.providers.hash import HashEmbedder

EMBEDDER = HashEmbedder()


def vector(text: str, embedder: Embedder = EMBEDDER) -> numpy.ndarray:
    return embedder.embed([text]).vectors[0]


def likeness(one: str, other: str) -> float:
    return float(vector(one) @ vector(other))


def test_it_is_an_embedder_of_384_dimensions_by_default():
    assert isinstance(EMBEDDER, Embedder)
    assert (EMBEDDER.model.provider, EMBEDDER.model.dimensions) == ("hash", 384)
    assert EMBEDDER.usd_per_million_tokens == 0
    answer = EMBEDDER.embed(["one text", "another, longer text"])
    assert answer.vectors.shape == (2, 384)
    assert answer.vectors.dtype == numpy.float32
    assert answer.tokens == 5


def test_dimensions_are_configurable():
    assert HashEmbedder(7).embed(["a", "b"]).vectors.shape == (2, 7)


def test_stored_vectors_stay_what_they_were():
    """Vectors are stored: if this changes, MODEL must change, so that a new space is filled."""
    small = HashEmbedder(8).embed(["How do I restore a backup?", "Gezeiten, Überfahrt 日本語"])
    numpy.testing.assert_array_equal(small.vectors, numpy.array(STORED, numpy.float32))


STORED = [
    [
        0.055727820843458176,
        0.5572782158851624,
        -0.11145564168691635,
        0.11145564168691635,
        -0.11145564168691635,
        -0.11145564168691635,
        0.33436691761016846,
        0.7244616746902466,
    ],
    [
        -0.2696799337863922,
        0.6741998791694641,
        0.5393598675727844,
        -0.1348399668931961,
        -0.2696799337863922,
        0.0,
        -0.1348399668931961,
        -0.2696799337863922,
    ],
]


def test_another_process_with_another_hash_seed_gives_the_same_bytes():
    program = (
        "from kb_assets.embeddings.providers.hash import HashEmbedder as H;"
        "print(H().embed(['tides and boats']).vectors.tobytes().hex())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "4711", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == vector("tides and boats").tobytes().hex()


@given(st.lists(st.text(), min_size=1, max_size=8), st.integers(1, 400))
def test_every_text_has_a_vector_of_length_one(texts: list[str], dimensions: int):
    vectors = HashEmbedder(dimensions).embed(texts).vectors
    assert vectors.shape == (len(texts), dimensions)
    numpy.testing.assert_allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@given(st.lists(st.text(alphabet="ab Ä.日\n", max_size=40), min_size=1, max_size=8))
def test_a_vector_does_not_depend_on_the_texts_beside_it(texts: list[str]):
    together = EMBEDDER.embed(texts).vectors
    alone = numpy.array([vector(text) for text in texts])
    numpy.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("text", ["", " ", "!?", "\x00", "\ud800", "🙂"])
def test_a_text_without_words_has_a_vector_too(text: str):
    assert numpy.linalg.norm(vector(text)) == pytest.approx(1)


def test_texts_without_words_differ():
    assert likeness("!?", "...") < 0.99


def test_case_and_unicode_form_do_not_matter():
    assert likeness("TIDES", "tides") == pytest.approx(1)
    assert likeness("\u00dcberfahrt", "U\u0308berfahrt") == pytest.approx(1)


def test_shared_words_make_texts_alike():
    question = "How do I restore a backup of the database?"
    near = "To restore a database backup, stop the writers first."
    assert (
        likeness(question, near) > likeness(question, "Holidays are booked in the calendar.") + 0.2
    )


def test_parts_of_words_make_texts_alike():
    assert likeness("restoring", "restored") > likeness("restoring", "holidays") + 0.2
    assert likeness("潮汐表", "潮汐") > likeness("潮汐表", "船舶") + 0.1


def test_common_words_weigh_little():
    assert likeness("what is the anchor", "what is the invoice") < 0.3


def test_pairs_of_words_tell_orders_apart():
    assert likeness("blue boat red house", "blue boat red house") > likeness(
        "blue boat red house", "blue house red boat"
    )


def test_a_repeated_word_counts_less_each_time():
    once, often = "anchor invoice", "anchor " * 100 + "invoice"
    assert 0.1 < likeness("invoice", often) < likeness("invoice", once)


def test_a_word_of_a_megabyte_is_no_trouble():
    assert numpy.linalg.norm(vector("x" * 1_000_000)) == pytest.approx(1)


def test_threads_may_share_it():
    texts = [f"text number {number} of many words" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(vector, texts))
    numpy.testing.assert_array_equal(numpy.array(rows), HashEmbedder().embed(texts).vectors)
