"""Backups: made, listed, proven by a drill, brought back, and removed when they are old."""

import uuid
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from kb_assets.database.connect import Database
from kb_assets.database.row_security import WRITER
from kb_assets.database.run import Run
from kb_assets.errors import BackupUntrustedError
from kb_assets.knowledge_base.connections import opened_once
from kb_assets.knowledge_base.erasing import Erasing

if TYPE_CHECKING:
    from kb_assets.backup.manifest import Manifest
    from kb_assets.backup.place import BackupPlace, DrillFacts, Entry
    from kb_assets.backup.restore import RestoreReport
    from kb_assets.backup.retention import Plan
    from kb_assets.backup.stage import BackupReport

NEWEST = "latest"


class BackingUp(Erasing):
    """Backups: made, listed, proven by a drill, brought back, and removed when they are old."""

    @opened_once
    def backup_place(self) -> "BackupPlace":
        """Where backups are.

        Raises:
            SettingsError: KB_BACKUP_KEY is no key.
            ObjectStoreError: The destination cannot be opened.
        """
        from kb_assets.backup.place import BackupPlace
        from kb_assets.backup.seal import signing_key

        return BackupPlace(self.backup_store, signing_key())

    def back_up(self, *, run_id: str = "") -> "BackupReport":
        """Make a backup of the database as it is now.

        Args:
            run_id: Who is at work; made up if it is not given.

        Raises:
            KbError: There is none; earlier ones are as they were.
        """
        from kb_assets.backup.stage import make_backup

        run_id = run_id or f"library-{uuid.uuid4()}"
        return make_backup(self.settings, self.backup_place, self.urls.backup, run_id=run_id)

    def backups(self) -> "tuple[Entry, ...]":
        """Return every backup, newest first; those that are damaged or not whole as well."""
        return self.backup_place.entries()

    def verify_backup(
        self, backup: str = NEWEST, *, watch: Callable[[int, int], None] = lambda done, of: None
    ) -> "tuple[Entry, tuple[str, ...]]":
        """Read every byte of a backup, and say what is not as its manifest says.

        Args:
            backup: Its id, or `latest`.
            watch: Told how many bytes of how many were read.

        Raises:
            NotFoundError: There is none.
            ObjectStoreError: The store refuses us.
        """
        entry = self.backup_place.find(backup)
        if entry.manifest is None or entry.state != "whole":
            return entry, (entry.why or f"It is {entry.state}.",)
        return entry, self.backup_place.verify(entry.manifest, watch)

    def drill(self, backup: str = NEWEST, *, from_url: str = "") -> "DrillFacts":
        """Restore a backup elsewhere, compare, and note beside it what was found.

        Args:
            backup: Its id, or `latest`.
            from_url: Look at this database instead, which was restored by other means.

        Raises:
            NotFoundError: There is no such backup.
            SettingsError: The URL is not one of PostgreSQL.
            KbError: The drill could not be made, which proves nothing about the backup.
        """
        from kb_assets.backup.drill import drill
        from kb_assets.backup.target import require_reachable

        if from_url:
            require_reachable(from_url, "--from-url")
        return drill(
            self.backup_place, self.backup_place.find(backup), self.settings, from_url=from_url
        )

    def restore_backup(
        self,
        backup: str = NEWEST,
        *,
        to_url: str = "",
        tables: Collection[str] = (),
        schemas: Collection[str] = (),
        unsigned: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> "RestoreReport":
        """Bring a backup back into an empty database, and erase again what was erased since.

        In the knowledge base's own database the archive is put in order as well; with `to_url`
        it is left alone, for the knowledge base's own database may be at work with it.

        Args:
            backup: Its id, or `latest`.
            to_url: Another database than the knowledge base's own.
            tables: Only these, as they were, where there are none of these names.
            schemas: Only these.
            unsigned: Whether a backup may be restored of which nobody knows who made it.
            say: Told what is being done.

        Raises:
            NotFoundError: There is no such backup.
            SettingsError: The URL is not one of PostgreSQL.
            BackupUntrustedError: It is not signed, and may run code here.
            BackupCorruptError: It is damaged: nothing was changed.
            BackupTargetError: The database is not empty, or lacks an extension or a role.
            KbError: A step failed; it can be started over.
        """
        from kb_assets.archive.workplace import workplace
        from kb_assets.backup.drill import require_whole
        from kb_assets.backup.part import restore_part
        from kb_assets.backup.restore import restore
        from kb_assets.backup.target import connected, find_target, require_empty

        entry = self.backup_place.find(backup)
        manifest = require_whole(entry)
        if not entry.is_signed and not unsigned:
            raise _untrusted(entry.id)
        url = find_target(self.settings, to_url)
        if not tables and not schemas:
            with connected(url) as connection:
                require_empty(connection)
        with workplace(self.settings.home_folder, manifest.id, who="restore") as folder:
            say(f"Reading backup {manifest.id} and comparing it with its manifest.")
            self.backup_place.fetch(manifest, folder)
            if tables or schemas:
                return restore_part(manifest, folder, url, tables=tables, schemas=schemas, say=say)

            def replay() -> tuple[str, ...]:
                return self._replay(url, manifest, is_beside=bool(to_url))

            return restore(manifest, folder, url, replay=replay, say=say)

    def plan_pruning(self) -> "Plan":
        """Say which backups would be removed, and why the others are kept."""
        from kb_assets.backup.retention import plan_retention

        return plan_retention(self.backups(), self.settings.backup, datetime.now(UTC))

    def prune_backups(self) -> "Plan":
        """Remove old backups; never the last one that a drill proved."""
        from kb_assets.backup.retention import prune

        return prune(self.backup_place, self.settings.backup, datetime.now(UTC))

    def _replay(self, url: str, manifest: "Manifest", *, is_beside: bool) -> tuple[str, ...]:
        from kb_assets.backup.replay import replay_erasures

        archive = self.archive_store if self.settings.archive else None
        writer = _as_writer(url, manifest)
        name = "kb_assets restore"
        with Database(writer, application_name=name) as database, Database(url) as owner:
            run = Run(database, self.settings, f"restore-{manifest.id}", archiver=lambda: owner)
            report = replay_erasures(run, archive, self.backup_store, is_beside=is_beside)
            return report.told


def _as_writer(url: str, manifest: "Manifest") -> str:
    """Return a URL that acts as the writer: row-level security keeps owners from COPY."""
    if all(role.name != WRITER for role in manifest.roles):
        return url
    between = "&" if "?" in url else "?"
    return f"{url}{between}options={quote(f'-c role={WRITER}')}"


def _untrusted(backup: str) -> BackupUntrustedError:
    return BackupUntrustedError(
        f"Backup {backup} is not signed.",
        why="A restore runs what the backup says, as a role that may do much; without a signature "
        "anybody who can write to the store may have made it.",
        fix="If nobody else can write there, say `--unsigned`. Set KB_BACKUP_KEY to sign the next.",
    )
