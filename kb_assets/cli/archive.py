"""`kb archive`: old messages leave the database, stay one query away, and come back."""

from dataclasses import replace
from datetime import date, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli import exits
from kb_assets.cli.session import COMMON_OPTIONS, KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.archive.audit import AuditReport, SegmentVerdict
    from kb_assets.archive.months import ArchivedMonth
    from kb_assets.archive.read import QueryResult
    from kb_assets.archive.restore import RestoreReport
    from kb_assets.archive.stage import MonthReport
    from kb_assets.knowledge_base.archiving import ArchiveReport

_CELL_CHARACTERS = 200
"""So much of a value is shown to people; JSON has all of it."""

_MONTH = click.DateTime(["%Y-%m"])


@click.group(params=list(COMMON_OPTIONS))
def archive() -> None:
    """Move old messages to the archive, query them, bring them back.

    The section [archive] of kb.toml says where the archive is, and how old messages must be.
    """


@archive.command(cls=KbCommand)
@click.option("--month", type=_MONTH, help="Look at this month only.")
@pass_session
def run(session: Session, month: datetime | None) -> int:
    """Move the months that are old enough to the archive: copied, verified, then deleted."""
    from kb_assets.cli.output import error_console, print_json

    def say(words: str) -> None:
        error_console().print(words, style="dim")

    with session.knowledge_base() as kb:
        report = kb.archive_messages(None if month is None else [month.date()], run=kb.run(say=say))
    if session.as_json:
        print_json(report)
    else:
        _print_run(report)
    return exits.DONE


@archive.command(name="list", cls=KbCommand)
@pass_session
def list_months(session: Session) -> int:
    """List the months that have messages, and where they are."""
    from kb_assets.cli.output import print_json

    with session.knowledge_base() as kb:
        months = kb.archived_months()
    if session.as_json:
        print_json({"months": months})
    else:
        _print_months(months)
    return exits.DONE


@archive.command(cls=KbCommand)
@click.argument("sql")
@pass_session
def query(session: Session, sql: str) -> int:
    """Run the SELECT statement SQL, in DuckDB's dialect, over the table `messages`.

    It has all messages, in the database and in the archive. What a query can touch of the
    archive is fetched, and kept on this machine up to archive.cache_bytes.
    """
    with session.knowledge_base() as kb:
        found = kb.query_messages(sql)
    if session.as_json:
        from kb_assets.cli.output import print_json

        rows = [[_json(value) for value in row] for row in found.rows]
        print_json({**_counts(found), "columns": found.columns, "rows": rows})
    else:
        _print_rows(found)
    return exits.DONE


@archive.command(cls=KbCommand)
@pass_session
def verify(session: Session) -> int:
    """Read every object of the archive back, and compare each row with its manifest.

    Exits 15 if one is damaged, after all of them were looked at.
    """
    from kb_assets.cli.output import watching
    from kb_assets.errors import ArchiveCorruptError

    with session.knowledge_base() as kb, watching("Reading") as watch:
        report = kb.verify_archive(watch=watch)
    if session.as_json:
        from kb_assets.cli.output import print_json

        objects = [_verdict(one) for one in report.segments]
        print_json({"damaged": len(report.damaged), "objects": objects})
    else:
        _print_audit(report)
    return ArchiveCorruptError.exit_code if report.damaged else exits.DONE


@archive.command(cls=KbCommand)
@click.option("--month", type=_MONTH, required=True, help="The month to bring back.")
@click.option(
    "--hold-days",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="For how long it is not archived again.",
)
@pass_session
def restore(session: Session, month: datetime, hold_days: int) -> int:
    """Bring a month back into the database; doing it again changes nothing."""
    from kb_assets.cli.output import print_json

    with session.knowledge_base() as kb:
        report = kb.restore_month(month.date(), hold_days)
    if session.as_json:
        print_json(report)
    else:
        _print_restored(report)
    return exits.DONE


def _print_run(report: "ArchiveReport") -> None:
    from kb_assets.cli.output import console, count_of, table

    out = console()
    moved = [one for one in report.months if one.rows or one.repeated]
    if moved:
        columns = ("Month", "Messages", "Before", "After", "Objects", "Seconds")
        out.print(table(columns, (_run_row(one) for one in moved)))
    for one in report.months:
        if one.note:
            out.print(f"{one.month:%Y-%m}: {one.note}", soft_wrap=True)
    if not report.months:
        out.print("Nothing is old enough to be archived.")
    if report.removed:
        out.print(f"{count_of(report.removed, 'leftover object')} removed.", style="dim")


