"""A drill: a backup is restored where nobody works, and compared with what it says of itself."""

import shutil
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from kb_assets.backup.compare import Findings, compare
from kb_assets.backup.dump import SCHEMA_FILE
from kb_assets.backup.manifest import Manifest
from kb_assets.backup.place import BackupPlace, DrillFacts, Entry
from kb_assets.backup.questions import QUESTIONS_FILE
from kb_assets.backup.restore import restore
from kb_assets.backup.scratch import drill_folder, scratch_database
from kb_assets.errors import (
    BackupCorruptError,
    BackupTargetError,
    BackupUntrustedError,
    DatabaseRefusedError,
    DiskError,
    NotFoundError,
)
from kb_assets.settings import Settings

_FAULTS_OF_A_BACKUP = (BackupCorruptError, BackupUntrustedError, BackupTargetError)


def drill(
    place: BackupPlace, entry: Entry, settings: Settings, *, from_url: str = ""
) -> DrillFacts:
    """Prove that a backup can be restored, and note in the destination what was found.

    Args:
        place: Where the backup lies.
        entry: The backup.
        settings: The home's disk must have room for the backup and the database.
        from_url: A database that was restored otherwise, such as to a point in time: it is
            compared with the backup, and not changed.

    Returns:
        What was found; a drill that failed is no error.

    Raises:
        NotFoundError: The backup is not finished, or is being deleted.
        BackupCorruptError: Its manifest is damaged.
        BackupUntrustedError: It is not signed by us.
        SettingsError: A URL or a key cannot be used.
        DatabaseRefusedError: The other database does not show us everything.
        ObjectStoreError: The destination refuses us.
        TransientError: The destination, the scratch server or the disk failed: nothing is proven.
    """
    manifest = require_whole(entry)
    started, clock = datetime.now(UTC), time.monotonic()
    found = Findings()
    if not entry.is_signed:
        found.notes += ("The backup is not signed: its content may be anybody's.",)
    try:
        with drill_folder(settings.home_folder, manifest.id) as folder:
            if from_url:
                _compare_with(place, manifest, from_url, folder, found)
            else:
                _restore(place, manifest, folder, found)
    except _FAULTS_OF_A_BACKUP as error:
        found.failures += (str(error),)
    except DatabaseRefusedError as error:
        # The scratch server refuses nothing but what is wrong; somebody else's may refuse us.
        if from_url:
            raise
        found.failures += (str(error),)
    found.seconds["total"] = time.monotonic() - clock
    target: Literal["scratch", "url"] = "url" if from_url else "scratch"
    facts = DrillFacts(
        id=manifest.id,
        started_at=_moment(started),
        finished_at=_moment(datetime.now(UTC)),
        passed=not found.failures,
        target=target,
        seconds={step: round(1000 * seconds) for step, seconds in found.seconds.items()},
        failures=found.failures,
        notes=found.notes,
    )
    place.note_drill(facts)
    return facts


def _restore(place: BackupPlace, manifest: Manifest, folder: Path, found: Findings) -> None:
    _require_room(folder, manifest)
    files = folder / "backup"
    files.mkdir(mode=0o700)
    found.timed("fetch", lambda: place.fetch(manifest, files))
    with ExitStack() as held:
        server = scratch_database(folder, manifest.server_major)
        url = found.timed("server", lambda: held.enter_context(server))
        report = restore(manifest, files, url)
        found.seconds.update(report.seconds)
        found.notes += report.notes
        found.merge(compare(manifest, files, url, is_copy=True))
        found.timed("server", held.close)


def _compare_with(
    place: BackupPlace, manifest: Manifest, url: str, folder: Path, found: Findings
) -> None:
    names = (SCHEMA_FILE, QUESTIONS_FILE)
    found.timed("fetch", lambda: place.fetch(manifest, folder, names=names))
    found.merge(compare(manifest, folder, url, is_copy=False))


def require_whole(entry: Entry) -> Manifest:
    """Return the manifest of a backup that can be restored.

    Raises:
        NotFoundError: It is not whole, or is being deleted.
        BackupCorruptError: Its manifest is damaged.
        BackupUntrustedError: Its manifest is not signed with our key.
    """
    if entry.state == "whole" and entry.manifest is not None:
        return entry.manifest
    kinds = {"forged": BackupUntrustedError, "damaged": BackupCorruptError}
    kind = kinds.get(entry.state, NotFoundError)
    raise kind(
        f"Backup {entry.id} cannot be restored: it is {entry.state}.",
        why=entry.why,
        fix="`kb backup list` shows the others.",
    )


def _require_room(folder: Path, manifest: Manifest) -> None:
    needed = manifest.stored_bytes + manifest.database_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskError(
            "There is no room for a drill.",
            why=f"The backup and its database take {needed:,} bytes; {free:,} are free.",
            fix="Make room on the disk of the knowledge base's home, or set KB_HOME elsewhere.",
        )


def _moment(when: datetime) -> str:
    return when.isoformat(timespec="microseconds")
