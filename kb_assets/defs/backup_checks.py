"""Checks of `database_backup`: each asserts the one truth its name says, of the newest backup.

They are made in turn, for the last asks what came of the one before. A red one is an error: nobody
knows then whether the database could be brought back.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from kb_assets.defs.backup_metadata import drill_metadata
from kb_assets.defs.metadata import counts
from kb_assets.defs.partitions import BACKUP, day_key
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.errors import BackupCorruptError, BackupUntrustedError, NotFoundError
from kb_assets.knowledge_base import KnowledgeBase

MATCHES, RESTORES, FRESH = "backup_matches_manifest", "backup_restores", "backup_is_fresh"

DESCRIPTIONS = {
    MATCHES: "Every byte of the newest backup is read, and is what its manifest says.",
    RESTORES: "The newest backup is restored into a server of its own, and is the same there: "
    "definitions, roles, rows, checksums, sequences, indexes, answers to questions.",
    FRESH: "The newest whole backup is not older than `backup.max_age_hours`, and a drill passed "
    "within `backup.max_drill_age_days`.",
}

PLOTTED = ("rto_seconds", "rpo_seconds")
"""How long it took to bring the database back, and how much would be lost: by asset and day."""

SKEW = timedelta(minutes=5)
"""How far the clocks of the machines may differ."""

_AGAIN = "Make another backup now: `kb backup run`. `kb backup list` shows the others."


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
                result = _red(name, f"{error} {_AGAIN}")
            shown = result.metadata or {}
            measured |= {key: value for key, value in shown.items() if key in PLOTTED}
            yield result
    if measured:
        # Numbers of checks are not plotted; those of observations are.
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
        shown["problems"] = dg.MetadataValue.json(list(problems))
        return _red(MATCHES, f"Backup {entry.id}: {problems[0]} {_AGAIN}", shown)
    signed = "signed" if entry.is_signed else "not signed: set KB_BACKUP_KEY"
    return _green(MATCHES, f"Backup {entry.id} is whole; it is {signed}.", shown)


def _restores(kb: KnowledgeBase) -> dg.AssetCheckResult:
    found = kb.drill()
    shown = drill_metadata(found)
    if found.failures:
        return _red(RESTORES, f"Backup {found.id}: {found.failures[0]} {_AGAIN}", shown)
    return _green(RESTORES, f"Backup {found.id} was restored, and is the same.", shown)


def _is_fresh(kb: KnowledgeBase) -> dg.AssetCheckResult:
    limits, entries, now = kb.settings.backup, kb.backups(), datetime.now(UTC)
    whole = [one.manifest for one in entries if one.state == "whole" and one.manifest]
    if not whole:
        return _red(FRESH, f"There is no whole backup. {_AGAIN}")
    age = now - datetime.fromisoformat(whole[0].snapshot_at)
    passed = [
        drill
        for one in entries
        for drill in one.drills
        if drill.passed and drill.target == "scratch"
    ]
    drilled = max((datetime.fromisoformat(one.finished_at) for one in passed), default=None)
    told = []
    if age > timedelta(hours=limits.max_age_hours):
        told.append(f"The newest whole backup is {_hours(age)} old. {_AGAIN}")
    if age < -SKEW or (drilled is not None and drilled - now > SKEW):
        told.append("The newest backup or drill is from the future: set the clocks right.")
    if drilled is None:
        told.append("No drill ever passed: run `kb backup drill`.")
    elif now - drilled > timedelta(days=limits.max_drill_age_days):
        told.append(f"The last drill that passed was {_hours(now - drilled)} ago.")
    ages = {"rpo_seconds": age, **({"drill_age_seconds": now - drilled} if drilled else {})}
    shown = counts({name: span.total_seconds() for name, span in ages.items()})
    if told:
        return _red(FRESH, " ".join(told), shown)
    return _green(FRESH, f"The newest backup is {_hours(age)} old.", shown)


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


def _hours(span: timedelta) -> str:
    return f"{span / timedelta(hours=1):.1f} hours"
