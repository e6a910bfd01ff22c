import hashlib
import math
from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from kb_assets.chunks import tokens
from kb_assets.chunks.chunk import Chunk
from kb_assets.chunks.splitters import SPLITTER_VERSION, SplitSettings, split
from kb_assets.chunks.tokens import count_tokens
from kb_assets.documents.headings import MAX_HEADING_CHARACTERS, plain_heading
from kb_assets.errors import SettingsError

STRATEGIES = ["markdown", "recursive", "sentence", "fixed"]

HOSTILE_PIECES = [
    *("a", "word ", "Foo. ", "bar! Baz", "don't", "123456", "/", "x" * 40, "\x00", "é", "漢字。"),
    *("\n", "\n\n", " ", "    ", "\t", "\r\n", "\u3000", "\u2028", " " * 30, "\n" * 30),
    *("# H\n", "## H2\n\n", "Set\n===\n", "---\n", "- item\n", "  - sub\n", "1. one\n", "> q\n"),
    *("```\n", "```py\ncode # x\n\nmore\n```\n", "~~~\n", "> ```\n", "<!-- x\n", "-->\n"),
    *("| a | b |\n|---|---|\n| 1 | 2 |\n", "e\u0301", "\u0301", "\u0301" * 9, "\u200d"),
    *("👨‍👩‍👧", "🇩🇪", "क्षि", "नमस्ते "),
]
HOSTILE = st.lists(st.sampled_from(HOSTILE_PIECES) | st.text(max_size=4), max_size=50).map("".join)
ORDINARY_PIECES = [piece for piece in HOSTILE_PIECES if len(piece) < 10 and len(set(piece)) > 1]
ORDINARY = st.lists(st.sampled_from(ORDINARY_PIECES), max_size=150).map("\n".join)


@st.composite
def split_settings(draw, smallest=1, largest=60):
    size = draw(st.integers(smallest, largest))
    return SplitSettings(
        strategy=draw(st.sampled_from(STRATEGIES)),
        size=size,
        overlap=draw(st.integers(0, size - 1)),
        unit=draw(st.sampled_from(["tokens", "characters"])),
        encoding=draw(st.sampled_from(["cl100k_base", "o200k_base"])),
    )


def measure(text: str, options: SplitSettings) -> int:
    return count_tokens(text, options.encoding) if options.unit == "tokens" else len(text)


def gaps(text: str, chunks: list[Chunk]) -> list[tuple[int, int]]:
    """The byte ranges that lie in no chunk."""
    edges = [0, *(edge for c in chunks for edge in (c.byte_start, c.byte_end)), len(text.encode())]
    return [(end, start) for end, start in zip(edges[::2], edges[1::2], strict=True) if start > end]


def overlaps(chunks: list[Chunk]) -> list[str]:
    """What each chunk but the first repeats of the one before."""
    return [
        after.text.encode()[: max(0, before.byte_end - after.byte_start)].decode()
        for before, after in pairwise(chunks)
    ]


# What holds for every text and all settings.


@settings(deadline=None, max_examples=150)
@given(text=HOSTILE, options=split_settings(), markdown=st.booleans())
def test_a_chunk_is_exactly_its_bytes_of_the_text_and_never_blank(text, options, markdown):
    chunks = split(text, options, markdown=markdown)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert chunk.text == text.encode()[chunk.byte_start : chunk.byte_end].decode()
        assert chunk.text.strip()
    for before, after in pairwise(chunks):
        assert before.byte_start < after.byte_start
        assert before.byte_end < after.byte_end


@settings(deadline=None, max_examples=150)
@given(text=HOSTILE, options=split_settings(), markdown=st.booleans())
def test_no_chunk_is_over_the_size_unless_it_is_one_character(text, options, markdown):
    for chunk in split(text, options, markdown=markdown):
        assert measure(chunk.text, options) <= options.size or len(chunk.text) == 1


@settings(deadline=None, max_examples=150)
@given(text=HOSTILE, options=split_settings(), markdown=st.booleans())
def test_token_counts_are_exact_where_chunks_are_measured_in_tokens(text, options, markdown):
    for chunk in split(text, options, markdown=markdown):
        exact = count_tokens(chunk.text, options.encoding)
        beyond_ascii = chunk.byte_end - chunk.byte_start - len(chunk.text)
        estimated = math.ceil(len(chunk.text) / 3) + beyond_ascii
        assert chunk.token_count == (exact if options.unit == "tokens" else estimated)


