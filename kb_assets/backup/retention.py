"""Which backups are kept, which are deleted, and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kb_assets.backup.entry import Entry, began_at
from kb_assets.backup.manifest import Manifest
from kb_assets.backup.place import BackupPlace
from kb_assets.errors import SettingsError
from kb_assets.settings import BackupSettings

UNFINISHED_DAYS = 3
"""How long what was never finished is taken for a backup that is being made."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of every backup.

    Attributes:
        keep: Why a backup is kept, by its name.
        delete: Why a backup is deleted, by its name.
    """

    keep: Mapping[str, str]
    delete: Mapping[str, str]


def plan_retention(entries: Sequence[Entry], policy: BackupSettings, now: datetime) -> Plan:
    """Say which backups are kept, and which are deleted.

    The newest of each of the last days, weeks and months that have one is kept; newest is what has
    the highest number. The last one whose drill passed is never deleted; if there is none, the last
    one that a drill ever proved is not: what failed since may have been the drill.

    Args:
        entries: All that are in the destination, newest first.
        policy: How many are kept.
        now: The present, with its time zone.

    Raises:
        SettingsError: The newest backup is of tomorrow or later: the clock is wrong, or was.
    """
    whole = [(one, one.manifest) for one in entries if one.state == "whole" and one.manifest]
    if whole:
        _require_past(whole[0][1], now)
    kept: dict[str, list[str]] = {one.id: [] for one, _ in whole}
    days = {one.id: _day(manifest, policy.timezone) for one, manifest in whole}
    _keep_newest(kept, days, policy.keep_daily, lambda day: f"{day}")
    _keep_newest(kept, days, policy.keep_weekly, lambda day: f"{day:week %G-W%V}")
    _keep_newest(kept, days, policy.keep_monthly, lambda day: f"{day:month %Y-%m}")
    good = [one.id for one, _ in whole if one.is_good]
    proven = [one.id for one, _ in whole if one.was_good]
    if good:
        kept[good[0]].append("the last whose drill passed")
    elif proven:
        kept[proven[0]].append("the last that a drill ever proved")
    keep, delete = dict[str, str](), dict[str, str]()
    for one in entries:
        reasons = kept.get(one.id)
        if reasons is not None:
            which, why = (keep, ", ".join(reasons)) if reasons else (delete, "no longer needed")
        else:
            which, why = (delete if _is_over(one, now) else keep), f"{one.state}: {one.why}"
        which[one.id] = why
    return Plan(keep, delete)


def prune(place: BackupPlace, policy: BackupSettings, now: datetime) -> Plan:
    """Delete what is not kept, the oldest first; what is begun is ended the next time.

    Before each deletion it is planned again: what a drill found meanwhile, or a run finished, may
    have made that backup the last good one.

    Returns:
        What is kept, and what was deleted.

    Raises:
        SettingsError: See `plan_retention`.
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    plan, deleted = plan_retention(place.entries(), policy, now), dict[str, str]()
    for backup_id in reversed(tuple(plan.delete)):
        plan = plan_retention(place.entries(), policy, now)
        if backup_id in plan.delete:
            place.delete(backup_id)
            deleted[backup_id] = plan.delete[backup_id]
    return Plan(plan.keep, deleted)


def _require_past(newest: Manifest, now: datetime) -> None:
    taken = datetime.fromisoformat(newest.snapshot_at)
    if taken - now > timedelta(days=1):
        raise SettingsError(
            "Nothing is deleted: the newest backup is of the future.",
            why=f"Backup {newest.id} is of {newest.snapshot_at}; it is {now.isoformat()} now.",
            fix="Set this machine's clock. If it was wrong at that backup, make a new one.",
        )


def _day(manifest: Manifest, timezone: str) -> date:
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise SettingsError(
            f"There is no time zone {timezone!r}.",
            fix="Correct `timezone` below [backup] in kb.toml: an IANA name.",
        ) from error
    return datetime.fromisoformat(manifest.snapshot_at).astimezone(zone).date()


def _keep_newest(
    kept: dict[str, list[str]], days: Mapping[str, date], count: int, name: Callable[[date], str]
) -> None:
    """Note the newest backup of each of the last so many spans that have one."""
    seen = set[str]()
    for backup_id, day in days.items():
        span = name(day)
        if span not in seen and len(seen) < count:
            seen.add(span)
            kept[backup_id].append(f"newest of {span}")


def _is_over(entry: Entry, now: datetime) -> bool:
    """Say whether what is no backup is deleted: what is damaged or forged is for people."""
    if entry.state == "deleting":
        return True
    began = began_at(entry.id)
    old = began is not None and now - began > timedelta(days=UNFINISHED_DAYS)
    return entry.state == "unfinished" and old
