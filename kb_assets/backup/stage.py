"""Making a backup: one snapshot, its files, and their way to the destination."""

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

from kb_assets.archive.workplace import workplace
from kb_assets.backup.contents import Contents
from kb_assets.backup.dump import dump
from kb_assets.backup.manifest import Manifest
from kb_assets.backup.place import BackupPlace
from kb_assets.backup.snapshot import Snapshot, only_backup, open_snapshot
from kb_assets.database.migrate import current
from kb_assets.errors import SchemaError
from kb_assets.settings import Settings


@dataclass(slots=True)
class BackupReport:
    """A backup that was made.

    Attributes:
        manifest: What it is.
        seconds: How long each step took: `snapshot`; `schema`, `dump`, `vectors`, `checksums`
            and `questions`, of which all but the first went on at once; `upload`; and `total`.
        notes: What should be known of it.
    """

    manifest: Manifest
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def make_backup(settings: Settings, place: BackupPlace, url: str, *, run_id: str) -> BackupReport:
    """Back up a database; what fails leaves earlier backups as they are.

    Args:
        settings: The knowledge base's; its home's disk must have room for the backup.
        place: Where it goes.
        url: The database, as a role that sees every row.
        run_id: Who is at work.

    Raises:
        BackupBusyError: Another backup of it is being made.
        SchemaError: It is no knowledge base.
        DatabaseRefusedError: The role does not see everything, or no `pg_dump` fits the server.
        DatabaseUnavailableError: The database cannot be reached, or was lost.
        DiskError: The local disk is full, or cannot be written.
        ObjectStoreError: The destination refuses us.
        ObjectStoreUnavailableError: The destination cannot be reached, or broke off.
    """
    began, seconds = datetime.now(UTC), dict[str, float]()
    backup_id = f"{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    with (
        _timed(seconds, "total"),
        only_backup(url, run_id),
        workplace(settings.home_folder, backup_id, who="backup") as folder,
    ):
        with ExitStack() as held:
            with _timed(seconds, "snapshot"):
                snapshot = held.enter_context(open_snapshot(url))
            _require_tables(snapshot)
            dumped = dump(snapshot, folder, settings)
        draft = draft_manifest(backup_id, began, snapshot.taken_at, dumped.contents)
        with _timed(seconds, "upload"):
            manifest = place.put(draft, folder)
    note = dumped.questions.note
    return BackupReport(manifest, seconds | dumped.seconds, (note,) if note else ())


def draft_manifest(
    backup_id: str, began: datetime, taken_at: datetime, contents: Contents
) -> Manifest:
    """Return a manifest that the destination completes."""
    return Manifest(
        id=backup_id,
        number=0,
        started_at=_moment(began),
        snapshot_at=_moment(taken_at),
        finished_at="",
        kb_version=version("kb-assets"),
        server=contents.server,
        extensions=contents.extensions,
        revision=contents.revision,
        database=contents.database,
        database_bytes=contents.database_bytes,
        is_encrypted=False,
        files=(),
        tables=contents.tables,
        sequences=contents.sequences,
        roles=contents.roles,
    )


def _require_tables(snapshot: Snapshot) -> None:
    if current(snapshot.connection) is None:
        raise SchemaError(
            "There is nothing to back up.",
            why="The database has no tables of a knowledge base.",
            fix="Run `kb upgrade`, or see that KB_DATABASE_URL names the right database.",
        )


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="microseconds")


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[step] = time.monotonic() - started
