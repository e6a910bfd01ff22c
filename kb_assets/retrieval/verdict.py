"""Whether retrieval is as good as it must be; pure."""

from collections.abc import Mapping
from typing import Literal

from kb_assets.retrieval.measures import NDCG, Estimate, difference
from kb_assets.settings.retrieval import QualitySettings

Verdict = Literal["holds", "fails"]

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""What each question scored: by question, mode and measure."""

LEADING = "hybrid"
"""The mode that users get, if they ask for no other."""


def values_of(scores: Scores, mode: str, measure: str) -> dict[str, float]:
    """Return one measure of one mode, of the questions that have it."""
    return {
        question: by_mode[mode][measure]
        for question, by_mode in scores.items()
        if measure in by_mode.get(mode, {})
    }


def differences(now: Scores, before: Scores) -> dict[str, dict[str, Estimate]]:
    """Return how two measurements of the same questions differ, where both measured the same."""
    modes = next(iter(now.values()), {})
    found: dict[str, dict[str, Estimate]] = {}
    for mode in modes:
        measures = dict.fromkeys(name for one in now.values() for name in one.get(mode, {}))
        for measure in measures:
            mine, theirs = values_of(now, mode, measure), values_of(before, mode, measure)
            if mine and mine.keys() == theirs.keys():
                found.setdefault(mode, {})[measure] = difference(mine, theirs)
    return found


def judge(
    now: Scores, held: Scores | None, settings: QualitySettings, *, than: str
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict on a measurement, and the reasons if it fails.

    Args:
        now: What was measured.
        held: What the same questions scored when they last were good enough, if they ever were.
        settings: The least nDCG@10, and how far it may fall.
        than: What `held` is, for the reasons.
    """
    reasons: list[str] = []
    leading = values_of(now, LEADING, NDCG)
    mean = sum(leading.values()) / max(1, len(leading))
    if mean < settings.min_ndcg:
        reasons.append(
            f"{NDCG} of {LEADING} search is {mean:.3f}, and must be {settings.min_ndcg:.3f}."
        )
    if held is not None:
        reasons += falls(differences(now, held), settings.max_drop, than)
    return ("fails" if reasons else "holds"), tuple(reasons)


def falls(found: Mapping[str, Mapping[str, Estimate]], max_drop: float, than: str) -> list[str]:
    """Return, in sentences, which modes answer worse: by more than is allowed, and than chance.

    Args:
        found: Differences, by mode and measure.
        max_drop: How far nDCG@10 may fall.
        than: What they differ from.
    """
    return [
        f"{NDCG} of {mode} search is {-fall.mean:.3f} lower than {than}, by {-fall.high:.3f} to "
        f"{-fall.low:.3f} with 95% confidence; {max_drop:.3f} is allowed."
        for mode, by_measure in found.items()
        if (fall := by_measure.get(NDCG)) is not None and fall.mean < -max_drop and fall.high < 0
    ]
