import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb_assets.documents.parse import ParsedDocument, parse
from kb_assets.errors import DocumentError


def markdown(text: str, sidecar: str | None = None) -> ParsedDocument:
    return parse("a.md", text.encode(), None if sidecar is None else sidecar.encode())


def reason(path: str, content: bytes, sidecar: bytes | None = None) -> str:
    with pytest.raises(DocumentError) as caught:
        parse(path, content, sidecar)
    assert caught.value.what
    assert caught.value.why
    assert caught.value.fix
    return caught.value.reason


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("a.md", "text/markdown"),
        ("x/A.MARKDOWN", "text/markdown"),
        ("a.txt", "text/plain"),
        ("a.rst", "text/x-rst"),
        ("a.html", "text/html"),
        ("a.htm", "text/html"),
        ("a.pdf", "application/pdf"),
        ("a.py", "text/plain"),
        (".md", "text/plain"),
        ("md", "text/plain"),
    ],
)
def test_an_empty_file_is_an_empty_document_of_its_type(path: str, media_type: str) -> None:
    assert parse(path, b"") == ParsedDocument("", None, (), {}, media_type)


def test_the_body_of_markdown_stays_as_it_is() -> None:
    document = markdown("---\ntitle: T\n---\n\n# H\n\n* a\t`b`  \n\n---\n\nc\n")
    assert document.text == "\n# H\n\n* a\t`b`  \n\n---\n\nc\n"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# One\n# Two", "One"),
        ("intro\n\n## Two\n\n# One", "One"),
        ("   # Indented #", "Indented"),
        ("    # code\n\ntext", None),
        ("#no space", None),
        ("#\n\n# Second", "Second"),
        ("#\ttab", "tab"),
        ("####### seven", None),
        ("```\n# code\n```\n# After", "After"),
        ("~~~~ sh\n# code\n~~~\n# code\n~~~~\n# After", "After"),
        ("```\n# never closed", None),
        ("`` ` ``\n# After", "After"),
        ("```inline``` code\n# After", "After"),
        ("<!-- # no\n# no -->\n# After", "After"),
        ("<!-- # never\n# closed", None),
        ("Title\n=====\n\n# Later", "Title"),
        ("- item\n===\n\n# After", "After"),
        ("> quote\n===\n\n# After", "After"),
        ("Title\n\n=====\n", None),
        ("=====\n", None),
        ("# First Steps { #first-steps }", "First Steps"),
        ("# The *great* **`kb`** [guide](x.md) ![logo](l.png)", "The great kb guide logo"),
        ("# snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        ("# <abbr title='x'>API</abbr> keys", "API keys"),
        ("# C\\# and \\*stars\\*", "C# and *stars*"),
        ("# " + "long " * 1000, ("long " * 60).strip()),
        ("no heading", None),
    ],
)
def test_the_title_of_markdown_is_its_first_level_1_heading(text: str, title: str | None) -> None:
    assert markdown(text).title == title


@pytest.mark.parametrize(
    ("head", "sidecar", "title"),
    [
        ("title: Front", None, "Front"),
        ("title: Front", "title: Beside", "Beside"),
        ("other: 1", "title: Beside", "Beside"),
        ("title: 2024", None, "2024"),
        ("title: 2024-05-01", None, "2024-05-01"),
        ("title: |\n  two\n  lines", None, "two lines"),
        ("title: ''", None, "Heading"),
        ("title: null", None, "Heading"),
        ("title: [a, b]", None, "Heading"),
        ("title: true", None, "Heading"),
        ("other: 1", None, "Heading"),
    ],
)
def test_metadata_comes_before_headings_and_sidecars_before_both(
    head: str, sidecar: str | None, title: str
) -> None:
    assert markdown(f"---\n{head}\n---\n# Heading\n", sidecar).title == title


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("[a, b, a]", ("a", "b")),
        ("a, b,, c ", ("a", "b", "c")),
        ("one", ("one",)),
        ("[2024, ' x ', null, [y], {z: 1}]", ("2024", "x")),
        ("{a: b}", ()),
        ("null", ()),
    ],
)
def test_tags_are_a_list_or_a_string_with_commas(tags: str, expected: tuple[str, ...]) -> None:
    assert markdown(f"---\ntags: {tags}\n---\n").tags == expected


