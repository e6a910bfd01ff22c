"""`kb eval` and `kb space compare`, as a person and as a script would call them."""

from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine

QUESTIONS = """\
- question: Which birds wait for fish in shallow water?
  documents: [herons.md]
  answer_contains: wait for fish
- question: Who turns their heads far around at night?
  documents: {owls.md: 2}
- question: What barks?
  documents: [dogs.md]
"""


@pytest.fixture
def golden(kb: CommandLine) -> CommandLine:
    """Three documents, and three questions; one names a document that is not there."""
    (kb.folder / "questions.yaml").write_text(QUESTIONS)
    config = kb.folder / "kb.toml"
    config.write_text(config.read_text() + '\n[quality]\nquestions = "questions.yaml"\n')
    kb.must("index")
    return kb


def test_a_person_sees_measures_differences_and_a_verdict(golden: CommandLine) -> None:
    first = golden.text("eval")
    second = golden.text("eval")

    assert first.startswith("3 golden questions")
    for name in ("nDCG@10", "R@5", "RR@10", "answer@5"):
        assert first.count(name) == 3, "a row for each mode"
    assert "+0.000" not in first
    assert "+0.000" in second
    assert "dogs.md" in first
    assert "hash provider" in first
    assert "Retrieval holds." in first


def test_the_worst_question_comes_first_with_what_was_expected_and_found(
    golden: CommandLine,
) -> None:
    printed = golden.text("eval", "--per-question")

    barks = printed.index("What barks?")
    assert barks < printed.index("Which birds wait") and barks < printed.index("Who turns")
    assert "expected  dogs.md" in printed[barks:]
    assert "found     documents:" in printed[barks:]


def test_a_script_gets_json_and_exit_code_13(golden: CommandLine) -> None:
    held = golden.must("eval", "--per-question")
    failed = golden.must("eval", code=13, KB_QUALITY__MIN_NDCG="0.9")

    assert held["verdict"] == "holds"
    assert set(held["metrics"]) == {"hybrid", "vector", "lexical"}
    assert held["metrics"]["vector"]["nDCG@10"]["mean"] == pytest.approx(2 / 3)
    assert held["per_question"][0]["question"] == "What barks?"
    assert held["per_question"][0]["expected"] == ["dogs.md"]
    assert failed["verdict"] == "fails"
    assert "must be 0.900" in failed["reasons"][0]
    assert failed["previous"] is not None
    assert "per_question" not in failed


def test_a_red_verdict_is_told_to_a_person_too(golden: CommandLine) -> None:
    result = golden("--text", "eval", KB_QUALITY__MIN_NDCG="0.9")

    assert result.code == 13
    assert "Retrieval fails." in result.out
    assert "must be 0.900" in result.out


def test_other_questions_are_asked_on_request(golden: CommandLine, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("- question: swifts sleep flying\n  documents: [field/swifts.md]\n")

    told = golden.must("eval", "--questions", str(other))

    assert told["questions"] == 1
    assert told["purpose"] == "comparison"
    assert told["metrics"]["vector"]["nDCG@10"]["mean"] == 1.0


def test_without_questions_or_with_bad_ones_it_says_what_to_do(
    kb: CommandLine, tmp_path: Path
) -> None:
    kb.must("index")
    bad = tmp_path / "bad.yaml"
    bad.write_text("- question: one\n")

    none = kb.must("eval", code=3)["error"]
    unreadable = kb.must("eval", "--questions", str(bad), code=3)["error"]
    absent = kb.must("eval", "--questions", "nowhere", code=3)["error"]

    assert "[quality]" in none["fix"]
    assert "Line 1" in unreadable["why"]
    assert "nowhere" in absent["what"]


def test_before_the_first_run_there_is_nothing_to_ask(kb: CommandLine) -> None:
    (kb.folder / "questions.yaml").write_text(QUESTIONS)

    error = kb.must("eval", "--questions", "questions.yaml", code=7)["error"]

    assert "kb index" in error["fix"]


def test_publishing_is_stopped_with_exit_code_14_and_goes_on_when_it_holds(
    golden: CommandLine,
) -> None:
    config = golden.folder / "kb.toml"
    config.write_text(config.read_text() + "block_publish = true\n")
    golden.must("eval", code=13, KB_QUALITY__MIN_NDCG="0.9")
    (golden.folder / "documents" / "dogs.md").write_text("# Dogs\n\nDogs bark at the postman.\n")

    stopped = golden.must("index", code=14)
    waiting = golden.must("status")["shards"][0]["account"]
    golden.must("eval")
    golden.must("index")
    live = golden.must("status")["shards"][0]["account"]

    assert stopped["error"]["kind"] == "QualityError"
    assert (waiting["live"], waiting["pending"]) == (3, 1)
    assert (live["live"], live["pending"]) == (4, 0)


def test_a_worse_space_is_compared_refused_forced_and_taken_back(golden: CommandLine) -> None:
    golden.must("index", KB_EMBEDDING__DIMENSIONS="2")
    spaces = golden.must("space", "list")["spaces"]
    name = next(one["space"]["name"] for one in spaces if one["space"]["state"] == "building")

    printed = golden.text("space", "compare", name)
    compared = golden.must("space", "compare", name)
    golden.must("space", "promote", name, "--force")
    back = golden.must("space", "rollback")

    for row in ("nDCG@10 vector", "p95 hybrid", "vectors", "index", "tokens", "cost"):
        assert row in printed
    assert compared["other"]["figures"]["vectors"] == 3
    assert back["restored"]["name"] != name
    assert golden.must("space", "rollback")["restored"]["name"] == name
