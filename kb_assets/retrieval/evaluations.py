"""Evaluations as the database keeps them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import Space
from kb_assets.retrieval.measurement import Measurement
from kb_assets.retrieval.measures import MEASURES, Estimate
from kb_assets.retrieval.verdict import Scores, Verdict

Purpose = Literal["quality", "comparison"]
"""`quality` is of the configured questions in the space that answers: its verdict stops things."""

KEPT = 1000
"""How many evaluations are kept, besides those that later ones are compared with."""

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well golden questions were answered, and the verdict on it.

    Attributes:
        id: Grows with each evaluation.
        evaluated_at: When it was stored.
        purpose: Whether its verdict stops things, or it only compares.
        questions_hash: What the set of questions is known by.
        questions: How many were asked.
        metrics: The measures' means and intervals, by mode and measure.
        per_question: The measures of each question, by question, mode and measure.
        seconds: How long a search took, by mode: `p50` and `p95`.
        verdict: `holds` or `fails`.
        reasons: Why it fails, in sentences.
    """

    id: int
    evaluated_at: datetime
    purpose: Purpose
    questions_hash: bytes
    questions: int
    metrics: Mapping[str, Mapping[str, Estimate]]
    per_question: Scores
    seconds: Mapping[str, Mapping[str, float]]
    verdict: Verdict
    reasons: tuple[str, ...]


def add_evaluation(
    database: Database,
    measured: Measurement,
    *,
    run_id: str,
    space: Space,
    purpose: Purpose,
    questions_hash: bytes,
    verdict: Verdict,
    reasons: tuple[str, ...],
) -> Evaluation:
    """Store an evaluation, and forget old ones; see there for what its parts are."""
    stored = {
        "purpose": purpose,
        "questions_hash": questions_hash,
        "questions": len(measured.per_question),
        "metrics": Jsonb(
            {
                mode: {name: asdict(estimate) for name, estimate in by_measure.items()}
                for mode, by_measure in measured.metrics.items()
            }
        ),
        "per_question": Jsonb(measured.per_question),
        "seconds": Jsonb(measured.seconds),
        "verdict": verdict,
        "reasons": list(reasons),
    }
    with database.transaction() as connection:
        row = connection.execute(
            _statements("add_evaluation"), stored | {"run_id": run_id, "space_id": space.id}
        ).fetchone()
        connection.execute(_statements("forget_evaluations"), {"keep": KEPT})
    assert row is not None
    return _evaluation(row)


def last_evaluation(
    database: Database, purpose: Purpose, questions_hash: bytes, verdict: Verdict | None = None
) -> Evaluation | None:
    """Return the last evaluation of the same questions, of any verdict by default."""
    named = {"purpose": purpose, "questions_hash": questions_hash, "verdict": verdict}
    with database.transaction() as connection:
        row = connection.execute(_statements("find_evaluation"), named).fetchone()
    return None if row is None else _evaluation(row)


def past_evaluations(database: Database, limit: int) -> tuple[Evaluation, ...]:
    """Return the last evaluations of the configured questions, newest first."""
    with database.transaction() as connection:
        rows = connection.execute(_statements("list_evaluations"), {"limit": limit}).fetchall()
    return tuple(_evaluation(row) for row in rows)


def _evaluation(row: tuple[Any, ...]) -> Evaluation:
    id_, at, purpose, hash_, questions, metrics, per_question, seconds, verdict, reasons = row
    estimates = {
        mode: {name: Estimate(**by_measure[name]) for name in MEASURES if name in by_measure}
        for mode, by_measure in metrics.items()
    }
    return Evaluation(
        *(id_, at, purpose, hash_, questions, estimates, per_question, seconds, verdict),
        reasons=tuple(reasons),
    )