def test_a_tag_too_long_for_an_index_is_refused() -> None:
    assert markdown(f"---\ntags: {'x' * 500}\n---\n").tags == ("x" * 500,)
    prose = ("tags: " + "prose without commas " * 600).encode()
    assert reason("a.md", b"---\n" + prose + b"\n---\ntext") == "front_matter"
    assert reason("a.md", b"text", prose) == "sidecar"
    assert reason("a.md", f"---\ntags: {'ü' * 251}\n---\n".encode()) == "front_matter"


@pytest.mark.parametrize(
    "value", ["!!bool maybe", '!!int ""', '!!float ""', "!!timestamp foo", "!!binary ü"]
)
def test_a_value_that_is_not_of_its_yaml_type_is_refused(value: str) -> None:
    said = f"x: {value}\n".encode()
    assert reason("a.md", b"---\n" + said + b"---\ntext") == "front_matter"
    assert reason("a.md", b"text", said) == "sidecar"


def test_a_sidecar_adds_to_front_matter_and_wins() -> None:
    document = markdown("---\na: 1\nb: 2\ntags: [x]\n---\ntext", "b: 3\nc: 4\ntags: y, z")
    assert document.metadata == {"a": 1, "b": 3, "c": 4, "tags": "y, z"}
    assert document.tags == ("y", "z")


def test_metadata_is_safe_for_jsonb() -> None:
    document = markdown(
        "---\n"
        "date: 2024-05-01\n"
        "at: 2024-05-01T10:00:00+02:00\n"
        "7: int key\n"
        "null: none key\n"
        "yes: true key\n"
        "2024-01-01: date key\n"
        "nan: .nan\n"
        "inf: -.inf\n"
        'nul: "a\\0b"\n'
        "set: !!set {b, a}\n"
        "binary: !!binary aGk=\n"
        "pairs: !!pairs [k: v]\n"
        f"large: {10**30}\n"
        f"huge: 0x{'f' * 20_000}\n"
        "nested: [{2: [.inf]}]\n"
        "---\n"
    )
    assert document.metadata["huge"] == "0x" + "f" * 20_000
    assert {key: value for key, value in document.metadata.items() if key != "huge"} == {
        "date": "2024-05-01",
        "at": "2024-05-01T10:00:00+02:00",
        "7": "int key",
        "null": "none key",
        "true": "true key",
        "2024-01-01": "date key",
        "nan": None,
        "inf": None,
        "nul": "ab",
        "set": ["a", "b"],
        "binary": "aGk=",
        "pairs": [["k", "v"]],
        "large": str(10**30),
        "nested": [{"2": [None]}],
    }
    json.dumps(document.metadata, allow_nan=False).encode()


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    "yaml",
    [
        "a: [",
        "a: b: c",
        "just a sentence",
        "- a\n- b",
        "date: 2024-02-31",
        "a: !!python/object/apply:os.system [true]",
        "? [a]\n: b",
        "int: " + "9" * 5000,
        "a: &x [*x]",
        LAUGHS,
        "a: " + "[" * 30_000,
        "a: " + "[" * 30_000 + "]" * 30_000,
        "- " * 20_000,
        "a: " + "x" * 66_000,
        "\tb: tab",
        "a: *unknown",
        'a: "\\ud800"',
    ],
    ids=lambda yaml: yaml[:20],
)
def test_metadata_that_cannot_be_used_is_refused(yaml: str) -> None:
    assert reason("a.md", f"---\n{yaml}\n---\ntext".encode()) == "front_matter"
    assert reason("a.md", b"text", yaml.encode()) == "sidecar"


def test_metadata_of_exactly_the_limit_is_taken() -> None:
    sidecar = "k: " + "x" * (64 * 1024 - 3)
    assert len(str(markdown("text", sidecar).metadata["k"])) == 64 * 1024 - 3
    assert reason("a.md", b"text", (sidecar + "x").encode()) == "sidecar"


@pytest.mark.parametrize("sidecar", ["", "\n", "# nothing\n", "---\n"])
def test_an_empty_sidecar_says_nothing(sidecar: str) -> None:
    assert markdown("text", sidecar).metadata == {}