@settings(deadline=None, max_examples=150)
@given(text=HOSTILE, options=split_settings(), markdown=st.booleans())
def test_only_white_space_that_fits_beside_no_chunk_is_left_out(text, options, markdown):
    chunks = split(text, options, markdown=markdown)
    content = text.encode()
    for start, end in gaps(text, chunks):
        assert content[start:end].decode().isspace()
        for chunk in chunks:
            if chunk.byte_end == start:
                assert measure(content[chunk.byte_start : end].decode(), options) > options.size
            if chunk.byte_start == end:
                assert measure(content[start : chunk.byte_end].decode(), options) > options.size


@settings(deadline=None, max_examples=150)
@given(text=ORDINARY, options=split_settings(40, 120), markdown=st.booleans())
def test_every_character_of_an_ordinary_text_is_in_a_chunk(text, options, markdown):
    assert not text.strip() or gaps(text, split(text, options, markdown=markdown)) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("text", ["x" * 40 + "\n", "x" * 40 + " \n# y\n", "word word\nword \n\n "])
def test_white_space_at_the_end_takes_a_piece_of_the_last_word_along(text, strategy):
    assert gaps(text, split(text, SplitSettings(strategy, 10, 0, "characters"))) == []


def test_white_space_at_the_start_stays_with_the_first_words():
    chunks = split("\n\nword word word", SplitSettings("recursive", 15, 0, "characters"))
    assert [chunk.text for chunk in chunks] == ["\n\nword word ", "word"]


@pytest.mark.parametrize(
    "text, options",
    [
        ("\n🇩🇪", SplitSettings("recursive", 5, 0)),
        ("```\n\t🇩🇪", SplitSettings("recursive", 5, 0)),
        ("> ```\n👨‍👩‍👧\t", SplitSettings("sentence", 4, 2, "characters")),
    ],
    ids=["before a large cluster", "after a word", "at the end"],
)
def test_white_space_that_no_chunk_has_room_for_goes_to_one_it_completes(text, options):
    assert gaps(text, split(text, options)) == []


def edges_inside_clusters(text: str, chunks: list[Chunk]) -> list[str]:
    """The clusters that a chunk begins or ends inside of."""
    inside: dict[int, str] = {}
    position = 0
    for cluster in regex.findall(r"\X", text):
        for character in cluster[:-1]:
            position += len(character.encode())
            inside[position] = cluster
        position += len(cluster[-1].encode())
    edges = [edge for chunk in chunks for edge in (chunk.byte_start, chunk.byte_end)]
    return [inside[edge] for edge in edges if edge in inside]


@settings(deadline=None, max_examples=150)
@given(text=HOSTILE, options=split_settings(), markdown=st.booleans())
def test_no_cut_is_inside_a_cluster_that_fits_a_chunk(text, options, markdown):
    for cluster in edges_inside_clusters(text, split(text, options, markdown=markdown)):
        assert measure(cluster, options) > options.size


