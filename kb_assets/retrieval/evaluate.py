"""Evaluation: golden questions are asked, measured, compared with before, and judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kb_assets.database.connect import Database
from kb_assets.embeddings.space import Space
from kb_assets.errors import SettingsError
from kb_assets.retrieval.evaluations import Evaluation, Purpose, add_evaluation, last_evaluation
from kb_assets.retrieval.golden import Question, load_questions, questions_hash
from kb_assets.retrieval.measurement import Ask, Watch, measure, notes_on
from kb_assets.retrieval.measures import ANSWER, NDCG, Estimate
from kb_assets.retrieval.verdict import LEADING, differences, judge
from kb_assets.settings import QualitySettings, Settings


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """An evaluation, and what it is seen beside.

    Attributes:
        questions: What was asked.
        evaluation: What was measured, and the verdict.
        space: The space that was asked.
        previous: The last evaluation of the same questions, if there was one.
        differences: From that one, by mode and measure.
        found: What was found, best first, by question and mode.
        notes: What should be known about the numbers, in sentences.
    """

    questions: tuple[Question, ...]
    evaluation: Evaluation
    space: Space
    previous: Evaluation | None
    differences: Mapping[str, Mapping[str, Estimate]]
    found: Mapping[str, Mapping[str, tuple[str, ...]]]
    notes: tuple[str, ...]

    def worst_first(self) -> list[Question]:
        """Return the questions, those that were answered worst first."""

        def quality(question: Question) -> tuple[float, float]:
            scores = self.evaluation.per_question[question.text][LEADING]
            return scores[NDCG], scores.get(ANSWER, 1.0)

        return sorted(self.questions, key=quality)


def golden_questions(
    settings: Settings, file: Path | None = None
) -> tuple[tuple[Question, ...], Purpose]:
    """Return questions, and what their verdict is for: those configured, or others.

    Args:
        settings: Where questions are configured.
        file: Other questions; their verdict stops nothing.

    Raises:
        SettingsError: There are none, or they cannot be read.
    """
    configured = settings.quality.questions
    if file is None and configured is None:
        raise SettingsError(
            "There are no golden questions.",
            why="kb.toml does not say where they are.",
            fix='Set questions = "questions.yaml" under [quality]; docs/evaluation.md shows what '
            "to put there.",
        )
    own = None if configured is None else settings.root / configured
    chosen = file or own
    assert chosen is not None
    is_own = own is not None and chosen.resolve() == own.resolve()
    return load_questions(chosen), "quality" if is_own else "comparison"


def evaluate(
    database: Database,
    questions: Sequence[Question],
    ask: Ask,
    space: Space,
    settings: QualitySettings,
    *,
    run_id: str,
    purpose: Purpose,
    watch: Watch = lambda done, of: None,
) -> EvaluationReport:
    """Measure the space that answers, judge it by the last time it held, and store that.

    Args:
        database: Where the writer connects.
        questions: What is asked; at least one.
        ask: Asks the space.
        space: The space that answers.
        settings: What the verdict goes by.
        run_id: Who is at work.
        purpose: `quality` if the verdict is to stop things.
        watch: Told how far it is.
    """
    known_as = questions_hash(questions)
    measured = measure(database, questions, ask, watch=watch)
    previous = last_evaluation(database, purpose, known_as)
    held = last_evaluation(database, purpose, known_as, "holds")
    when = f"on {held.evaluated_at:%F at %R %Z}, when it last held" if held else ""
    scores = held.per_question if held else None
    verdict, reasons = judge(measured.per_question, scores, settings, than=when)
    evaluation = add_evaluation(
        database,
        measured,
        run_id=run_id,
        space=space,
        purpose=purpose,
        questions_hash=known_as,
        verdict=verdict,
        reasons=reasons,
    )
    before = previous.per_question if previous else {}
    return EvaluationReport(
        questions=tuple(questions),
        evaluation=evaluation,
        space=space,
        previous=previous,
        differences=differences(measured.per_question, before) if before else {},
        found=measured.found,
        notes=notes_on(measured, space),
    )