@pytest.mark.parametrize(
    ("text", "metadata", "body"),
    [
        ("---\n---\nbody", {}, "body"),
        ("---\na: 1\n...\nbody", {"a": 1}, "body"),
        ("--- \na: 1\n--- ", {"a": 1}, ""),
        ("---\r\na: 1\r\n---\r\nbody", {"a": 1}, "body"),
        ("\ufeff---\na: 1\n---\nbody", {"a": 1}, "body"),
        ("---\nnever closed", {}, "---\nnever closed"),
        ("----\na: 1\n----\n", {}, "----\na: 1\n----\n"),
        ("\n---\na: 1\n---\n", {}, "\n---\na: 1\n---\n"),
        (" ---\na: 1\n---\n", {}, " ---\na: 1\n---\n"),
        ("---\na: |\n  ---\n---\nbody", {"a": "---\n"}, "body"),
    ],
)
def test_front_matter_stands_between_fences_at_the_very_start(
    text: str, metadata: dict[str, object], body: str
) -> None:
    document = markdown(text)
    assert (document.metadata, document.text) == (metadata, body)


def test_the_path_says_nothing_but_the_format() -> None:
    content = b"---\na: 1\n---\n# T\n"
    assert parse("x/y.md", content) == parse("other.md", content)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Title\n=====\n\ntext", "Title"),
        ("=====\nTitle\n=====\n", "Title"),
        ("======\n Title\n======\n", "Title"),
        ("text\n\nTitle\n-----\n", "Title"),
        ("Much longer\n---\n\nTitle\n~~~~~\n", "Title"),
        ("---\nAll\n---\n", "All"),
        ("text only", None),
    ],
)
def test_the_title_of_restructured_text_is_its_first_section(text: str, title: str | None) -> None:
    document = parse("a.rst", text.encode())
    assert (document.title, document.text) == (title, text)


def test_fields_below_the_title_of_restructured_text_are_metadata() -> None:
    fields = ":owner: office\n:year: 2025\n:tags: a, b\n:x: a: [b\n"
    text = f"=====\nTitle\n=====\n\n{fields}\n:no: 1\n"
    document = parse("a.rst", text.encode())
    assert document.metadata == {"owner": "office", "year": 2025, "tags": "a, b", "x": "a: [b"}
    assert document.tags == ("a", "b")
    assert document.text == text


def test_plain_text_has_no_title_and_no_front_matter() -> None:
    document = parse("a.txt", b"---\ntitle: x\n---\n# y\n")
    assert (document.title, document.metadata) == (None, {})
    assert document.text == "---\ntitle: x\n---\n# y\n"


PAGE = """<!DOCTYPE html><html><head><title>The {x} page</title>
<style>p {{color: red}}</style><script>var secret = 1</script></head><body>
<nav><a href="/">Home</a><a href="/a">About us</a></nav>
<main><article><h1>Main heading</h1>
<p>Barnacles are small animals that live on boats and rocks near the sea, in great numbers.</p>
<h2>Second heading</h2>
<p>They are <b>scraped off</b> twice a year, which takes two people a whole day of hard work.</p>
<ul><li>First point of the list</li><li>Second point of the list</li></ul>
<table><tr><th>Boat</th><th>Length</th></tr><tr><td>Limpet</td><td>12 m</td></tr></table>
<pre><code>make clean
make all</code></pre>
</article></main><footer>Copyright notice</footer></body></html>"""


def test_html_becomes_markdown_with_its_headings() -> None:
    document = parse("a.html", PAGE.format(x="best").encode())
    assert document.title == "The best page"
    assert "## Second heading" in document.text.splitlines()
    assert "Barnacles are small animals" in document.text
    assert "- First point of the list" in document.text
    assert "Limpet" in document.text
    assert "make clean\nmake all" in document.text
    for left_out in ("secret", "color", "About us", "Copyright"):
        assert left_out not in document.text


@pytest.mark.parametrize(
    ("page", "text", "title"),
    [
        ("<p>Hi</p>", "Hi", None),
        ("<footer>Only a foot</footer>", "Only a foot", None),
        ("<h1>Only</h1><p>Hi</p>", None, "Only"),
        ("plain words", "plain words", None),
        ("<title> a\n b </title>", "", "a b"),
        ("<body><div><span>a</span> <span>b</span></div><script>x</script></body>", None, None),
        ("   ", "", None),
        ("<!-- only a comment -->", "", None),
        ("---\ntitle: Front\n---\n<p>Hi</p>", "Hi", "Front"),
    ],
)
def test_small_pages_lose_nothing(page: str, text: str | None, title: str | None) -> None:
    document = parse("a.html", page.encode())
    assert document.title == title
    if text is not None:
        assert document.text.strip() == text
    else:
        assert set("ab") <= set(document.text) or "Hi" in document.text
        assert "x" not in document.text


