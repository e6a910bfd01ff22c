"""How errors are told: what happened, why, and what to do; in JSON as well where JSON is wanted."""

import os
import traceback
from typing import Any

import click

from kb_assets.cli import exits
from kb_assets.cli.session import Session
from kb_assets.errors import KbError

DEBUG_VARIABLE = "KB_DEBUG"
"""Set to anything, it shows the traceback of every error."""


def error_document(error: Exception) -> dict[str, Any]:
    """Return an error as JSON has it."""
    kind = type(error).__name__
    if isinstance(error, KbError):
        told = {"kind": kind, "what": error.what, "why": error.why, "fix": error.fix}
        return {**told, "exit_code": error.exit_code}
    told = {"kind": kind, "what": f"{kind}: {error}", "why": "", "fix": ""}
    return {**told, "exit_code": exits.UNEXPECTED}


def exit_code_of(error: Exception) -> int:
    """Return what to exit with after an error."""
    return error.exit_code if isinstance(error, KbError) else exits.UNEXPECTED


def tell(error: Exception) -> None:
    """Say on standard error what happened, why, and what to do; in one line if nobody knows."""
    if DEBUG_VARIABLE in os.environ:
        traceback.print_exception(error)
    if isinstance(error, KbError):
        _say(error.what, error.why, error.fix)
        return
    fix = "" if DEBUG_VARIABLE in os.environ else f"Set {DEBUG_VARIABLE}=1 to see where."
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    _say(f"Something unexpected happened: {said}", "", fix)


def report_error(error: Exception, session: Session) -> int:
    """Report what ended a command."""
    tell(error)
    _document(error_document(error), session)
    return exit_code_of(error)


def report_usage(error: click.ClickException, session: Session) -> int:
    """Report a command line that cannot be understood."""
    error.show()
    document = {"kind": "UsageError", "what": error.format_message(), "why": "", "fix": ""}
    _document({**document, "exit_code": exits.USAGE}, session)
    return exits.USAGE


def report_interrupt() -> int:
    """Say that what was done is kept."""
    click.echo("Interrupted. What was done so far is kept.", err=True)
    return exits.INTERRUPTED


def _say(what: str, why: str, fix: str) -> None:
    from rich.text import Text

    from kb_assets.cli.excerpt import visible
    from kb_assets.cli.output import error_console

    console = error_console()
    told = Text.assemble(("Error: ", "bold red"), (visible(what), "bold"))
    for label, words in (("why", why), ("fix", fix)):
        if words:
            indented = visible(words).strip().replace("\n", "\n       ")
            told.append(f"\n  {label}: ", style="cyan")
            told.append(indented)
    console.print(told, soft_wrap=True)


def _document(error: dict[str, Any], session: Session) -> None:
    if not session.as_json:
        return
    from kb_assets.cli.output import print_json

    print_json({"error": error})
