"""What somebody should do, by what was seen."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from kb_assets.knowledge_base.health.facts import (
    ArchiveHealth,
    BackupHealth,
    Concern,
    QualityHealth,
    ShardHealth,
    SpaceHealth,
)
from kb_assets.settings import BackupSettings, Settings

_INDEX = "Run `kb index`."
_BACKUP = "Run `kb backup run`."
_DRILL = "Run `kb backup drill`."


def shard_concerns(one: ShardHealth, max_age_hours: int, now: datetime) -> Iterator[Concern]:
    """Say what is the matter with a shard.

    While a run is working on it, what waits is no reason to call anybody.

    Args:
        one: The shard.
        max_age_hours: For how long its source may not have been looked at.
        now: The moment.
    """
    account = one.account
    if account.listed is None:
        yield Concern(one.shard, "never listed.", _INDEX, not one.is_busy)
        return
    if account.missing:
        yield Concern(
            one.shard,
            f"{_counted(account.missing, 'document')} gone from the source and kept by the "
            "mass-delete guard.",
            "If that is right, run `kb index --confirm-deletes`.",
        )
    for words in _unsettled(one):
        yield Concern(one.shard, words, _INDEX, not one.is_busy)
    if one.looked_at is None or now - one.looked_at > timedelta(hours=max_age_hours):
        age = "an unknown time" if one.looked_at is None else span(now - one.looked_at)
        words = f"its source was not looked at for {age}; max_age_hours is {max_age_hours}."
        fix = f"{_INDEX} See whether `kb dev` or the daemon runs, and what its last runs say."
        yield Concern(one.shard, words, fix, not one.is_busy)


def _unsettled(one: ShardHealth) -> Iterator[str]:
    account = one.account
    if waiting := account.pending - account.missing:
        yield f"{_counted(waiting, 'document')} not published yet."
    if account.vanishing:
        yield f"{_counted(account.vanishing, 'document')} about to go."
    if not account.is_balanced:
        known = account.documents - account.missing
        yield f"the last listing found {account.listed:,} documents, and {known:,} are known."


def space_concerns(spaces: Sequence[SpaceHealth]) -> Iterator[Concern]:
    """Say what is the matter with what answers, and with what is being built."""
    for one in spaces:
        name = f"space {one.space.name}"
        if one.space.state == "live" and one.vectors and not one.indexed:
            words = "its index cannot be used: searches compare with every vector."
            yield Concern(name, words, f"{_INDEX} It builds the index anew.")
        if one.space.state == "live" and one.missing:
            yield Concern(name, f"{_counted(one.missing, 'text')} without a vector.", _INDEX)
        if one.space.state == "building" and one.indexed and one.missing == 0:
            fix = f"`kb space compare {one.space.name}`, then `kb space promote {one.space.name}`."
            yield Concern(name, "complete, and does not answer yet.", fix, is_urgent=False)


def quality_concerns(found: QualityHealth | None, settings: Settings) -> Iterator[Concern]:
    """Say whether questions are answered as well as they must be."""
    if found is not None and found.verdict != "holds":
        fix = "`kb eval --per-question` says which questions."
        yield Concern("quality", " ".join(found.reasons) or "it fails.", fix)
    elif found is None and settings.quality.questions is not None:
        yield Concern("quality", "never measured.", "Run `kb eval`.", is_urgent=False)


def backup_concerns(
    found: BackupHealth, limits: BackupSettings, now: datetime
) -> Iterator[Concern]:
    """Say whether the database could be brought back as it was lately."""
    if found.failed_drill:
        words = f"backup {found.failed_drill} did not pass its drill."
        yield Concern("backup", words, f"`kb backup list` says why. {_BACKUP}")
    if found.made_at is None:
        yield Concern("backup", "there is none.", _BACKUP)
        return
    if now - found.made_at > timedelta(hours=limits.max_age_hours):
        words = f"the newest is {span(now - found.made_at)} old; max_age_hours is "
        yield Concern("backup", f"{words}{limits.max_age_hours}.", _BACKUP)
    if found.drilled_at is None:
        yield Concern("backup", "none was proven by a drill.", _DRILL)
    elif now - found.drilled_at > timedelta(days=limits.max_drill_age_days):
        words = f"the last drill that passed was {span(now - found.drilled_at)} ago; "
        words += f"max_drill_age_days is {limits.max_drill_age_days}."
        yield Concern("backup", words, _DRILL)


def archive_concerns(found: ArchiveHealth) -> Iterator[Concern]:
    """Say whether messages leave when they should."""
    if found.open_erasures:
        words = f"{_counted(found.open_erasures, 'erasure')} did not finish."
        yield Concern("erasure", words, "Run `kb erase --resume`.")
    if found.months_overdue:
        words = (
            f"{_counted(found.months_overdue, 'month')} should have left the database a week ago."
        )
        yield Concern("archive", words, "Run `kb archive run`.")
    elif found.months_due:
        words = f"{_counted(found.months_due, 'month')} may leave the database."
        yield Concern("archive", words, "The next `kb archive run` moves them.", is_urgent=False)


def refusal_concerns(shards: Sequence[ShardHealth]) -> Iterator[Concern]:
    """Say how many documents cannot be used as they are."""
    quarantined = sum(one.account.quarantined for one in shards)
    partial = sum(one.account.partial for one in shards)
    if quarantined or partial:
        words = f"{_counted(quarantined, 'document')} cannot be used"
        words += f", {partial:,} in part." if partial else "."
        yield Concern("quarantine", words, "`kb status --quarantine` says why.", is_urgent=False)


def unknown_concerns(unknown: Mapping[str, str]) -> Iterator[Concern]:
    """Say what could not be looked at."""
    for about, why in unknown.items():
        yield Concern(about, f"cannot be looked at: {why}", "`kb doctor` looks closer.")


def span(length: timedelta) -> str:
    """Return a length of time in the unit a person would use."""
    hours = length.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