def test_entities_a_page_defines_are_not_expanded() -> None:
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
    page = f'<!DOCTYPE html [<!ENTITY e0 "LAUGH">{entities}]><html><body><p>end &e12;</p></body>'
    text = parse("a.html", page.encode()).text
    assert "end" in text
    assert len(text) < 10_000


def test_files_a_page_points_to_are_not_read() -> None:
    page = '<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/passwd">]><html><p>end &x;</p></html>'
    assert "root:" not in parse("a.html", page.encode()).text


@pytest.mark.parametrize("tag", ["div", "b", "blockquote", "ul><li", "table><tr><td", "span"])
def test_deep_nesting_is_refused_and_not_cut_off_in_silence(tag: str) -> None:
    for times in (300, 100_000):
        page = f"<html><body>{f'<{tag}>' * times}deep</body></html>"
        assert reason("a.html", page.encode()) == "too_deep"
    page = f"<html><body>{f'<{tag}>' * 20}deep</body></html>"
    assert "deep" in parse("a.html", page.encode()).text


def pdf(*pages: str, title: str = "", protect: bool = False) -> bytes:
    """Write a PDF by hand: one stream of text for each page."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Title ({title}) >>".encode(),
    ]
    kids = []
    for page in pages:
        lines = "".join(f"({line}) Tj 0 -14 Td " for line in page.split("\n"))
        stream = zlib.compress(f"BT /F1 12 Tf 72 720 Td {lines} ET".encode("latin-1"))
        objects.append(
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(stream), stream)
        )
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    encrypt = (
        b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >> /ID [<00> <00>]"
        % (b"11" * 32, b"22" * 32)
    )
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R /Info 4 0 R %s >>\n"
        b"startxref\n%d\n%%%%EOF"
        % (len(objects) + 1, table, len(objects) + 1, encrypt if protect else b"", len(out))
    )


def test_the_pages_of_a_pdf_are_joined_by_blank_lines() -> None:
    document = parse("a.pdf", pdf("First page\nline two", "", "Third page", title="A title"))
    assert document.text == "First page\nline two\n\nThird page"
    assert document.title == "A title"
    assert document.media_type == "application/pdf"


def test_words_broken_at_the_end_of_a_pdf_s_line_are_whole() -> None:
    assert parse("a.pdf", pdf("an exam-\nple is")).text == "an example is"


def test_a_pdf_without_a_title_has_none_and_takes_its_sidecar_s() -> None:
    assert parse("a.pdf", pdf("text")).title is None
    document = parse("a.pdf", pdf("text"), b"title: Beside\ntags: a")
    assert (document.title, document.tags) == ("Beside", ("a",))


def test_a_pdf_of_pictures_is_refused() -> None:
    assert reason("a.pdf", pdf("", "")) == "no_text"


@pytest.mark.parametrize(
    "content",
    [
        pdf("secret", protect=True),
        b"%PDF-1.4 cut off",
        b"no pdf at all",
        bytes(100),
        pdf("text")[:200],
    ],
)
def test_a_pdf_that_cannot_be_read_is_refused(content: bytes) -> None:
    assert reason("a.pdf", content) == "pdf_unreadable"


def test_hostile_markdown_does_not_hang() -> None:
    for text in (
        "# " + "*" * 100_000,
        "# " + "[" * 100_000,
        "# " + "*a " * 20_000,
        "# " + "`a" * 100_000,
        "<!--" * 100_000,
        "<!-- -" * 100_000,
        "---\n" * 100_000,
        "```\n" * 100_001,
        "a\n=" * 100_000,
        "x" * 10_000_000,
        "<" * 1_000_000,
    ):
        for path in ("a.md", "a.rst", "a.txt"):
            try:
                parse(path, text.encode())
            except DocumentError as error:
                assert error.reason == "front_matter"


@settings(deadline=None)
@given(st.text(), st.sampled_from(["a.md", "a.txt", "a.rst", "a.html"]), st.none() | st.text())
def test_any_text_parses_or_is_refused_and_is_stored_safely(
    text: str, path: str, sidecar: str | None
) -> None:
    beside = None if sidecar is None else sidecar.encode("utf-8", "surrogatepass")
    try:
        document = parse(path, text.encode("utf-8", "surrogatepass"), beside)
    except DocumentError as error:
        assert error.reason in {"binary", "front_matter", "sidecar"}
        return
    stored = json.dumps(
        [document.text, document.title, document.tags, document.metadata],
        allow_nan=False,
        ensure_ascii=False,
    )
    stored.encode()
    assert "\\u0000" not in stored
    assert document.title is None or 0 < len(document.title) <= 300
