"""From the hits of a question to what the measures compare: names, best first; pure."""

from collections.abc import Mapping, Sequence

from kb_assets.retrieval.golden import Question
from kb_assets.retrieval.hits import Hit

ANSWER_DEPTH = 5
"""How many passages are looked at for an answer."""

Names = Mapping[tuple[str, str], frozenset[str]]
"""What questions call a document, by its source and path."""


def answers_of(question: Question) -> dict[str, int]:
    """Return what answers a question, with grades: documents by name, spans by number."""
    if question.spans:
        return {_span(number): 1 for number in range(len(question.spans))}
    return dict(question.documents)


def ranked(question: Question, hits: Sequence[Hit], names: Names) -> list[str]:
    """Return what was found, best first: documents by their best hit, or spans and other hits."""
    found: dict[str, None] = {}
    for hit in hits:
        found.update(dict.fromkeys(_items(question, hit, names)))
    return list(found)


def has_answer(question: Question, hits: Sequence[Hit]) -> float:
    """Return 1 if one of the first passages has the phrase that answers, else 0."""
    phrase = squeezed(question.answer_contains)
    return float(any(phrase in squeezed(hit.text) for hit in hits[:ANSWER_DEPTH]))


def squeezed(text: str) -> str:
    """Return a text with one blank wherever it has white space."""
    return " ".join(text.split())


def _items(question: Question, hit: Hit, names: Names) -> list[str]:
    called = names.get((hit.source, hit.path), frozenset())
    document = f"{hit.source}:{hit.path}"
    if not question.spans:
        return sorted(called.intersection(question.documents)) or [document]
    text = squeezed(hit.text)
    answered = [
        _span(number)
        for number, span in enumerate(question.spans)
        if span.document in called and squeezed(span.contains) in text
    ]
    return answered or [f"{document}, passage {hit.ordinal}"]


def _span(number: int) -> str:
    return f"span {number}"
