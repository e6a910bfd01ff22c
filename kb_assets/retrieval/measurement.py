"""Measuring one space: golden questions are asked in every mode, and what comes back is scored."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.embeddings.embedder import Answer, Embedder, Model
from kb_assets.embeddings.space import Space
from kb_assets.errors import TextRefusedError
from kb_assets.retrieval.golden import Question
from kb_assets.retrieval.hits import Results
from kb_assets.retrieval.measures import ANSWER, MEASURES, Estimate, estimate, quantile, score
from kb_assets.retrieval.query import Mode
from kb_assets.retrieval.ranking import Names, answers_of, has_answer, ranked
from kb_assets.retrieval.verdict import Scores, values_of

_Value = TypeVar("_Value")

DEPTH = 50
"""How many passages each question asks for: ten documents are nearly always among them."""

MODES: tuple[Mode, ...] = get_args(Mode)

Ask = Callable[[str, Mode], Results]
"""Asks a question of one space in one mode, for `DEPTH` unmerged passages."""

Watch = Callable[[int, int], None]
"""Told how many questions of how many were asked."""

_REMARKS = 3
"""How many different remarks of searches are passed on."""

_statements = Statements.beside(__file__)


class Remembering:
    """An embedder that gives the last text's vector again without asking: one text, three modes."""

    def __init__(self, embedder: Embedder) -> None:
        """Remember whom to ask."""
        self._embedder = embedder
        self._last: tuple[tuple[str, ...], Answer] | None = None

    @property
    def model(self) -> Model:
        """What decides the vectors."""
        return self._embedder.model

    @property
    def usd_per_million_tokens(self) -> float:
        """What a million tokens cost."""
        return self._embedder.usd_per_million_tokens

    def embed(self, texts: Sequence[str]) -> Answer:
        """Return the embedder's answer, or the last one for the same."""
        last = self._last
        if last is None or last[0] != tuple(texts):
            last = self._last = tuple(texts), self._embedder.embed(texts)
        return last[1]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What asking all questions of one space gave.

    Attributes:
        per_question: Each question's measures, by question, mode and measure.
        seconds: How long a search took without the question's embedding, by mode: `p50`, `p95`.
        found: What was found, best first, by question and mode.
        unknown: Documents that questions name and the knowledge base has not.
        remarks: What searches said was not as it should be, and of how many of them.
    """

    per_question: Scores
    seconds: Mapping[str, Mapping[str, float]]
    found: Mapping[str, Mapping[str, tuple[str, ...]]]
    unknown: tuple[str, ...]
    remarks: Mapping[str, int]

    @property
    def metrics(self) -> dict[str, dict[str, Estimate]]:
        """Means and intervals, by mode and measure."""
        return {
            mode: {
                measure: estimate(list(values.values()))
                for measure in MEASURES
                if (values := values_of(self.per_question, mode, measure))
            }
            for mode in self.seconds
        }


def measure(
    database: Database,
    questions: Sequence[Question],
    ask: Ask,
    *,
    modes: Sequence[Mode] = MODES,
    watch: Watch = lambda done, of: None,
) -> Measurement:
    """Ask every question in every mode, and measure what comes back.

    Raises:
        ProviderRefusedError: The provider refuses to embed the questions.
        ProviderUnavailableError: The provider is away: words alone measure nothing.
    """
    wanted = frozenset[str]().union(*(question.named_documents for question in questions))
    names = _named_documents(database, wanted)
    hits: dict[Mode, dict[str, Results]] = {mode: {} for mode in modes}
    seconds: dict[Mode, list[float]] = {mode: [] for mode in modes}
    for number, question in enumerate(questions):
        watch(number, len(questions))
        # Meaning alone first: it fails where the others would go on without a vector.
        for mode in sorted(modes, key=lambda mode: mode != "vector"):
            results, took = _ask(ask, question.text, mode)
            hits[mode][question.text] = results
            seconds[mode].append(took)
    scored = {mode: _score(questions, hits[mode], names) for mode in modes}
    known = frozenset[str]().union(*names.values())
    return Measurement(
        per_question=_by_question(questions, {mode: scored[mode][0] for mode in modes}),
        seconds={
            mode: {"p50": quantile(took, 0.5), "p95": quantile(took, 0.95)}
            for mode, took in seconds.items()
        },
        found=_by_question(questions, {mode: scored[mode][1] for mode in modes}),
        unknown=tuple(sorted(wanted - known)),
        remarks=Counter(
            note for mode in modes for results in hits[mode].values() for note in results.notes
        ),
    )


def notes_on(measured: Measurement, *spaces: Space) -> tuple[str, ...]:
    """Return what should be known about numbers, in sentences."""
    notes = []
    if measured.unknown:
        some = ", ".join(measured.unknown[:5]) + (", …" if len(measured.unknown) > 5 else "")
        notes.append(
            f"{len(measured.unknown)} documents that questions name are not in the knowledge "
            f"base, and count as not found: {some}."
        )
    searches = len(measured.per_question) * len(measured.seconds)
    notes += [
        f"Of {count} of {searches} searches: {remark}"
        for remark, count in list(measured.remarks.items())[:_REMARKS]
    ]
    guessed = [space.name for space in spaces if space.model.provider == "hash"]
    if guessed:
        notes.append(
            f"The vectors of {' and '.join(guessed)} come from the hash provider: it compares "
            "words and not meaning, so these numbers say little about a real model."
        )
    return tuple(notes)


def _named_documents(database: Database, names: frozenset[str]) -> Names:
    called: dict[tuple[str, str], frozenset[str]] = {}
    with database.transaction() as connection:
        rows = connection.execute(_statements("find_named_documents"), {"names": sorted(names)})
        for source, path, name in rows:
            called[source, path] = called.get((source, path), frozenset()) | {name}
    return called


def _ask(ask: Ask, text: str, mode: Mode) -> tuple[Results, float]:
    """Return the hits and the seconds they took; a question without a vector finds nothing."""
    started = time.perf_counter()
    try:
        results = ask(text, mode)
    except TextRefusedError:
        results = Results((), mode)
    return results, time.perf_counter() - started - results.seconds.get("embed", 0.0)


def _score(
    questions: Sequence[Question], hits: Mapping[str, Results], names: Names
) -> tuple[dict[str, dict[str, float]], dict[str, tuple[str, ...]]]:
    """Return what each question scored, and what it found."""
    found = {one.text: tuple(ranked(one, hits[one.text], names)) for one in questions}
    scores = score(found, {one.text: answers_of(one) for one in questions})
    for one in questions:
        if one.answer_contains:
            scores[one.text][ANSWER] = has_answer(one, hits[one.text])
    return scores, found


def _by_question(
    questions: Sequence[Question], by_mode: Mapping[Mode, Mapping[str, _Value]]
) -> dict[str, dict[str, _Value]]:
    return {
        one.text: {mode: values[one.text] for mode, values in by_mode.items()} for one in questions
    }
