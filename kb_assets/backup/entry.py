"""What a destination holds of a backup, and what drills found."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import TypeAdapter

from kb_assets.backup.manifest import Manifest, explained, parse_manifest
from kb_assets.backup.pieces import is_sound
from kb_assets.backup.seal import seal, unseal
from kb_assets.errors import BackupCorruptError, BackupUntrustedError, KbError

MANIFEST = "manifest.json"
CONTENTS = "contents.json"
TOMBSTONE = "deleted.json"
DRILLS = "drills/"

State = Literal["whole", "unfinished", "damaged", "forged", "deleting"]

_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}", re.ASCII)
_DRILL = re.compile(r"drills/\d{8}T\d{6}Z-[0-9a-f]{8}\.json", re.ASCII)
_OURS = (MANIFEST, CONTENTS, TOMBSTONE)


@dataclass(frozen=True, slots=True)
class DrillFacts:
    """What a drill found.

    Attributes:
        id: The backup.
        started_at: When it began: ISO 8601, UTC.
        finished_at: When it ended.
        passed: Whether the backup is what it should be, and can be restored.
        target: Where it was restored: to a server of the drill's own, or by others at an address.
        seconds: How many milliseconds each step took.
        failures: What is wrong.
        notes: What should be known besides.
    """

    id: str
    started_at: str
    finished_at: str
    passed: bool
    target: Literal["scratch", "url"]
    seconds: Mapping[str, int]
    failures: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A backup in a destination.

    Attributes:
        id: What it is called.
        state: `whole`, as far as can be seen without reading its files; `unfinished`: without
            manifest; `damaged`; `forged`: not signed with our key; `deleting`.
        manifest: What it says of itself; None if that cannot be read or believed.
        is_signed: Whether the manifest is signed with our key.
        drills: What drills found, newest first. A report that cannot be read or believed is one
            that failed.
        why: Why it is in this state; empty if it is whole.
        number: Its manifest's, or else what it was begun with; 0 if nothing says.
    """

    id: str
    state: State
    manifest: Manifest | None
    is_signed: bool
    drills: tuple[DrillFacts, ...]
    why: str
    number: int = 0

    @property
    def is_good(self) -> bool:
        """Whether it is whole, and was restored: the newest drill that did so passed."""
        return self.state == "whole" and any(drill.passed for drill in self.own_drills[:1])

    @property
    def was_good(self) -> bool:
        """Whether it is whole, and was restored once, whatever later drills said."""
        return self.state == "whole" and any(drill.passed for drill in self.own_drills)

    @property
    def may_come_back(self) -> bool:
        """Whether it is whole as far as is known: no drill of ours failed since."""
        return self.state == "whole" and (self.is_good or not self.own_drills)

    @property
    def own_drills(self) -> tuple[DrillFacts, ...]:
        """The drills that restored it, newest first; others looked at another database."""
        return tuple(drill for drill in self.drills if drill.target == "scratch")


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first object of a backup: what is left of one that was never finished is named in it.

    Attributes:
        number: As the manifest's.
        keys: Every object that will follow, the manifest left out.
    """

    number: int
    keys: tuple[str, ...]


_DRILL_FACTS = TypeAdapter(DrillFacts)
_BEGINNINGS = TypeAdapter(Beginning)


def began_at(backup_id: str) -> datetime | None:
    """Return when a backup began by its name; None if that is no backup's name."""
    if not _ID.fullmatch(backup_id):
        return None
    try:
        return datetime.strptime(backup_id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def is_drill(name: str) -> bool:
    """Say whether an object below a backup is a drill's report."""
    return _DRILL.fullmatch(name) is not None


def read_manifest(content: bytes, backup_id: str, key: bytes | None) -> tuple[Manifest, bool]:
    """Return a backup's manifest, and whether it is signed; see `parse_manifest`.

    Raises:
        BackupCorruptError: It is damaged, another backup's, or names what cannot be its own.
        BackupUntrustedError: It is not signed with the key.
    """
    manifest, is_signed = parse_manifest(content, key)
    try:
        for moment in (manifest.started_at, manifest.snapshot_at, manifest.finished_at):
            if datetime.fromisoformat(moment).tzinfo is None:
                raise ValueError(f"{moment} has no time zone.")
            datetime.fromisoformat(moment).astimezone(UTC)
        if manifest.id != backup_id:
            raise ValueError(f"It is that of backup {manifest.id}.")
        reserved = any(file.name in _OURS or is_drill(file.name) for file in manifest.files)
        if reserved or not is_sound(backup_id, manifest.files):
            raise ValueError("Its files have names that they cannot have.")
    except (ValueError, OverflowError) as error:
        raise BackupCorruptError(
            f"The manifest of backup {backup_id} is not of this backup.",
            why=str(error),
            fix="Use another backup; look for what changed this one.",
        ) from error
    return manifest, is_signed


def beginning_bytes(beginning: Beginning) -> bytes:
    """Return the first object of a backup as it lies in the store."""
    return seal(asdict(beginning), None)


def read_beginning(content: bytes, backup_id: str) -> Beginning:
    """Return the first object of a backup.

    Raises:
        BackupCorruptError: It is damaged, or names what is not of this backup.
    """
    what = f"What backup {backup_id} was begun with"
    body = unseal(content, None, what)
    try:
        beginning = _BEGINNINGS.validate_json(body, strict=True)
        if not all(key.startswith(f"{backup_id}/") and ".." not in key for key in beginning.keys):
            raise ValueError("It names objects of others.")
    except ValueError as error:
        raise BackupCorruptError(f"{what} is damaged.", why=explained(error)) from error
    return beginning


def drill_bytes(facts: DrillFacts, key: bytes | None) -> bytes:
    """Return a drill's report as it lies in the store."""
    return seal(asdict(facts), key)


def drill_stamp(facts: DrillFacts) -> str:
    """Return what the name of a drill's report begins with, so that names sort by time."""
    return f"{DRILLS}{datetime.fromisoformat(facts.started_at).astimezone(UTC):%Y%m%dT%H%M%SZ}-"


def read_drill(content: bytes, backup_id: str, name: str, key: bytes | None) -> DrillFacts:
    """Return a drill's report; one that failed if it cannot be believed.

    An old one under a new name is not: it would hide what drills found since.
    """
    what = f"A report of a drill of backup {backup_id}"
    try:
        facts = _DRILL_FACTS.validate_json(unseal(content, key, what), strict=True)
        if facts.id != backup_id:
            raise BackupCorruptError(f"{what} is that of {facts.id}.")
        if not name.startswith(drill_stamp(facts)):
            raise BackupCorruptError(f"{what} is of {facts.started_at}, and is called {name}.")
    except ValueError as error:
        return unreadable_drill(backup_id, BackupCorruptError(f"{what}: {explained(error)}"))
    except (BackupCorruptError, BackupUntrustedError) as error:
        return unreadable_drill(backup_id, error)
    return facts


def unreadable_drill(backup_id: str, error: KbError) -> DrillFacts:
    """Return what a report is taken for that cannot be read."""
    return DrillFacts(backup_id, "", "", False, "scratch", {}, (str(error),), ())
