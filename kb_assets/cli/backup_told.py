"""What `kb backup` says: of backups, drills, restores; to people, and to programs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kb_assets.cli.output import console, count_of, number, plain, size, table

if TYPE_CHECKING:
    from kb_assets.backup.manifest import Manifest
    from kb_assets.backup.place import DrillFacts, Entry
    from kb_assets.backup.restore import RestoreReport
    from kb_assets.backup.retention import Plan
    from kb_assets.backup.stage import BackupReport


def facts_of(manifest: "Manifest") -> dict[str, Any]:
    """Return what JSON says of a backup by its manifest."""
    return {
        "id": manifest.id,
        "number": manifest.number,
        "snapshot_at": manifest.snapshot_at,
        "kb_version": manifest.kb_version,
        "server": manifest.server,
        "revision": manifest.revision,
        "tables": len(manifest.tables),
        "rows": manifest.rows,
        "files": len(manifest.files),
        "stored_bytes": manifest.stored_bytes,
        "database_bytes": manifest.database_bytes,
        "is_encrypted": manifest.is_encrypted,
    }


def entry_document(entry: "Entry") -> dict[str, Any]:
    """Return what JSON says of a backup and its drills."""
    facts = facts_of(entry.manifest) if entry.manifest else {"id": entry.id}
    state = {"state": entry.state, "why": entry.why, "is_signed": entry.is_signed}
    return {**facts, **state, "drills": [drill_document(one) for one in entry.drills]}


def drill_document(found: "DrillFacts") -> dict[str, Any]:
    """Return what JSON says of a drill; its steps in seconds."""
    seconds = {step: taken / 1000 for step, taken in found.seconds.items()}
    return {**plain(found), "seconds": seconds}


def print_run(report: "BackupReport", url: str, *, is_signed: bool) -> None:
    """Tell what was backed up."""
    out, made = console(), report.manifest
    out.print(
        f"Backup {made.id}: {count_of(made.rows, 'row')} of {count_of(len(made.tables), 'table')} "
        f"in {size(made.stored_bytes)}, the database has {size(made.database_bytes)}.",
        style="green",
        soft_wrap=True,
    )
    out.print(f"It is in {url}.", soft_wrap=True)
    if not is_signed:
        out.print("It is not signed: set KB_BACKUP_KEY, so that nobody can forge one.")
    for note in report.notes:
        out.print(note, soft_wrap=True)
    _print_seconds(report.seconds)
    out.print("It counts once it was restored: `kb backup drill`.", style="dim")


def print_entries(entries: "tuple[Entry, ...]", uri: str) -> None:
    """Tell what is there."""
    out = console()
    if not entries:
        out.print(f"There is no backup in {uri}: run `kb backup run`.", soft_wrap=True)
        return
    columns = ("Backup", "State", "Last drill (UTC)", "Rows", "Size")
    out.print(table(columns, map(_row, entries), text_columns=3))
    for one in entries:
        if one.why:
            out.print(f"{one.id}: {one.why}", soft_wrap=True)


def _row(entry: "Entry") -> tuple[str, ...]:
    made, drilled = entry.manifest, "never"
    if entry.drills:
        last = entry.drills[0]
        drilled = f"{'passed' if last.passed else 'failed'} {last.finished_at[:16]}"
    state = entry.state if made is None or entry.is_signed else f"{entry.state}, unsigned"
    sizes = (number(made.rows), size(made.stored_bytes)) if made else ("?", "?")
    return entry.id, state, drilled.replace("T", " "), *sizes


def print_drill(found: "DrillFacts") -> None:
    """Tell what a drill found."""
    out = console()
    for failure in found.failures:
        out.print(failure, style="red", soft_wrap=True)
    for note in found.notes:
        out.print(note, style="dim", soft_wrap=True)
    _print_seconds({step: taken / 1000 for step, taken in found.seconds.items()})
    where = "into a server of its own" if found.target == "scratch" else "by other means"
    if found.passed:
        out.print(f"Backup {found.id} was restored {where}, and is the same.", style="bold green")
    else:
        out.print(f"Backup {found.id} failed its drill.", style="bold red")


def _print_seconds(seconds: Mapping[str, float]) -> None:
    told = ", ".join(f"{step} {taken:.1f}" for step, taken in seconds.items())
    console().print(f"Seconds: {told}.", style="dim", soft_wrap=True)


def print_restored(report: "RestoreReport", *, is_whole: bool) -> None:
    """Tell what was restored, and what to do next."""
    out = console()
    out.print(
        f"Backup {report.id} is in database {report.database}: {count_of(report.rows, 'row')} of "
        f"{count_of(report.tables, 'table')}, compared with the backup.",
        style="green",
        soft_wrap=True,
    )
    if report.upgraded_from:
        out.print(f"Its schema was brought here from revision {report.upgraded_from}.")
    for note in report.notes:
        out.print(note, soft_wrap=True)
    _print_seconds(report.seconds)
    if report.roles_made:
        names = ", ".join(report.roles_made)
        out.print(f"These roles were made, and have no password: {names}.", soft_wrap=True)
    if is_whole:
        out.print("Now look: `kb doctor`, `kb status`, `kb search`; then `kb index`.")


def print_plan(plan: "Plan", done: str) -> None:
    """Tell what is kept and what is not."""
    out = console()
    rows = [(name, "kept", why) for name, why in plan.keep.items()]
    rows += [(name, done, why) for name, why in plan.delete.items()]
    if rows:
        columns = ("Backup", "Is", "Because")
        out.print(table(columns, sorted(rows, reverse=True), text_columns=3))
    out.print(f"{count_of(len(plan.delete), 'backup')} {done}, {len(plan.keep):,} kept.")


def print_verdict(entry: "Entry", problems: tuple[str, ...]) -> None:
    """Tell what came of reading a backup."""
    out, made = console(), entry.manifest
    for problem in problems:
        out.print(problem, style="red", soft_wrap=True)
    if problems or made is None:
        out.print(f"Backup {entry.id} is {entry.state if entry.why else 'damaged'}.", style="bold")
        return
    signed = "signed" if entry.is_signed else "not signed"
    out.print(
        f"Backup {entry.id}: {count_of(len(made.files), 'file')} of {size(made.stored_bytes)}, "
        f"each as the manifest says, which is {signed}.",
        style="green",
        soft_wrap=True,
    )
