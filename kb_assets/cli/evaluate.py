"""`kb eval`: the golden questions are asked, and how well they are answered is said."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli import exits
from kb_assets.cli.session import COMMON_OPTIONS, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.retrieval.evaluate import EvaluationReport
    from kb_assets.retrieval.golden import Question
    from kb_assets.retrieval.measurement import Watch
    from kb_assets.retrieval.measures import Estimate

_FOUND = 5
"""How many of the documents that were found are named for each question."""


@click.group(name="eval", invoke_without_command=True, params=list(COMMON_OPTIONS))
@click.option(
    "--questions",
    type=click.Path(path_type=Path),
    help="Other questions than quality.questions; their verdict stops nothing.",
)
@click.option("--per-question", is_flag=True, help="List every question, the worst first.")
@pass_session
@click.pass_context
def evaluate(
    context: click.Context, session: Session, questions: Path | None, per_question: bool
) -> int:
    """Ask the golden questions, and print how well they are answered.

    Exits 13 if the verdict fails; docs/evaluation.md says what that stops.
    """
    if context.invoked_subcommand is not None:
        return exits.DONE
    with session.knowledge_base() as kb, watching() as watch:
        report = kb.evaluate(questions, watch=watch)
    if session.as_json:
        from kb_assets.cli.output import print_json

        print_json(_document(report, per_question=per_question))
    else:
        _print(report)
        if per_question:
            _print_questions(report)
        _print_verdict(report)
    return exits.DONE if report.evaluation.verdict == "holds" else exits.CHECK_FAILED


@contextmanager
def watching() -> "Iterator[Watch]":
    """Show on a terminal how many questions were asked, and how long the rest will take."""
    from kb_assets.cli.output import error_console

    out = error_console()
    if not out.is_terminal:
        yield lambda done, of: None
        return
    from rich.progress import Progress

    with Progress(console=out, transient=True) as progress:
        task = progress.add_task("Asking", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def _document(report: "EvaluationReport", *, per_question: bool) -> dict[str, Any]:
    evaluation = report.evaluation
    document: dict[str, Any] = {
        "verdict": evaluation.verdict,
        "reasons": evaluation.reasons,
        "purpose": evaluation.purpose,
        "space": report.space.name,
        "provider": report.space.model.provider,
        "questions": evaluation.questions,
        "metrics": evaluation.metrics,
        "differences": report.differences,
        "previous": report.previous.evaluated_at if report.previous else None,
        "seconds": evaluation.seconds,
        "notes": report.notes,
    }
    if per_question:
        document["per_question"] = [
            {
                "question": question.text,
                "expected": question.expected,
                "found": report.found[question.text],
                "scores": evaluation.per_question[question.text],
            }
            for question in report.worst_first()
        ]
    return document


def _print(report: "EvaluationReport") -> None:
    from kb_assets.cli.output import console, count_of, table

    evaluation, out = report.evaluation, console()
    asked = count_of(evaluation.questions, "golden question")
    out.print(f"{asked}, asked of {report.space.name}\n")
    out.print(
        table(
            ("Measure", "Mode", "Mean", "95%", "Since last", "95%"),
            measure_rows(evaluation.metrics, report.differences),
            text_columns=2,
        )
    )
    took = "; ".join(
        f"{mode} {seconds['p50'] * 1000:.0f} ms, p95 {seconds['p95'] * 1000:.0f} ms"
        for mode, seconds in evaluation.seconds.items()
    )
    out.print(f"\nMedian time without embedding the question: {took}.", soft_wrap=True)
    if report.previous:
        out.print(f"The last run was on {report.previous.evaluated_at:%F at %R %Z}.")


def measure_rows(
    metrics: "Mapping[str, Mapping[str, Estimate]]",
    differences: "Mapping[str, Mapping[str, Estimate]]",
) -> Iterator[tuple[str, ...]]:
    """Return a row for each measure and mode: mean and interval, difference and interval."""
    from kb_assets.retrieval.measures import MEASURES

    for measure in MEASURES:
        for mode, by_measure in metrics.items():
            if measure in by_measure:
                now, since = by_measure[measure], differences.get(mode, {}).get(measure)
                yield (
                    *(measure, mode, f"{now.mean:.3f}", f"{now.low:.3f} to {now.high:.3f}"),
                    *difference_cells(since),
                )


def difference_cells(difference: "Estimate | None") -> tuple[str, str]:
    """Return a difference and its interval, signed."""
    if difference is None:
        return "", ""
    return f"{difference.mean:+.3f}", f"{difference.low:+.3f} to {difference.high:+.3f}"


def _print_questions(report: "EvaluationReport") -> None:
    from kb_assets.cli.output import console

    out = console()
    for question in report.worst_first():
        out.print()
        out.print(*_question_lines(report, question), sep="\n", soft_wrap=True)


def _question_lines(report: "EvaluationReport", question: "Question") -> Iterator[Any]:
    from rich.text import Text

    from kb_assets.cli.excerpt import visible
    from kb_assets.retrieval.measures import MEASURES
    from kb_assets.retrieval.verdict import LEADING

    scores = report.evaluation.per_question[question.text]
    yield Text(visible(question.text), style="bold")
    for mode, by_measure in scores.items():
        told = (f"{name} {by_measure[name]:.2f}" for name in MEASURES if name in by_measure)
        yield f"    {mode:<8}  {', '.join(told)}"
    found = report.found[question.text][LEADING][:_FOUND]
    yield Text.assemble(("    expected  ", "green"), visible(", ".join(question.expected)))
    yield Text.assemble(("    found     ", "yellow"), visible(", ".join(found) or "nothing"))


def _print_verdict(report: "EvaluationReport") -> None:
    from kb_assets.cli.output import console

    out = console()
    out.print()
    for note in report.notes:
        out.print(note, style="dim", soft_wrap=True)
    if report.evaluation.verdict == "holds":
        out.print("Retrieval holds.", style="green")
        return
    out.print("Retrieval fails.", style="bold red")
    for reason in report.evaluation.reasons:
        out.print(reason, soft_wrap=True)
