"""Spaces compared: one that is built beside the one that answers, on the golden questions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kb_assets.database.connect import Database
from kb_assets.embeddings.space import Space
from kb_assets.errors import SpaceError
from kb_assets.index.space import SpaceFigures, space_figures
from kb_assets.retrieval.evaluations import add_evaluation
from kb_assets.retrieval.golden import Question, questions_hash
from kb_assets.retrieval.measurement import Ask, Measurement, Watch, measure, notes_on
from kb_assets.retrieval.measures import Estimate
from kb_assets.retrieval.query import Mode
from kb_assets.retrieval.verdict import Verdict, differences, falls
from kb_assets.settings.retrieval import QualitySettings

MODES: tuple[Mode, ...] = ("hybrid", "vector")
"""Words are the same in every space."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of two spaces.

    Attributes:
        space: The space.
        metrics: Means and intervals, by mode and measure.
        seconds: How long a search took, by mode: `p50` and `p95`.
        figures: Its size, and what filling it took.
    """

    space: Space
    metrics: Mapping[str, Mapping[str, Estimate]]
    seconds: Mapping[str, Mapping[str, float]]
    figures: SpaceFigures


@dataclass(frozen=True, slots=True)
class Comparison:
    """A space beside the one that answers.

    Attributes:
        live: The space that answers.
        other: The one that might.
        questions: How many were asked.
        differences: The other's measures less the live one's, by mode and measure.
        verdict: `fails` if the other answers worse.
        reasons: How, in sentences.
        notes: What should be known about the numbers, in sentences.
    """

    live: Side
    other: Side
    questions: int
    differences: Mapping[str, Mapping[str, Estimate]]
    verdict: Verdict
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    def require_no_worse(self) -> None:
        """Refuse a space that answers worse.

        Raises:
            SpaceError: It does.
        """
        if self.verdict == "fails":
            raise SpaceError(
                f"The space {self.other.space.name} answers worse than {self.live.space.name}.",
                why=" ".join(self.reasons),
                fix="See `kb space compare`; promote it with --force if that is wanted.",
            )


def compare(
    database: Database,
    questions: Sequence[Question],
    asking: Callable[[Space], Ask],
    live: Space,
    other: Space,
    settings: QualitySettings,
    *,
    run_id: str,
    watch: Watch = lambda done, of: None,
) -> Comparison:
    """Ask both spaces the same questions, and store what the other one scored.

    Args:
        database: Where the writer connects.
        questions: What is asked; at least one.
        asking: Returns who asks a space.
        live: The space that answers.
        other: The one that might.
        settings: How far nDCG@10 may fall.
        run_id: Who is at work.
        watch: Told how far it is, for each space anew.
    """
    now = measure(database, questions, asking(live), modes=MODES, watch=watch)
    then = measure(database, questions, asking(other), modes=MODES, watch=watch)
    found = differences(then.per_question, now.per_question)
    reasons = tuple(falls(found, settings.max_drop, f"in {live.name}"))
    verdict: Verdict = "fails" if reasons else "holds"
    add_evaluation(
        database,
        then,
        run_id=run_id,
        space=other,
        purpose="comparison",
        questions_hash=questions_hash(questions),
        verdict=verdict,
        reasons=reasons,
    )
    return Comparison(
        live=_side(database, live, now),
        other=_side(database, other, then),
        questions=len(questions),
        differences=found,
        verdict=verdict,
        reasons=reasons,
        notes=notes_on(now, live, other),
    )


def _side(database: Database, space: Space, measured: Measurement) -> Side:
    return Side(space, measured.metrics, measured.seconds, space_figures(database, space))
