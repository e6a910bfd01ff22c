"""The measures are what textbooks say, and intervals behave as intervals do."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_assets.retrieval.measures import NDCG, RECALL, RECIPROCAL_RANK, difference, estimate, score
from kb_assets.retrieval.verdict import differences, judge
from kb_assets.settings import QualitySettings

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=60)


def scores(*values: float, mode: str = "hybrid") -> dict[str, dict[str, dict[str, float]]]:
    return {f"question {n}": {mode: {NDCG: value}} for n, value in enumerate(values)}


def test_ndcg_recall_and_reciprocal_rank_by_hand() -> None:
    """Grades 3 and 1 at ranks 2 and 4 of a question with a third document that is missed."""
    found = ["x", "best", "y", "good"]
    judged = {"best": 3, "good": 1, "missed": 2}

    measured = score({"q": found}, {"q": judged})["q"]

    gain = 3 / math.log2(3) + 1 / math.log2(5)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert measured[NDCG] == pytest.approx(gain / ideal)
    assert measured[RECALL] == pytest.approx(2 / 3)
    assert measured[RECIPROCAL_RANK] == pytest.approx(1 / 2)


def test_ranks_are_kept_whatever_documents_are_called() -> None:
    """trec_eval orders equal scores by name; ours must never be equal."""
    for found in (["a", "b"], ["b", "a"]):
        measured = score({"q": found}, {"q": {"a": 1}})["q"]
        assert measured[RECIPROCAL_RANK] == 1 / (found.index("a") + 1)


def test_what_stands_below_rank_ten_or_five_does_not_count() -> None:
    found = [f"miss {number}" for number in range(10)]

    measured = score({"q": [*found, "a"]}, {"q": {"a": 1}})["q"]
    sixth = score({"q": [*found[:5], "a"]}, {"q": {"a": 1}})["q"]

    assert set(measured.values()) == {0.0}
    assert sixth[RECALL] == 0.0
    assert sixth[RECIPROCAL_RANK] == pytest.approx(1 / 6)


def test_a_question_that_finds_nothing_scores_nothing() -> None:
    measured = score({"q": [], "r": ["a"]}, {"q": {"a": 1}, "r": {"a": 1}})

    assert set(measured["q"].values()) == {0.0}
    assert set(measured["r"].values()) == {1.0}


@given(VALUES)
def test_an_interval_holds_the_mean_and_stays_among_the_values(values: list[float]) -> None:
    found = estimate(values)

    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.mean == pytest.approx(sum(values) / len(values))
    assert found == estimate(values), "the same each time"


def test_an_interval_is_as_wide_as_theory_says() -> None:
    values = [0.0, 1.0] * 200

    found = estimate(values)

    half = 1.96 * 0.5 / math.sqrt(400)
    assert found.low == pytest.approx(0.5 - half, abs=0.01)
    assert found.high == pytest.approx(0.5 + half, abs=0.01)


def test_pairs_see_what_means_do_not() -> None:
    """Every question lost a little: far less than they differ from one another, and surely."""
    before = {str(n): n / 100 for n in range(100)}
    now = {question: value - 0.05 for question, value in before.items()}

    found = difference(now, before)

    assert found.mean == pytest.approx(-0.05)
    assert found.high < 0


def test_the_first_time_only_the_least_counts() -> None:
    least = QualitySettings(min_ndcg=0.5)

    assert judge(scores(0.4, 0.6), None, least, than="") == ("holds", ())
    verdict, reasons = judge(scores(0.4, 0.5), None, least, than="")
    assert verdict == "fails"
    assert reasons == ("nDCG@10 of hybrid search is 0.450, and must be 0.500.",)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "lexical"])
def test_a_fall_of_any_mode_beyond_chance_fails(mode: str) -> None:
    held = scores(*[0.9] * 20, mode=mode)
    now = scores(*[0.8] * 20, mode=mode)

    verdict, reasons = judge(now, held, QualitySettings(), than="on Monday")

    assert verdict == "fails"
    assert f"of {mode} search is 0.100 lower than on Monday" in reasons[0]


def test_a_small_fall_and_a_fall_by_chance_hold() -> None:
    held = scores(*[0.9] * 20)
    small = scores(*[0.89] * 20)
    chance = scores(0.0, *[0.9] * 17, 1.0, 1.0)
    settings = QualitySettings(max_drop=0.02)

    assert judge(small, held, settings, than="")[0] == "holds"
    assert differences(chance, held)["hybrid"][NDCG].mean < -0.02
    assert judge(chance, held, settings, than="")[0] == "holds"


@given(VALUES)
def test_nothing_fails_beside_itself(values: list[float]) -> None:
    same = scores(*values)

    assert judge(same, same, QualitySettings(max_drop=0), than="") == ("holds", ())
