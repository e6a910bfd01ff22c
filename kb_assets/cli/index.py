"""`kb index`: bring the index up to date, and say what came of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli.session import KbCommand, Session, pass_session
from kb_assets.cli.shards import chosen_shards, shard_options

if TYPE_CHECKING:
    from kb_assets.cli.outcome import Outcome
    from kb_assets.fingerprints import Shard
    from kb_assets.knowledge_base import KnowledgeBase


@click.command(cls=KbCommand)
@shard_options
@click.option("--confirm-deletes", is_flag=True, help="Overrule the mass-delete guard.")
@click.option("--confirm-cost", is_flag=True, help="Overrule the cost limit.")
@click.option("--verify", is_flag=True, help="Trust no version token: read everything.")
@click.option("--strict", is_flag=True, help="Exit 10 when documents are in quarantine.")
@pass_session
def index(
    session: Session,
    sources: tuple[str, ...],
    shards: tuple[str, ...],
    strict: bool,
    **confirmed: bool,
) -> int:
    """Bring the index up to date; only what changed is done again."""
    from kb_assets.cli.failures import tell
    from kb_assets.cli.summary import document_of, print_summary

    with session.knowledge_base() as kb:
        wanted = chosen_shards(kb.settings, sources, shards)
        outcome = _run(kb, wanted, confirmed)
    if session.as_json:
        from kb_assets.cli.output import print_json

        print_json(document_of(outcome, strict=strict))
    else:
        print_summary(outcome)
    if outcome.error is not None:
        tell(outcome.error)
    return outcome.exit_code(strict=strict)


def _run(kb: "KnowledgeBase", shards: "tuple[Shard, ...]", confirmed: dict[str, bool]) -> "Outcome":
    from kb_assets.cli.outcome import Outcome

    started = time.monotonic()
    _ = kb.database  # Whether its schema is this code's is asked before Dagster is started.
    with _progress() as say:
        # Dagster takes half a second to import: somebody should see that something happens.
        say("Starting Dagster …")
        from kb_assets.defs.launch import run_index

        run = run_index(kb, shards, on_event=say, **confirmed)
    return Outcome.of(kb, shards, run, time.monotonic() - started)


@contextmanager
def _progress() -> Iterator[Callable[[Any], None]]:
    """Show on a terminal what is being done; elsewhere say nothing."""
    from kb_assets.cli.excerpt import visible
    from kb_assets.cli.output import error_console

    out = error_console()
    if not out.is_terminal:
        yield lambda _: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task("")
        yield lambda said: progress.update(task, description=visible(str(said)))