def _run_row(one: "MonthReport") -> tuple[str, ...]:
    from kb_assets.cli.output import number, size

    return (
        f"{one.month:%Y-%m}",
        number(one.rows),
        size(one.table_bytes),
        size(one.object_bytes),
        number(len(one.segments)),
        f"{sum(one.seconds.values()):.1f}",
    )


def _print_months(months: "tuple[ArchivedMonth, ...]") -> None:
    from kb_assets.cli.output import console, number, size, table

    out = console()
    if not months:
        out.print("There are no messages yet: `kb messages import` takes them in.")
        return
    rows = (
        (
            *(f"{one.month:%Y-%m}", _place(one), number(one.rows), number(one.objects)),
            size(one.object_bytes) if one.objects else number(0),
        )
        for one in months
    )
    out.print(table(("Month", "Where", "Archived", "Objects", "Size"), rows, text_columns=2))


def _place(one: "ArchivedMonth") -> str:
    words = {
        "hot": "database",
        "closing": "database, on its way out",
        "archived": "archive",
        "restored": "database, restored",
        "empty": "nowhere",
    }[one.place]
    if one.held_until is not None and one.place in ("hot", "restored"):
        words += f", held until {one.held_until:%F}"
    return f"{words}; late ones wait" if one.has_late else words


def _print_rows(found: "QueryResult") -> None:
    from kb_assets.cli.output import console, count_of, table

    out = console()
    rows = (tuple(map(_cell, row)) for row in found.rows)
    out.print(table(found.columns, rows, text_columns=len(found.columns)))
    out.print(
        f"\n{count_of(len(found.rows), 'row')}; read: "
        f"{count_of(found.hot_rows, 'message')} of the database, "
        f"{count_of(found.scanned_objects, 'object')} of the archive, "
        f"{found.fetched_objects:,} of them fetched.",
        style="dim",
        soft_wrap=True,
    )


def _cell(value: Any) -> str:  # noqa: ANN401
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL_CHARACTERS else f"{text[:_CELL_CHARACTERS]}…"


def _counts(found: "QueryResult") -> dict[str, int]:
    return {
        "hot_rows": found.hot_rows,
        "scanned_objects": found.scanned_objects,
        "fetched_objects": found.fetched_objects,
    }


def _json(value: Any) -> Any:  # noqa: ANN401
    """Return a value of DuckDB's as JSON has it; what JSON does not know, as text."""
    if value is None or isinstance(value, bool | int | str | bytes | date):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return str(value)


def _verdict(one: "SegmentVerdict") -> dict[str, Any]:
    from kb_assets.cli.failures import error_document
    from kb_assets.cli.output import plain

    damage = None if one.damage is None else error_document(one.damage)
    return {**plain(replace(one, damage=None)), "damage": damage}


def _print_audit(report: "AuditReport") -> None:
    from kb_assets.cli.failures import tell
    from kb_assets.cli.output import console, count_of

    out = console()
    for one in report.damaged:
        if one.damage is not None:
            tell(one.damage)
    objects = count_of(len(report.segments), "object")
    rows = count_of(sum(one.rows for one in report.segments), "message")
    if report.damaged:
        out.print(f"{len(report.damaged):,} of {objects} damaged.", style="bold red")
    else:
        out.print(f"{objects} with {rows}, all as their manifests say.", style="green")


def _print_restored(report: "RestoreReport") -> None:
    from kb_assets.cli.output import console, count_of

    out = console()
    came = f"{count_of(report.rows, 'message')} came back"
    if report.segments:
        came += f" from {count_of(report.segments, 'object')}"
    out.print(f"{report.month:%Y-%m}: {came}.")
    for count, words in (
        (report.present, "in the database already, the same"),
        (report.late, "that had come late joined them"),
        (report.erased, "left out, of erased conversations"),
    ):
        if count:
            out.print(f"{count:,} {words}.")
    out.print(f"The month stays until {report.held_until:%F %R} UTC at least.", style="dim")
