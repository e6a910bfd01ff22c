"""What `kb backup` says: of backups, drills, restores; to people, and to programs."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kb_assets.cli.excerpt import visible
from kb_assets.cli.output import ago, console, count_of, number, plain, size, table

if TYPE_CHECKING:
    from kb_assets.backup.manifest import Manifest
    from kb_assets.backup.place import DrillFacts, Entry
    from kb_assets.backup.restore import RestoreReport
    from kb_assets.backup.retention import Plan
    from kb_assets.backup.stage import BackupReport

_UNSIGNED = "Not signed: set KB_BACKUP_KEY, so that nobody can forge a backup."


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
    made = report.manifest
    _say(
        f"Backup {made.id}: {count_of(made.rows, 'row')} of {count_of(len(made.tables), 'table')} "
        f"in {size(made.stored_bytes)}, the database has {size(made.database_bytes)}.",
        "green",
    )
    _say(f"It is in {url}.")
    if not is_signed:
        _say(_UNSIGNED)
    for note in report.notes:
        _say(note)
    _say_seconds(report.seconds)
    _say("It counts once it was restored: `kb backup drill`.", "dim")


def print_entries(entries: "tuple[Entry, ...]", uri: str) -> None:
    """Tell what is there."""
    if not entries:
        _say(f"There is no backup in {uri}: run `kb backup run`.")
        return
    columns = ("Backup", "State", "Drill", "Rows", "Size")
    console().print(table(columns, map(_row, entries), text_columns=3))
    for one in entries:
        if one.why:
            _say(f"{one.id}: {one.why}")
    if any(one.manifest and not one.is_signed for one in entries):
        _say(_UNSIGNED, "dim")


def print_drill(found: "DrillFacts") -> None:
    """Tell what a drill found."""
    for failure in found.failures:
        _say(failure, "red")
    for note in found.notes:
        _say(note, "dim")
    _say_seconds({step: taken / 1000 for step, taken in found.seconds.items()})
    if not found.passed:
        _say(f"Backup {found.id} failed its drill.", "bold red")
    elif found.target == "url":
        _say(f"The database is made as backup {found.id} was, and is whole.", "bold green")
    else:
        _say(f"Backup {found.id} was restored, and is the same.", "bold green")


def print_restored(report: "RestoreReport", *, is_whole: bool) -> None:
    """Tell what was restored, and what to do next."""
    _say(
        f"Backup {report.id} is in database {report.database}: {count_of(report.rows, 'row')} of "
        f"{count_of(report.tables, 'table')}, compared with the backup.",
        "green",
    )
    if report.upgraded_from:
        _say(f"Its schema was brought here from revision {report.upgraded_from}.")
    for note in report.notes:
        _say(note)
    _say_seconds(report.seconds)
    if report.roles_made:
        _say(f"These roles were made, and have no password: {', '.join(report.roles_made)}.")
    if is_whole:
        _say("Now look: `kb doctor`, `kb status`, `kb search`; then `kb index`.")
        _say("The next backup counts once it was restored: `kb backup run`, `kb backup drill`.")


def print_plan(plan: "Plan", done: str) -> None:
    """Tell what is kept and what is not."""
    rows = [(name, "kept", why) for name, why in plan.keep.items()]
    rows += [(name, done, why) for name, why in plan.delete.items()]
    if rows:
        columns = ("Backup", "Is", "Because")
        console().print(table(columns, sorted(rows, reverse=True), text_columns=3))
    _say(f"{count_of(len(plan.delete), 'backup')} {done}, {len(plan.keep):,} kept.")


def print_verdict(entry: "Entry", problems: tuple[str, ...]) -> None:
    """Tell what came of reading a backup."""
    made = entry.manifest
    for problem in problems:
        _say(problem, "red")
    if problems or made is None:
        _say(f"Backup {entry.id} is {entry.state if entry.why else 'damaged'}.", "bold red")
        return
    signed = "signed" if entry.is_signed else "not signed"
    _say(
        f"Backup {entry.id}: {count_of(len(made.files), 'file')} of {size(made.stored_bytes)}, "
        f"each as the manifest says, which is {signed}.",
        "green",
    )


def _say(words: str, style: str = "") -> None:
    """Print a sentence; what is in a store may be anybody's, and reaches no terminal as it is."""
    console().print(visible(words), style=style, soft_wrap=True)


def _say_seconds(seconds: Mapping[str, float]) -> None:
    told = ", ".join(f"{step} {taken:.1f}" for step, taken in seconds.items())
    _say(f"Seconds: {told}.", "dim")


def _row(entry: "Entry") -> tuple[str, ...]:
    made = entry.manifest
    sizes = (number(made.rows), size(made.stored_bytes)) if made else ("?", "?")
    return entry.id, entry.state, _last_drill(entry), *sizes


def _last_drill(entry: "Entry") -> str:
    if not entry.drills:
        return "never"
    last = entry.drills[0]
    if not last.finished_at:
        return "unreadable"
    how = "passed" if last.passed else "failed"
    return f"{how} {ago(datetime.fromisoformat(last.finished_at))}"
