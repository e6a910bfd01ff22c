from itertools import pairwise

import bpe_openai
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from kb_assets.chunks.tokens import CharacterRuler, TokenRuler, count_tokens

ENCODINGS = ["cl100k_base", "o200k_base"]

TRICKY_PIECES = [
    *("don't", "I'LL", "\u017f'S", "the ", "12345", "/path", "```", "<|endoftext|>", "x" * 30),
    *("  \n ", "\n\n", "\r\n", "\t", " ", "\u00a0", "\u2028"),
    *("e\u0301", "\u200d", "漢字", "👨‍👩‍👧", "İ"),
]
# Whether a character is a letter depends on the Unicode version, if it is not an old one.
ASSIGNED = st.text(st.characters(exclude_categories=["Cn", "Cs"]), max_size=5)
TRICKY = st.lists(st.sampled_from(TRICKY_PIECES) | ASSIGNED, max_size=30).map("".join)


class TextbookEncoding:
    """Byte pair encoding as it is described, from the published vocabulary: slow, and sure."""

    def __init__(self, name: str) -> None:
        published = bpe_openai.get_encoding(name)
        self.words = regex.compile(published._pat_str)
        self.ranks = {token: rank for rank, token in enumerate(published.token_byte_values())}

    def count(self, text: str) -> int:
        return sum(len(self.merge(word.encode())) for word in self.words.findall(text))

    def merge(self, word: bytes) -> list[bytes]:
        parts = [bytes([byte]) for byte in word]
        while len(parts) > 1:
            ranked = [
                (self.ranks.get(left + right, len(self.ranks)), index)
                for index, (left, right) in enumerate(pairwise(parts))
            ]
            rank, index = min(ranked)
            if rank == len(self.ranks):
                break
            parts[index : index + 2] = [parts[index] + parts[index + 1]]
        return parts


@pytest.fixture(scope="module", params=ENCODINGS)
def textbook(request):
    return request.param, TextbookEncoding(request.param)


@settings(deadline=None, max_examples=200)
@given(text=TRICKY)
def test_counts_are_those_of_the_published_encoding(textbook, text):
    name, encoding = textbook
    assert count_tokens(text, name) == encoding.count(text)


def test_special_tokens_in_a_document_are_only_text():
    assert count_tokens("<|endoftext|>") > 1


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None)
@given(text=TRICKY, budget=st.integers(0, 40), data=st.data())
def test_a_reach_is_a_whole_number_of_characters_near_the_budget(encoding, text, budget, data):
    ruler = TokenRuler(encoding, text)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    part = text[start:end]

    forward = part[: ruler.reach(text, start, end, budget) - start]
    backward = part[ruler.reach_back(text, start, end, budget) - start :]

    for reached in (forward, backward):
        assert count_tokens(reached, encoding) <= budget + 3
        assert reached == part or count_tokens(reached, encoding) >= budget - 8


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_reach_in_plain_prose_is_exact(encoding):
    text = "The quick brown fox jumps over the lazy dog. " * 50
    ruler = TokenRuler(encoding, text)
    assert count_tokens(text[: ruler.reach(text, 0, len(text), 100)], encoding) == 100
    assert count_tokens(text[ruler.reach_back(text, 0, len(text), 100) :], encoding) == 100


@pytest.mark.parametrize("text", ["", "a", "word " * 1000, "\n" * 5000])
def test_a_budget_for_everything_reaches_both_ends(text):
    for ruler in (TokenRuler("cl100k_base", "a"), CharacterRuler()):
        assert ruler.reach(text, 0, len(text), 10_000) == len(text)
        assert ruler.reach_back(text, 0, len(text), 10_000) == 0


def test_no_budget_reaches_nothing():
    for ruler in (TokenRuler("cl100k_base", "some text"), CharacterRuler()):
        for budget in (0, -1):
            assert ruler.reach("some text", 2, 9, budget) == 2
            assert ruler.reach_back("some text", 2, 9, budget) == 9


def test_measuring_within_a_limit_includes_the_limit():
    for ruler, size in ((TokenRuler("cl100k_base", ""), 3), (CharacterRuler(), 13)):
        assert ruler.measure("one two three") == size
        assert ruler.measure_within("one two three", size) == size
        assert ruler.measure_within("one two three", size - 1) is None


def test_characters_are_code_points():
    ruler = CharacterRuler()
    assert ruler.measure("e\u0301漢") == 3
    assert ruler.reach("abcdef", 1, 6, 2) == 3
    assert ruler.reach_back("abcdef", 1, 6, 2) == 4
    assert ruler.width(7) == 7