@pytest.mark.parametrize("unit", ["tokens", "characters"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_chunk_of_clusters_without_spaces_begins_or_ends_inside_one(strategy, unit):
    text = "e\u0301👨‍👩‍👧🇩🇪क्षि漢" * 50
    for size in range(20, 40):
        assert (
            edges_inside_clusters(text, split(text, SplitSettings(strategy, size, 9, unit))) == []
        )


@settings(deadline=None)
@given(text=HOSTILE, options=split_settings(), other=HOSTILE)
def test_splitting_again_gives_the_same_chunks(text, options, other):
    first = split(text, options)
    split(other, options)
    assert split(text, options) == first


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("text", ["", " ", "\n\n\n", "\t\r\n\u3000\u2028", " " * 100_000])
def test_a_blank_text_has_no_chunks(text, strategy):
    assert split(text, SplitSettings(strategy=strategy, size=5, overlap=1)) == []


@settings(deadline=None)
@given(text=HOSTILE, options=split_settings())
def test_without_overlap_no_character_is_in_two_chunks(text, options):
    options = SplitSettings(options.strategy, options.size, 0, options.unit, options.encoding)
    for before, after in pairwise(split(text, options)):
        assert before.byte_end <= after.byte_start


# Overlap.

PROSE = " ".join(f"Sentence {n} tells how the quick brown fox went on its way." for n in range(200))


@pytest.mark.parametrize("unit, size, overlap", [("tokens", 100, 30), ("characters", 400, 120)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_chunk_of_prose_repeats_about_the_overlap(strategy, unit, size, overlap):
    options = SplitSettings(strategy, size, overlap, unit)
    repeated = overlaps(split(PROSE, options))
    assert len(repeated) > 10
    for text in repeated:
        assert overlap / 2 <= measure(text, options) <= overlap


@settings(deadline=None, max_examples=150)
@given(text=HOSTILE, options=split_settings(), markdown=st.booleans())
def test_no_chunk_repeats_more_than_the_overlap(text, options, markdown):
    for repeated in overlaps(split(text, options, markdown=markdown)):
        assert measure(repeated, options) <= options.overlap + (
            2 if options.unit == "tokens" else 0
        )


@pytest.mark.parametrize("strategy", ["markdown", "recursive", "sentence"])
def test_the_overlap_of_prose_begins_with_a_sentence(strategy):
    chunks = split(PROSE, SplitSettings(strategy, size=100, overlap=40))
    assert all(chunk.text.startswith("Sentence ") for chunk in chunks)


def test_nothing_is_repeated_across_a_heading():
    text = f"# One\n\n{PROSE[:900]}\n\n## Two\n\n{PROSE[:900]}\n"
    chunks = split(text, SplitSettings(size=60, overlap=25))
    before_two = text.index("## Two")
    assert any(chunk.byte_start == before_two for chunk in chunks)
    assert not any(chunk.byte_start < before_two < chunk.byte_end for chunk in chunks)


# Markdown.


@st.composite
def handbook(draw):
    """A Markdown text, and for each `w<n>` in it the headings above it."""
    lines: list[str] = []
    paths: dict[str, tuple[str, ...]] = {}
    path: list[tuple[int, str]] = []
    for number in range(draw(st.integers(1, 25))):
        word = f"w{number}"
        kind = draw(st.sampled_from(["atx", "setext", "text", "fence", "table", "list", "quote"]))
        if kind in ("atx", "setext"):
            level = draw(st.integers(1, 6 if kind == "atx" else 2))
            path = [*((above, title) for above, title in path if above < level), (level, word)]
            under = "=" if level == 1 else "-"
            lines += [f"{'#' * level} {word}"] if kind == "atx" else [word, under * 3]
        else:
            lines += {
                "text": [f"Some {word} text. " * draw(st.integers(1, 8))],
                "fence": ["```sh", f"# {word} is no heading", "", "===", "```"],
                "table": [f"| {word} | b |", "|---|---|", *["| # 1 | 2 |"] * 3],
                "list": [f"- {word}", "  # still the item", "", "  ---", "- ## more"],
                "quote": [f"> # {word}", "> ---", "> more"],
            }[kind]
        lines.append("")
        paths[word] = tuple(title for _, title in path)
    return "\n".join(lines), paths


@settings(deadline=None)
@given(handbook=handbook(), size=st.integers(30, 200), overlap=st.integers(0, 20))
def test_each_chunk_knows_the_headings_above_it(handbook, size, overlap):
    text, paths = handbook
    for chunk in split(text, SplitSettings(size=size, overlap=overlap)):
        for word in regex.findall(r"\bw\d+\b", chunk.text):
            assert paths[word] == chunk.heading_path[: len(paths[word])]
            assert paths[word] == chunk.heading_path or paths[word][-1] == word


@settings(deadline=None)
@given(handbook=handbook(), size=st.integers(40, 200), overlap=st.integers(0, 30))
def test_fences_and_tables_that_fit_stay_whole(handbook, size, overlap):
    text, _ = handbook
    chunks = split(text, SplitSettings(size=size, overlap=overlap))
    for block in regex.findall(r"```sh\n.*?\n```\n|(?:\|[^\n]*\n)+", text, regex.DOTALL):
        assert any(block in chunk.text for chunk in chunks)


@pytest.mark.parametrize(
    "before, after",
    [("- item\n\n", "\n- next item\n"), ("1. item\n   ", "\n2. next\n"), ("!!! tip\n", "")],
)
def test_a_fence_in_a_list_stays_whole(before, after):
    fence = "    ```py\n    a = 1  # one\n\n    b = 2\n    ```\n"
    text = "- some more text in an item\n" * 3 + before + fence + after
    for size in range(count_tokens(fence + "\n") + 2, count_tokens(text)):
        chunks = split(text, SplitSettings(size=size, overlap=0))
        assert any(fence in chunk.text for chunk in chunks)


def test_a_fence_in_a_quote_stays_whole():
    fence = "> ```\n> Print. Now.\n>\n> And. Then.\n> ```\n"
    text = "> Some words of a long quote.\n" * 3 + fence + "> And more words.\n" * 3
    for size in range(count_tokens(fence) + 1, count_tokens(text)):
        chunks = split(text, SplitSettings(size=size, overlap=0))
        assert any(fence in chunk.text for chunk in chunks)


def test_blocks_are_packed_whole_up_to_the_size():
    paragraphs = [f"Paragraph {n} has its own few words.\n\n" for n in range(10)]
    size = count_tokens("".join(paragraphs[:3]))
    chunks = split("".join(paragraphs), SplitSettings(size=size, overlap=0))
    assert [chunk.text for chunk in chunks] == [
        "".join(paragraphs[first : first + 3]) for first in range(0, 10, 3)
    ]


@pytest.mark.parametrize(
    "block",
    [f"```\n{'code = 1 ' * 20}\n```\n\n", "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 12 + "\n"],
)
def test_a_block_that_fills_a_chunk_stays_whole_at_the_cost_of_overlap(block):
    size = count_tokens(block)
    text = f"{'Some words. ' * 10}\n\n{block}{'More words. ' * 40}"
    assert block in [chunk.text for chunk in split(text, SplitSettings(size=size, overlap=20))]


def test_a_block_over_the_size_does_not_leave_a_small_chunk_before_it():
    chunks = split(f"Few words.\n\n{PROSE}", SplitSettings(size=100, overlap=0))
    assert chunks[0].token_count > 80


@pytest.mark.parametrize(
    "text",
    [
        "```py\n" + "value = call(1, 2)  # why\n" * 60 + "```\n",
        "| name | value |\n|---|---|\n" + "| some name | some value |\n" * 60,
        "    indented = code()\n" * 60,
        "<pre>\n" + "raw # text\n\n" * 60 + "</pre>\n",
    ],
)
def test_code_and_tables_over_the_size_are_cut_at_lines(text):
    chunks = split(text, SplitSettings(size=60, overlap=15))
    assert len(chunks) > 3
    assert all(chunk.text.endswith("\n") for chunk in chunks)
    assert all(
        chunk.byte_start == 0 or text.encode()[chunk.byte_start - 1 :][:1] == b"\n"
        for chunk in chunks
    )


def test_a_paragraph_over_the_size_is_cut_at_sentences():
    chunks = split(PROSE, SplitSettings(size=80, overlap=0))
    assert all(chunk.text.rstrip().endswith("way.") for chunk in chunks)
    assert all(60 < chunk.token_count <= 80 for chunk in chunks[:-1])


def test_a_sentence_over_the_size_is_cut_at_words():
    chunks = split("reasonable words " * 300, SplitSettings(size=50, overlap=0))
    assert all(chunk.text.split()[0] in ("reasonable", "words") for chunk in chunks)
    assert all(chunk.token_count > 45 for chunk in chunks[:-1])


def test_a_list_over_the_size_is_cut_at_items():
    items = [f"- Item {n} says something\n  and goes on. And on\n" for n in range(30)]
    chunks = split("".join(items), SplitSettings(size=50, overlap=0))
    assert len(chunks) > 5
    assert all(chunk.text.startswith("- Item") for chunk in chunks)


def test_a_heading_with_nothing_but_headings_under_it_joins_the_first_of_them():
    text = "# Top\n\n## Middle\n\n### Leaf\n\nText.\n\n### Next\n\nMore.\n"
    assert [(chunk.text, chunk.heading_path) for chunk in split(text, SplitSettings())] == [
        ("# Top\n\n## Middle\n\n### Leaf\n\nText.\n\n", ("Top", "Middle", "Leaf")),
        ("### Next\n\nMore.\n", ("Top", "Middle", "Next")),
    ]


def test_a_heading_stays_with_the_text_under_it():
    for size in range(30, 140):
        chunks = split(f"# Some heading here\n\n{PROSE[:500]}", SplitSettings(size=size, overlap=5))
        assert "Sentence 0" in chunks[0].text


@pytest.mark.parametrize(
    "text",
    [
        "```\n# no\n```\n",
        "~~~~\n```\n# no\n~~~\n# no\n~~~~\n",
        "````\n```\n# no\n````\n",
        "```\n# never closed\n",
        "    # indented code\n",
        "text\n    # goes on\n",
        "\t# tab\n",
        "#no space\n",
        "####### seven\n",
        "- item\n\n  # in the item\n",
        "> # quoted\n",
        "<!--\n# hidden\n-->\n",
        "<script>\n# hidden\n</script>\n",
        "text\n\n---\n\ntext\n",
        "- item\n---\n",
        "a | b\n--- | ---\n| # 1 |\n",
        "\\# escaped\n",
    ],
)
def test_what_only_looks_like_a_heading_is_none(text):
    assert [chunk.heading_path for chunk in split(text, SplitSettings())] == [()]


@pytest.mark.parametrize(
    "text, path",
    [
        ("# A\n\ntext", ("A",)),
        ("   ## A ##  \ntext", ("A",)),
        ("#\tA\ntext", ("A",)),
        ("A\n=\ntext", ("A",)),
        ("two\nlines\n---\ntext", ("two lines",)),
        ("# A\r\n\r\ntext", ("A",)),
        ("### A\n\n# B\n\n### C\n\ntext", ("B", "C")),
        ("#\n\n## A\n\ntext", ("A",)),
        ("```\ncode\n```\n# A\ntext", ("A",)),
        ("- item\n# A\ntext", ("A",)),
        ("- ```\n  code\n# A\ntext", ("A",)),
        ("> ```\n# A\ntext", ("A",)),
        ("> quote\n# A\ntext", ("A",)),
        ("a | b\n--|--\n1 | 2\n# A\ntext", ("A",)),
        ("<!-- one line -->\n# A\ntext", ("A",)),
    ],
)
def test_headings_are_found_where_markdown_has_them(text, path):
    assert split(text, SplitSettings())[-1].heading_path == path


@pytest.mark.parametrize(
    "source, plain",
    [
        ("Plain words", "Plain words"),
        ("`kb_assets` *is* __here__", "kb_assets is here"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        ("``a `tick` b`` and `__init__`", "a `tick` b and __init__"),
        ("[A *link*](https://x.test/a_b) & ![image](i.png)", "A link & image"),
        ("[![badge](b.png)](https://x.test) [ref][1]", "badge ref"),
        ("<https://x.test> <em>tag</em><!-- no -->", "https://x.test tag"),
        ("First Steps { #first-steps .class }", "First Steps"),
        ("keep {braces} and {this}", "keep {braces} and {this}"),
        (r"\*starred\* &amp; `&amp;`", "*starred* & &amp;"),
        ("~~gone~~   and\n\tback", "gone and back"),
        ("", ""),
    ],
)
def test_headings_are_plain_text(source, plain):
    assert plain_heading(source) == plain


def test_an_endless_heading_is_cut_short_in_the_path():
    chunks = split(f"# {'[' * 100_000}\n\ntext", SplitSettings())
    assert {len(chunk.heading_path[0]) for chunk in chunks} == {MAX_HEADING_CHARACTERS}


def test_plain_text_has_no_headings_and_is_split_recursively():
    text = f"# One\n\n{PROSE}"
    chunks = split(text, SplitSettings(), markdown=False)
    assert chunks == split(text, SplitSettings("recursive"))
    assert {chunk.heading_path for chunk in chunks} == {()}


# The other strategies.


@pytest.mark.parametrize(
    "text, size, expected",
    [
        ("one two\n\nthree four\nfive", 20, ["one two\n\n", "three four\nfive"]),
        ("one two\nthree four five", 20, ["one two\n", "three four five"]),
        ("One two. Three four five.", 18, ["One two. ", "Three four five."]),
        ("one two three four", 10, ["one two ", "three four"]),
        ("one  two   three", 12, ["one  two   ", "three"]),
        ("extraordinary", 8, ["extraord", "inary"]),
        ("日本語です。次の文です。", 8, ["日本語です。", "次の文です。"]),
    ],
)
def test_recursive_cuts_at_the_coarsest_boundary_there_is(text, size, expected):
    options = SplitSettings("recursive", size, overlap=0, unit="characters")
    assert [chunk.text for chunk in split(text, options)] == expected


def test_sentence_packs_whole_sentences():
    packed = [
        'Dr. Smith paid 3.50 e.g. for "tea." ',
        "Was it good?! Yes… He left.\n\nno end\n\n",
        "1. First. 2 is it.",
    ]
    options = SplitSettings("sentence", size=37, overlap=0, unit="characters")
    assert [chunk.text for chunk in split("".join(packed), options)] == packed


@pytest.mark.parametrize(
    "first, second",
    [
        ("Before it all. ", "He met Dr. Smith."),
        ("Before it all. ", "Some fruit, e.g. apples."),
        ("Before it all. ", "Some ... and more."),
        ("Before it all.\n", "1. First item."),
        ("Before it all. ", "From A. Writer."),
    ],
)
def test_not_every_full_stop_ends_a_sentence(first, second):
    options = SplitSettings("sentence", len(first + second) - 1, overlap=0, unit="characters")
    assert [chunk.text for chunk in split(first + second, options)] == [first, second]


@pytest.mark.parametrize("unit, size, overlap", [("tokens", 64, 16), ("characters", 100, 25)])
def test_fixed_cuts_windows_of_exactly_the_size(unit, size, overlap):
    options = SplitSettings("fixed", size, overlap, unit)
    chunks = split(PROSE, options)
    assert {measure(chunk.text, options) for chunk in chunks[:-1]} == {size}
    assert {measure(text, options) for text in overlaps(chunks)} == {overlap}


# Texts that break careless splitters. What is counted is work, not time.

LENGTH = 200_000
ENDLESS = {
    "words": "word " * (LENGTH // 5),
    "sentences": "A sentence. " * (LENGTH // 12),
    "letters": "abcdefghij" * (LENGTH // 10),
    "one letter": "a" * LENGTH,
    "spaces": "a" + " " * LENGTH + "b",
    "newlines": "a" + "\n" * LENGTH + "b",
    "dots": "." * LENGTH,
    "fence signs": "`" * LENGTH,
    "hashes": "# " * (LENGTH // 2),
    "heading": "# a" + " " * LENGTH + "#",
    "table rule": "a|b\n" + "|-" * (LENGTH // 2),
    "unclosed fence": "```\n" + "x = 1\n" * (LENGTH // 6),
    "Han": "漢字" * (LENGTH // 6),
    "combining marks": "\u0301" * (LENGTH // 2),
    "joined emoji": "👨\u200d" * (LENGTH // 7),
    "flags": "🇩🇪" * (LENGTH // 8),
    "nested quotes": ">" * LENGTH,
    "nested lists": "\n".join("  " * depth + "- a" for depth in range(1000)),
    "headings": "# h\n" * (LENGTH // 4),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_the_work_is_proportional_to_the_text(text, strategy, monkeypatch):
    seen = 0

    class Counting:
        def __init__(self, name):
            self.real = tokenizer(name)

        def __getattr__(self, method):
            def counted(argument, *rest):
                nonlocal seen
                seen += len(argument)
                return getattr(self.real, method)(argument, *rest)

            return counted

    tokenizer = tokens._tokenizer
    monkeypatch.setattr(tokens, "_tokenizer", Counting)
    chunks = split(text, SplitSettings(strategy))
    assert max(chunk.token_count for chunk in chunks) <= 400
    assert seen <= 12 * len(text) + 10_000


def test_each_of_many_headings_is_found():
    chunks = split("# h\n\ntext\n\n" * 100_000, SplitSettings())
    assert len(chunks) == 100_000
    assert {chunk.heading_path for chunk in chunks} == {("h",)}


# Settings and version.


@pytest.mark.parametrize("size, overlap", [(0, 0), (-1, 0), (10, 10), (10, 11), (10, -1)])
def test_impossible_settings_are_refused(size, overlap):
    with pytest.raises(SettingsError):
        SplitSettings(size=size, overlap=overlap)


def test_other_chunks_for_the_same_text_need_a_new_splitter_version():
    text = f"Before.\n\n# One\n\n{PROSE[:2000]}\n\n```py\n{'code()  # x' * 40}\n```\n\n" + "".join(
        HOSTILE_PIECES
    )
    digest = hashlib.sha256()
    for strategy in STRATEGIES:
        for chunk in split(text, SplitSettings(strategy, size=50, overlap=10)):
            place = (chunk.byte_start, chunk.byte_end, chunk.token_count, *chunk.heading_path)
            digest.update(f"{place}\n".encode())
    assert (SPLITTER_VERSION, digest.hexdigest()[:16]) == (1, "f0f7df9c26689e3c")
