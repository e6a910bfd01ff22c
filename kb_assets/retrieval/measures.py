"""What retrieval is measured by, with intervals; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

NDCG = "nDCG@10"
RECALL = "R@5"
RECIPROCAL_RANK = "RR@10"
ANSWER = "answer@5"

MEASURES = (NDCG, RECALL, RECIPROCAL_RANK, ANSWER)
"""Normalised discounted cumulative gain of ten documents, the share of the documents that answer
among five, one over the rank of the first, and whether a passage among five has the answer."""

RESAMPLES = 2000
_SEED = 20261
_BLOCK = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions, and where it would lie had others been asked.

    Attributes:
        mean: The mean.
        low: The lower end of its 95% interval.
        high: The upper end.
    """

    mean: float
    low: float
    high: float


def score(
    rankings: Mapping[str, Sequence[str]], judged: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, float]]:
    """Return each question's nDCG@10, recall@5 and reciprocal rank, as `ir-measures` has them.

    Args:
        rankings: For each question what was found, best first, nothing twice.
        judged: For each question what answers it, and how well.
    """
    import ir_measures

    measures = [ir_measures.nDCG @ 10, ir_measures.R @ 5, ir_measures.RR @ 10]
    # Scores, since ranks are not asked for; all different, since ties would be ordered by name.
    run = {
        question: {name: float(len(found) - rank) for rank, name in enumerate(found)}
        for question, found in rankings.items()
    }
    qrels = {question: dict(answers) for question, answers in judged.items()}
    scores: dict[str, dict[str, float]] = {question: {} for question in judged}
    for one in ir_measures.iter_calc(measures, qrels, run):
        scores[one.query_id][str(one.measure)] = float(one.value)
    return scores


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of values, and its interval by the bootstrap: the same each time.

    Args:
        values: One for each question; at least one.
    """
    given = numpy.asarray(values, dtype=numpy.float64)
    random = numpy.random.default_rng(_SEED)
    means = numpy.concatenate(
        [
            given[random.integers(0, len(given), (_BLOCK, len(given)))].mean(axis=1)
            for _ in range(RESAMPLES // _BLOCK)
        ]
    )
    low, high = numpy.quantile(means, (0.025, 0.975))
    return Estimate(float(given.mean()), float(low), float(high))


def difference(now: Mapping[str, float], before: Mapping[str, float]) -> Estimate:
    """Return by how much the same questions were answered better than before, pair by pair.

    Args:
        now: A value for each question.
        before: The same questions' values.
    """
    return estimate([now[question] - before[question] for question in sorted(now)])


def quantile(seconds: Sequence[float], share: float) -> float:
    """Return how long that share of the questions took at the most."""
    return float(numpy.quantile(numpy.asarray(seconds), share))
