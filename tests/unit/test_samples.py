"""The golden questions and the documents they are about keep in step."""

import re
from pathlib import Path

import pypdfium2
import yaml

SAMPLES = Path(__file__).parents[2] / "samples"


def text_of(path: Path) -> str:
    if path.suffix == ".pdf":
        pages = pypdfium2.PdfDocument(path)
        return "\n".join(page.get_textpage().get_text_range() for page in pages)
    return path.read_bytes().replace(b"\x00", b"").decode(errors="replace")


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_each_golden_answer_stands_in_a_document_it_names() -> None:
    questions = yaml.safe_load((SAMPLES / "questions.yaml").read_text())
    assert len(questions) >= 40
    for one in questions:
        texts = [squeezed(text_of(SAMPLES / "handbook" / path)) for path in one["documents"]]
        assert any(squeezed(one["answer_contains"]) in text for text in texts), one["question"]
