"""`kb erase`: a conversation, a person, or a document, out of everything and for good."""

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import click

from kb_assets.cli import exits
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from rich.console import Console

    from kb_assets.database.run import Run
    from kb_assets.erasure.erase import ErasurePlan
    from kb_assets.erasure.ledger import Erasure
    from kb_assets.knowledge_base import KnowledgeBase

_COUNTED = {
    "conversations": "conversation",
    "hot_rows": "message",
    "late_rows": "late message",
    "cold_rows": "message of the archive",
    "revisions": "revision",
    "chunks": "chunk",
    "vectors": "vector",
}
"""What receipts count, in the order it is told."""

_PLURALS = {"cold_rows": "messages of the archive"}


@click.command(cls=KbCommand, short_help="Erase a conversation, a person or a document for good.")
@click.option("--conversation", metavar="ID", default="", help="All messages of a conversation.")
@click.option("--user", metavar="ID", default="", help="All conversations of a user.")
@click.option("--document", metavar="SOURCE/PATH", default="", help="A document.")
@click.option("--resume", is_flag=True, help="Finish what was left unfinished.")
@click.option("--list", "list_", is_flag=True, help="List what was erased so far.")
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def erase(
    session: Session,
    conversation: str,
    user: str,
    document: str,
    resume: bool,
    list_: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Erase a conversation, a person's conversations, or a document, for good.

    It is hidden at once. Objects of the archive are written anew without it; the old ones are
    removed three days later. Nothing of it is taken in again: no message of an erased
    conversation, and no document of that path, although its source may still have it. The receipt
    stays in the ledger, with hashes instead of names.
    """
    chosen = [conversation, user, document, resume, list_]
    if sum(map(bool, chosen)) != 1:
        raise click.UsageError("Say one: --conversation, --user, --document, --resume or --list.")
    subject = {"conversation": conversation, "user": user, "document": document}
    with session.knowledge_base() as kb:
        if list_:
            return _tell_all(session, kb.erasures())
        if resume:
            return _tell_all(session, kb.resume_erasures(run=_run(kb)))
        plan = kb.plan_erasure(**subject)
        if dry_run:
            return _tell_plan(session, plan)
        if plan.earlier is None and not yes and not _agreed(plan):
            click.echo("Nothing was erased.", err=True)
            return exits.DONE
        erased = kb.erase(**subject, run=_run(kb))
    if session.as_json:
        from kb_assets.cli.output import print_json

        print_json(erased)
    else:
        _print_receipt(erased, is_new=plan.earlier is None)
    return exits.DONE


def _run(kb: "KnowledgeBase") -> "Run":
    from kb_assets.cli.output import error_console

    return kb.run(say=lambda words: error_console().print(words, style="dim"))


def _agreed(plan: "ErasurePlan") -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is there to be asked: say --yes.")
    from kb_assets.cli.output import error_console

    _print_plan(error_console(), plan)
    return click.confirm("Erase it for good?", err=True)


def _tell_plan(session: Session, plan: "ErasurePlan") -> int:
    from kb_assets.cli.output import console, print_json

    if session.as_json:
        print_json(plan)
    else:
        _print_plan(console(), plan)
    return exits.DONE


def _tell_all(session: Session, erasures: "tuple[Erasure, ...]") -> int:
    from kb_assets.cli.output import console, print_json, table

    if session.as_json:
        print_json({"erasures": erasures})
    elif not erasures:
        console().print("There is none.")
    else:
        columns = ("No.", "Scope", "Hidden (UTC)", "Finished (UTC)", "What went")
        console().print(table(columns, map(_row, erasures), text_columns=len(columns)))
    return exits.DONE


def _row(erasure: "Erasure") -> tuple[str, ...]:
    finished = erasure.finished_at
    return (
        str(erasure.id),
        erasure.scope,
        f"{erasure.requested_at:%F %R}",
        f"{finished:%F %R}" if finished else "no: use --resume",
        _counted(erasure.receipt),
    )


def _counted(counts: Mapping[str, int]) -> str:
    from kb_assets.cli.output import count_of

    told = [
        count_of(counts[name], noun, _PLURALS.get(name, ""))
        for name, noun in _COUNTED.items()
        if counts.get(name)
    ]
    return ", ".join(told) or "nothing"


def _print_plan(out: "Console", plan: "ErasurePlan") -> None:
    from kb_assets.cli.excerpt import visible
    from kb_assets.cli.output import count_of, size

    name = visible(f"{plan.subject.scope} {plan.subject.name}")
    if plan.earlier is not None:
        done = "" if plan.earlier.finished_at else ", but not finished: `kb erase --resume`"
        out.print(f"{name}: erased {plan.earlier.requested_at:%F %T} UTC{done}.", soft_wrap=True)
        return
    out.print(f"{name}: {_counted(plan.counts)} in the database.", soft_wrap=True)
    if plan.segments:
        objects = count_of(plan.segments, "object")
        out.print(
            f"{objects} of the archive may have more of it ({size(plan.segment_bytes)}): "
            "those that do are written anew.",
            soft_wrap=True,
        )


def _print_receipt(erased: "Erasure", *, is_new: bool) -> None:
    from kb_assets.cli.output import console, count_of

    out, receipt = console(), erased.receipt
    when = "" if is_new else f" on {erased.requested_at:%F %T} UTC"
    out.print(f"Erased{when}: {_counted(receipt)}.", style="green", soft_wrap=True)
    if kept := receipt.get("kept_objects"):
        until = max(datetime.fromisoformat(one["until"]) for one in kept)
        out.print(
            f"{count_of(len(kept), 'replaced object')} of the archive: removed by its next run "
            f"after {until:%F %R} UTC.",
            soft_wrap=True,
        )
    told = f"Receipt {erased.id} of `kb erase --list`"
    if "ledger" in receipt:
        told += f"; outside of the database: {receipt['ledger']}"
    out.print(f"{told}.", style="dim", soft_wrap=True)
