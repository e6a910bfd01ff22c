"""`kb doctor`: is everything there that a run needs, and what to do about what is not."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from kb_assets.cli import exits
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.cli.finding import Finding

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


@click.command(cls=KbCommand, short_help="Check whether all that a run needs is there.")
@click.option("--probe", is_flag=True, help="Ask the embedding provider for one tiny vector.")
@pass_session
def doctor(session: Session, probe: bool) -> int:
    """Check settings, sources, provider, database, Dagster, backups, disk; say what to do."""
    findings = []
    for finding in _examine(session, probe):
        findings.append(finding)
        if not session.as_json:
            _print(finding)
    failed = sum(finding.level == "fail" for finding in findings)
    if session.as_json:
        from kb_assets.cli.output import print_json

        print_json({"sound": not failed, "findings": findings})
    else:
        _print_verdict(failed, sum(finding.level == "warn" for finding in findings))
    return exits.CHECK_FAILED if failed else exits.DONE


def _examine(session: Session, probe: bool) -> "Iterator[Finding]":
    from kb_assets.cli.examination import examine
    from kb_assets.cli.finding import Finding
    from kb_assets.errors import KbError
    from kb_assets.settings import CONFIG_VARIABLE

    try:
        settings = session.settings()
    except KbError as error:
        yield Finding.failed("settings", error)
        return
    yield Finding("settings", "ok", os.environ[CONFIG_VARIABLE])
    yield from examine(settings, probe=probe)


def _print(finding: "Finding") -> None:
    from rich.text import Text

    from kb_assets.cli.excerpt import visible
    from kb_assets.cli.output import console

    mark, style = _MARKS[finding.level]
    told = Text.assemble((mark, style), (f"  {finding.name:<18} ", "bold"), visible(finding.words))
    if finding.fix:
        told.append("\n      → ", "cyan").append(visible(finding.fix))
    console().print(told, soft_wrap=True)


def _print_verdict(failed: int, warned: int) -> None:
    from kb_assets.cli.output import console, count_of

    if failed:
        words, style = f"{count_of(failed, 'thing')} must be put right.", "bold red"
    elif warned:
        words, style = f"Sound, with {count_of(warned, 'warning')}.", "yellow"
    else:
        words, style = "All is well.", "green"
    console().print(f"\n{words}", style=style)
