"""`kb eval suggest`: drafts of golden questions, for a person to accept."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kb_assets.cli import exits
from kb_assets.cli.excerpt import visible
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.retrieval.suggest import Dropped, Suggestion

_REASONS = {
    "no_question": "gave no question",
    "answer_not_in_passage": "gave an answer that does not stand there",
    "asked_already": "gave a question that was asked already",
}


@click.command(cls=KbCommand)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the draft goes; never over a file that is there.",
)
@click.option(
    "--passages",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many are drawn; each is a request to the chat model.",
)
@click.option("--seed", default=0, show_default=True, help="What decides which are drawn.")
@click.option("--source", "sources", multiple=True, help="Only of this source; repeatable.")
@pass_session
def suggest(
    session: Session, output: Path, passages: int, seed: int, sources: tuple[str, ...]
) -> int:
    """Let the chat model draft golden questions about passages drawn at random.

    A question is kept if the phrase that answers it stands in the passage. `kb eval` asks only
    those that somebody has accepted in the file.
    """
    from kb_assets.retrieval.suggest import Suggestion, require_new, write_draft

    require_new(output)
    outcomes: list[Suggestion | Dropped] = []
    with session.knowledge_base() as kb:
        try:
            for outcome in kb.suggest_questions(passages, seed=seed, sources=sources):
                outcomes.append(outcome)
                _tell(session, outcome)
        finally:
            # What was paid for is kept, even if the rest could not be had.
            kept = [each for each in outcomes if isinstance(each, Suggestion)]
            if kept:
                write_draft(output, kept, model=kb.settings.answer.model, seed=seed)
    _report(session, output, outcomes)
    return exits.DONE if kept else exits.NOT_FOUND


def _tell(session: Session, outcome: "Suggestion | Dropped") -> None:
    """Show a question as it arrives: each takes as long as the model does."""
    from kb_assets.retrieval.suggest import Suggestion

    if isinstance(outcome, Suggestion) and not session.as_json:
        click.echo(visible(f"{outcome.question}  ({outcome.document})"))


def _report(session: Session, output: Path, outcomes: "list[Suggestion | Dropped]") -> None:
    from kb_assets.cli.output import console, count_of, print_json
    from kb_assets.retrieval.suggest import Dropped, Suggestion

    kept = [each for each in outcomes if isinstance(each, Suggestion)]
    dropped = Counter(each.reason for each in outcomes if isinstance(each, Dropped))
    if session.as_json:
        file = str(output) if kept else None
        print_json({"output": file, "suggestions": kept, "dropped": dropped})
        return
    out = console()
    asked = count_of(len(outcomes), "passage")
    out.print(f"\n{count_of(len(kept), 'question')} from {asked}.", soft_wrap=True)
    for reason, count in sorted(dropped.items()):
        out.print(f"{count_of(count, 'passage')} {_REASONS[reason]}.", soft_wrap=True)
    if kept:
        out.print(f"Read them in {output}, and accept those that are good.", soft_wrap=True)
