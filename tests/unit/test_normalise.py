import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kb_assets.documents.normalise import normalise
from kb_assets.documents.parse import parse
from kb_assets.errors import DocumentError

ANYTHING = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=["Cs"]),
        st.sampled_from("\r\n\t\v\f\x00\x1b\x7f\x85\ufeff\u0344\u0301\u0316e\u1100\u1161"),
    )
)


def text(content: bytes, path: str = "a.txt") -> str:
    return parse(path, content).text


@settings(deadline=None)
@given(ANYTHING)
@example("\u0344" * 30)
@example("a" + "\u0301" * 31)
@example("\x00\ufeff\r\ufeff")
@example("\ufeff\r\n")
def test_normalising_twice_changes_nothing(anything: str) -> None:
    once = normalise(anything)
    assert normalise(once) == once


@settings(deadline=None)
@given(ANYTHING)
def test_what_is_normalised_can_be_stored_and_has_only_known_controls(anything: str) -> None:
    clean = normalise(anything)
    assert clean.encode().decode() == clean
    assert not {c for c in clean if c < " " or c == "\x7f"} - {"\n", "\t"}
    assert unicodedata.is_normalized("NFC", clean)
    assert not clean.startswith("\ufeff")


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_text_or_refused_as_binary(content: bytes) -> None:
    try:
        clean = text(content)
    except DocumentError as error:
        assert error.reason == "binary"
    else:
        assert normalise(clean) == clean


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff")))
def test_ordinary_text_is_only_composed(ordinary: str) -> None:
    assert text(ordinary.encode()) == unicodedata.normalize("NFC", ordinary)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ""),
        (b"a\r\nb\rc\n\r\n\rd", "a\nb\nc\n\n\nd"),
        (b"page\x0cnext\x0bline", "page\nnext\nline"),
        (b"one\x00 stray", "one stray"),
        (b"a\tb\x1b[0m\x7f", "a\tb[0m"),
        (b"\xef\xbb\xbfbom", "bom"),
        (b"\xef\xbb\xbf\xef\xbb\xbftwo boms", "two boms"),
        ("über".encode("utf-16"), "über"),
        ("\ufeffüber".encode("utf-16-be"), "über"),
        ("cafe\u0301".encode(), "café"),
        ("日本語 🐚 👩\u200d🚀".encode(), "日本語 🐚 👩\u200d🚀"),
        # A lone surrogate, encoded as if it were a character, is invalid UTF-8.
        (b"\xc3\xa4 \xed\xa0\x80 end", "ä \ufffd\ufffd\ufffd end"),
        # One bad byte between good ones: meant as UTF-8.
        ("grün".encode() + b" \xff " + "süß".encode(), "grün \ufffd süß"),
        # Nothing in it is UTF-8: Windows-1252.
        ("Grüße… 5 €".encode("windows-1252"), "Grüße… 5 €"),
        (b"caf\xe9 \x81", "café \ufffd"),
    ],
)
def test_bytes_become_text_by_the_stated_rules(content: bytes, expected: str) -> None:
    assert text(content) == expected


def test_a_lone_surrogate_becomes_a_replacement_character() -> None:
    assert normalise("a\ud800b\udfff") == "a\ufffdb\ufffd"


def test_a_tower_of_combining_marks_is_cut_before_it_costs_minutes() -> None:
    tower = "a" + "\u0316\u0301" * 500_000
    assert len(text(tower.encode())) <= 32


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"\x89PNG",
        b"%PDF-1.7 all of it readable",
        b"PK\x03\x04 zip",
        bytes(1000),
        b"text " * 100 + bytes(20),
        "UTF-16 without a mark".encode("utf-16-le"),
        bytes(range(256)) * 10,
    ],
)
@pytest.mark.parametrize("path", ["a.md", "a.txt", "a.rst", "a.html"])
def test_what_is_no_text_is_refused(content: bytes, path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(path, content)
    assert caught.value.reason == "binary"
    assert caught.value.fix


@pytest.mark.parametrize(
    "content", [b"a few \x00\x01\x02 controls in a long text" * 1, b"\x1b[31mred\x1b[0m" * 100]
)
def test_a_few_controls_do_not_make_a_text_binary(content: bytes) -> None:
    assert text(content)


@pytest.mark.parametrize(
    ("charset", "word"), [("shift_jis", "日本語"), ("koi8-r", "Привет"), ("windows-1251", "мир")]
)
def test_html_is_believed_about_its_charset(charset: str, word: str) -> None:
    page = f'<html><head><meta charset="{charset}"></head><body><p>{word}</p></body></html>'
    assert text(page.encode(charset), "a.html") == word


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "zlib", "idna", "no-such-one"])
def test_charsets_that_are_none_are_not_believed(charset: str) -> None:
    page = f'<meta charset="{charset}"><p>caf'.encode() + b"\xe9</p>"
    assert text(page, "a.html") == "café"
