"""Formats whose text has to be got out first: HTML and PDF.

Both readers are hostile ground and are imported only when they are needed. Callers run them
in a worker with caps on time and memory (`kb_assets.isolation`).
"""

import threading
from typing import Any

from kb_assets.errors import DocumentError

_DEEPEST_HTML = 250
_HYPHEN_AT_LINE_END = "\ufffe"
"""What pdfium puts in the place of a hyphen and the line's end: the word goes on."""

_pdfium = threading.Lock()
"""pdfium must not be entered by two threads at once."""


def read_html(source: str) -> tuple[str, str | None]:
    """Return a page's readable text as Markdown, and its title.

    Navigation and other boilerplate is left out; if nothing else is there, all text of the
    body is returned. Entities a page defines itself are not expanded.

    Raises:
        DocumentError: `too_deep`: elements are nested too deep to be walked.
    """
    from lxml import etree, html

    parser = html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True
    )
    try:
        root = html.document_fromstring(source.encode(), parser=parser)
    except etree.ParserError:
        return "", None
    if _deeper_than(root, _DEEPEST_HTML):
        raise DocumentError(
            "too_deep",
            f"Its elements are nested more than {_DEEPEST_HTML} deep.",
            why="What is deeper the HTML parser drops without a word.",
            fix="Save the page again as text or Markdown.",
        )
    title = _text_of(root, "title") or _text_of(root, "h1")
    whole = _all_text(root)
    return _main_text(root) or whole, title


def read_pdf(content: bytes) -> tuple[str, str | None]:
    """Return the text of all pages, with a blank line between two, and the title it names.

    Raises:
        DocumentError: `pdf_unreadable` if it is encrypted or broken, `no_text` if there is
            nothing in it but pictures.
    """
    import pypdfium2

    with _pdfium:
        try:
            document = pypdfium2.PdfDocument(content)
            try:
                pages = [_page_text(document, number) for number in range(len(document))]
                title = document.get_metadata_value("Title")
            finally:
                document.close()
        except pypdfium2.PdfiumError as error:
            raise DocumentError(
                "pdf_unreadable",
                "The PDF cannot be read.",
                why=f"It is encrypted or broken: {error}",
                fix="Save it again without a password.",
            ) from error
    text = "\n\n".join(page for page in pages if page)
    if not text:
        raise DocumentError(
            "no_text",
            "There is no text in the PDF.",
            why="Its pages hold pictures only: it may have been scanned.",
            fix="Run text recognition (OCR) over it.",
        )
    return text, title or None


def _main_text(root: Any) -> str | None:  # noqa: ANN401
    import trafilatura

    text: str | None = trafilatura.extract(
        root,
        output_format="markdown",
        include_comments=False,
        include_tables=True,
        include_formatting=True,
        favor_recall=True,
        deduplicate=False,
    )
    return text


def _page_text(document: Any, number: int) -> str:  # noqa: ANN401
    page = document[number]
    try:
        textpage = page.get_textpage()
        try:
            text: str = textpage.get_text_range()
        finally:
            textpage.close()
    finally:
        page.close()
    return text.replace(_HYPHEN_AT_LINE_END, "").strip()


def _deeper_than(root: Any, most: int) -> bool:  # noqa: ANN401
    from lxml import etree

    depth = 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > most:
            return True
    return False


def _text_of(root: Any, tag: str) -> str | None:  # noqa: ANN401
    found = next(root.iter(tag), None)
    return " ".join("".join(found.itertext()).split()) or None if found is not None else None


def _all_text(root: Any) -> str:  # noqa: ANN401
    body = root.find("body")
    if body is None:
        return ""
    unseen = {"script", "style", "template", "noscript"}
    pieces = (
        piece
        for element in body.iter()
        if element.tag not in unseen
        for piece in (element.text, element.tail)
    )
    lines = (" ".join(piece.split()) for piece in pieces if piece)
    return "\n".join(line for line in lines if line)
