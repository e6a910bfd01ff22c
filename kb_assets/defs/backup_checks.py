"""Checks of `database_backup`: each asserts the one truth its name says, of the newest backup.

They are made in turn, for the last asks what came of the one before. A red one is an error: nobody
knows then whether the database could be brought back.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import dagster as dg

from kb_assets.defs.backup_metadata import drill_metadata, listed
from kb_assets.defs.metadata import counts
from kb_assets.defs.partitions import BACKUP, day_key
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.errors import BackupCorruptError, BackupUntrustedError, NotFoundError
from kb_assets.knowledge_base import KnowledgeBase

if TYPE_CHECKING:
    from kb_assets.backup.place import Entry

MATCHES, RESTORES, FRESH = "backup_matches_manifest", "backup_restores", "backup_is_fresh"

DESCRIPTIONS = {
    MATCHES: "Every byte of the newest backup is read, and is what its manifest says. If it is "
    "red, make another backup at once, and find out what became of this one.",
    RESTORES: "The newest backup is restored into a server of its own, and is the same there: "
    "definitions, roles, rows, checksums, sequences, indexes, answers to questions. All of that "
    "takes `rto_seconds`. If it is red, make another backup at once; the text says what differs.",
    FRESH: "The newest whole backup, those left out whose drill failed, is not older than "
    "`max_age_hours` under `[backup]`, and a drill passed within `max_drill_age_days`. "
    "What is younger than it would be lost: `rpo_seconds` now, `rpo_worst_seconds` just before "
    "it was made. If it is red, start back_up_database, and see whether its schedule is on.",
}

PLOTTED = ("rto_seconds", "rpo_seconds", "rpo_worst_seconds")
"""How long it took to bring the database back, and how much would be lost: with the asset's own."""

SKEW = timedelta(minutes=5)
"""How far the clocks of the machines may differ."""

_RUN = "`kb backup run`"
_AGAIN = f"Make another backup now: {_RUN}."


def backup_checks() -> list[dg.AssetChecksDefinition]:
    """Return the checks of backups."""
    return [database_backup_checks]


@dg.multi_asset_check(
    name="database_backup_checks",
    specs=[
        dg.AssetCheckSpec(name, asset=BACKUP, description=words)
        for name, words in DESCRIPTIONS.items()
    ],
    can_subset=True,
)
def database_backup_checks(
    context: dg.AssetCheckExecutionContext,
    knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
) -> Iterator[dg.AssetCheckResult]:
    """Look at the newest backup, restore it, and then at the clock."""
    looks = {MATCHES: _matches, RESTORES: _restores, FRESH: _is_fresh}
    wanted = {key.name for key in context.selected_asset_check_keys}
    measured = dict[str, Any]()
    with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
        today = day_key(datetime.now(ZoneInfo(kb.settings.backup.timezone)))
        for name in (name for name in looks if name in wanted):
            try:
                result = looks[name](kb)
            except (NotFoundError, BackupCorruptError, BackupUntrustedError) as error:
                result = _red(name, _and_again(str(error)))
            shown = result.metadata or {}
            measured |= {key: value for key, value in shown.items() if key in PLOTTED}
            yield result
    if measured:
        # Numbers of checks are plotted with each check only, those of observations with the asset.
        plotted = dg.AssetObservation(BACKUP, partition=today, metadata=measured)
        context.op_execution_context.log_event(plotted)


def _matches(kb: KnowledgeBase) -> dg.AssetCheckResult:
    entry, problems = kb.verify_backup()
    made = entry.manifest
    shown = {
        "backup": dg.MetadataValue.text(entry.id),
        "signed": dg.MetadataValue.bool(entry.is_signed),
        **counts({"stored_bytes": made.stored_bytes, "files": len(made.files)} if made else {}),
    }
    if problems:
        shown["problems"] = listed(problems)
        state = "damaged" if entry.state == "whole" else entry.state
        told = f"Backup {entry.id} is {state}. {_first(problems, 'problems')}"
        return _red(MATCHES, _and_again(told), shown)
    signed = "signed" if entry.is_signed else "not signed: set KB_BACKUP_KEY"
    return _green(MATCHES, f"Backup {entry.id} is whole; it is {signed}.", shown)


def _restores(kb: KnowledgeBase) -> dg.AssetCheckResult:
    found = kb.drill()
    shown = drill_metadata(found)
    if found.failures:
        told = _first(found.failures, "failures")
        told = told if found.id in told else f"Backup {found.id} did not pass its drill. {told}"
        return _red(RESTORES, _and_again(told), shown)
    return _green(RESTORES, f"Backup {found.id} was restored, and is the same.", shown)


def _is_fresh(kb: KnowledgeBase) -> dg.AssetCheckResult:
    limits, entries, now = kb.settings.backup, kb.backups(), datetime.now(UTC)
    whole = [one.manifest for one in entries if one.manifest and one.may_come_back]
    made = [datetime.fromisoformat(manifest.snapshot_at) for manifest in whole]
    if not whole:
        return _red(FRESH, f"There is no whole backup. {_AGAIN}")
    age, drilled = now - made[0], _last_drill(entries)
    words = f"The newest whole backup, {whole[0].id}, is {_span(age)} old"
    told = []
    if age > timedelta(hours=limits.max_age_hours):
        told.append(f"{words}; `max_age_hours` is {limits.max_age_hours}. {_AGAIN}")
    if age < -SKEW or (drilled is not None and drilled - now > SKEW):
        told.append("The newest backup or drill is from the future: set the clocks right.")
    if drilled is None:
        told.append("None of these backups passed its last drill: run `kb backup drill`.")
    elif now - drilled > timedelta(days=limits.max_drill_age_days):
        allowed = f"`max_drill_age_days` is {limits.max_drill_age_days}"
        told.append(f"The last drill that passed was {_span(now - drilled)} ago; {allowed}.")
    ages = {
        "rpo_seconds": age,
        **({"rpo_worst_seconds": made[0] - made[1]} if made[1:] else {}),
        **({"drill_age_seconds": now - drilled} if drilled else {}),
    }
    shown = counts({name: span.total_seconds() for name, span in ages.items()})
    if told:
        return _red(FRESH, " ".join(told), shown)
    return _green(FRESH, f"{words}.", shown)


def _last_drill(entries: "Sequence[Entry]") -> datetime | None:
    """Return when a backup that may come back was last proven to."""
    passed = [one.own_drills[0].finished_at for one in entries if one.is_good]
    return max(map(datetime.fromisoformat, passed), default=None)


def _first(lines: Sequence[str], key: str) -> str:
    """Return the first of some sentences, and where the others are."""
    return lines[0] if len(lines) == 1 else f"{lines[0]} All {len(lines):,} are in `{key}`."


def _and_again(words: str) -> str:
    return words if _RUN in words else f"{words} {_AGAIN}"


def _red(
    name: str, words: str, shown: dict[str, dg.MetadataValue] | None = None
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=BACKUP,
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR,
        description=words,
        metadata=shown or {},
    )


def _green(name: str, words: str, shown: dict[str, dg.MetadataValue]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name, asset_key=BACKUP, passed=True, description=words, metadata=shown
    )


def _span(span: timedelta) -> str:
    seconds = max(0.0, span.total_seconds())
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
