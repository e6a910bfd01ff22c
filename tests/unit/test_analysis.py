"""From texts to terms."""

import tracemalloc
from collections import Counter

import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kb_assets.index import analysis
from kb_assets.index.analysis import (
    MAX_TERM_CHARACTERS,
    features,
    occurrences,
    raw_tokens,
    read,
    terms_of,
    words_of,
)

LARGEST_KEY_BYTES = 2704
"""What PostgreSQL takes in a B-tree at most."""

ODD = "aB9_-.'\u2019 \x00\u65e5\u672c\u0e44\u0301\u0130"
ANY_TEXT = st.text() | st.text(alphabet=ODD, max_size=60)


def unstemmed(text: str, *stop_words: str) -> list[str]:
    """Return the terms of a text, its words as they are."""
    words = words_of(raw_tokens(text))
    return list(terms_of(text, {word: None if word in stop_words else word for word in words}))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Restoring the Backup.", "restoring the backup"),
        ("max_retry_count", "max retry count max_retry_count"),
        ("KafkaConsumer", "kafka consumer kafkaconsumer"),
        ("parseHTTPResponse2", "parse http response2 parsehttpresponse2"),
        ("iPhone", "i phone iphone"),
        ("--dry-run", "dry run --dry-run"),
        ("(--dry-run)", "dry run --dry-run"),
        ("run -v now", "run v -v now"),
        ("app.settings.DEBUG", "app settings debug app.settings.debug"),
        ("state-of-the-art", "state of the art state-of-the-art"),
        ("TS-4290", "ts 4290 ts-4290"),
        ("self.__init__()", "self init self.__init"),
        ("__init__", "init"),
        ("foo.", "foo"),
        ("a -- b - c", "a b c"),
        ("-1 --2", "1 2"),
        ("3.14 1,000 2026-01-31", "3 14 3.14 1 000 2026 01 31 2026-01-31"),
        ("Ann's ANN\u2019s anns", "ann ann anns"),
        ("l'hôtel don\u2019t", "l hôtel don t"),
        ("Ελλάδα STRASSE straße", "ελλάδα strasse straße"),
        ("日本語", "日本 本語"),
        ("猫", "猫"),
        ("日本語API_v2入門", "日本 本語 入門 api v2 api_v2"),
        ("한국어 𠀀𠀁", "한국 국어 𠀀𠀁"),
        ("ภาษา", "ภา าษ ษา"),
        ("हिन्दी", "हिन्दी"),
        ("ייִדיש", "ייִדיש"),
        ("🙂 — § ... !?", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_terms(text: str, terms: str) -> None:
    assert Counter(unstemmed(text)) == Counter(terms.split())


def test_what_is_asked_is_cut_as_what_was_stored() -> None:
    """Whoever asks writes small, without punctuation, or only a part."""
    for asked, stored in (
        ("kafkaconsumer", "KafkaConsumer"),
        ("consumer", "KafkaConsumer"),
        ("MAX_RETRY_COUNT", "`max_retry_count`"),
        ("dry run", "--dry-run"),
        ("ts-4290", "see TS-4290."),
        ("settings", "app.settings"),
    ):
        assert set(unstemmed(asked)) <= set(unstemmed(stored)), asked


def test_stop_words_are_dropped_and_identifiers_are_not() -> None:
    assert unstemmed("The to-do of the day", "the", "of", "to", "do") == ["to-do", "day"]


def test_stems_take_the_place_of_words() -> None:
    stems = {"running": "run", "fast": "fast"}
    assert list(terms_of("Running fast", stems)) == ["run", "fast"]


def test_a_token_of_ten_million_characters_gives_nothing() -> None:
    assert unstemmed("x" * 10_000_000) == []
    assert set(unstemmed("'s" * 5_000_000)) == {"s"}


def test_long_tokens_are_not_remembered() -> None:
    tracemalloc.start()
    for number in range(100):
        features(f"{number}" + "x" * 20_000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 500_000


def test_the_longest_term_fits_into_an_index() -> None:
    (longest,) = unstemmed("\U00010400" * MAX_TERM_CHARACTERS)
    assert len(longest.encode()) == 4 * MAX_TERM_CHARACTERS <= LARGEST_KEY_BYTES
    assert unstemmed("\U00010400" * (MAX_TERM_CHARACTERS + 1)) == []
    # One that becomes longer when it is written small.
    assert unstemmed("\u0130" * MAX_TERM_CHARACTERS) == []


@given(ANY_TEXT)
@example("\ud800 a\udfff")
@example("\x00a\x00b_\x00c")
def test_any_text_has_terms_that_can_be_stored(text: str) -> None:
    for term in unstemmed(text):
        assert 1 <= len(term) <= MAX_TERM_CHARACTERS
        assert len(term.encode()) <= LARGEST_KEY_BYTES
        assert "\x00" not in term


@given(ANY_TEXT)
@example("Backup 日本 日 a日 ABC aBc Éa éA Ελλάδα 1² ﬁn")
def test_short_cuts_lead_to_the_same_place(text: str) -> None:
    for raw in raw_tokens(text):
        assert features(raw) == analysis._parted(raw)


@given(
    st.lists(st.lists(ANY_TEXT, max_size=4), min_size=1, max_size=3),
    st.sets(st.sampled_from(["a", "b", "9", "the"])),
)
def test_occurrences_are_what_counting_gives(pieces: list[list[str]], stop_words: set[str]) -> None:
    texts = [text for piece in pieces for text in piece]
    words = words_of(raw for text in texts for raw in raw_tokens(text))
    stems = {word: None if word in stop_words else word for word in words}
    readings = [read(piece) for piece in pieces]
    assert {word for reading in readings for word in reading.words} == words
    found = occurrences(readings, stems)

    counters = [Counter(terms_of(text, stems)) for text in texts]
    pairs = list(zip(found.term_ids.tolist(), found.texts.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    counted = [Counter[str]() for _ in texts]
    for (term, text), count in zip(pairs, found.counts.tolist(), strict=True):
        counted[text][found.terms[term]] = count
    assert counted == counters
    assert found.lengths.tolist() == [counter.total() for counter in counters]
    assert found.lengths.dtype == found.counts.dtype == numpy.int64
