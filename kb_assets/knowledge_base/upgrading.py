"""Bringing a knowledge base up to this code: backup, extension, schema, indexes, server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from kb_assets.database.connect import conninfo, unavailable_when_lost
from kb_assets.database.extension import (
    ExtensionVersions,
    extension_versions,
    update_extension,
)
from kb_assets.database.migrate import current, head, require_current_schema, revisions
from kb_assets.errors import KbError, SettingsError
from kb_assets.knowledge_base.backing_up import BackingUp

if TYPE_CHECKING:
    from kb_assets.backup.new_major import NewMajor
    from kb_assets.database.embedded import Major


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What an upgrade did.

    Attributes:
        revision: The schema's revision now.
        revision_before: The one it had; None if there were no tables.
        backup: The id of the backup that was made first; empty if none was.
        pgvector: The version now.
        pgvector_before: The version it had; None if it was not installed.
        rebuilt: The spaces whose vector index was built, or built anew.
        server: The new major version of the embedded server, if there is one.
        notes: What is left to do.
    """

    revision: str
    revision_before: str | None
    backup: str
    pgvector: str
    pgvector_before: str | None
    rebuilt: tuple[str, ...]
    server: "NewMajor | None"
    notes: tuple[str, ...]


class Upgrading(BackingUp):
    """Bringing a knowledge base up to this code: backup, extension, schema, indexes, server."""

    def upgrade_all(
        self,
        *,
        backs_up: bool = True,
        postgres: "Major | None" = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> UpgradeReport:
        """Bring everything up to this code; interrupted, it can be called again.

        A backup is made first, unless there is nothing to do or nothing to lose.

        Args:
            backs_up: Whether a backup is made.
            postgres: The major version that the embedded server is to have.
            say: Told what is being done.

        Raises:
            SettingsError: The server is not the embedded one, and a version of it was given.
            SchemaError: The database is ahead of this code.
            KbError: A step failed; without a backup nothing was changed.
        """
        self._require_embedded(postgres)
        before, versions = self._revision(), extension_versions(self._administrator)
        is_due = before != head() or (versions is not None and versions.is_due)
        backup = ""
        if backs_up and before is not None and (is_due or self._is_other_major(postgres)):
            say("Making a backup.")
            backup = self._backup_first()
        notes = self._update_extension(versions, say)
        if before != head():
            say(f"Bringing the schema from revision {before or 'none'} to {head()}.")
        self.upgrade()
        say("Looking at the vector indexes.")
        rebuilt = self._rebuild_indexes()
        server = self._upgrade_server(postgres, say)
        now = extension_versions(self._administrator)
        return UpgradeReport(
            revision=head(),
            revision_before=before,
            backup=backup,
            pgvector=now.installed if now else "",
            pgvector_before=versions.installed if versions else None,
            rebuilt=rebuilt,
            server=server,
            notes=notes,
        )

    def _require_embedded(self, postgres: "Major | None") -> None:
        if postgres is not None and self.settings.database_url:
            raise SettingsError(
                "The server of this knowledge base is not the embedded one.",
                why="KB_DATABASE_URL names a server of one's own.",
                fix="Upgrade it as its makers say: docs/upgrading.md.",
            )

    @property
    def _administrator(self) -> str:
        """Where the extension is updated: as the administrator, if the server is ours."""
        if self.settings.database_url:
            return self.urls.migrator
        from kb_assets.backup.target import find_target

        return find_target(self.settings)

    def _revision(self) -> str | None:
        """Return the schema's revision.

        Raises:
            SchemaError: This code does not know it.
        """
        with (
            unavailable_when_lost(),
            psycopg.connect(conninfo(self.urls.migrator, "kb_upgrade")) as connection,
        ):
            found = current(connection)
            if found is not None and found not in revisions():
                require_current_schema(connection)
            return found

    def _is_other_major(self, postgres: "Major | None") -> bool:
        from kb_assets.database.successor import version_of

        data = self.settings.home_folder / "postgres" / "data"
        return postgres is not None and version_of(data) != postgres

    def _backup_first(self) -> str:
        try:
            return self.back_up().manifest.id
        except KbError as error:
            raise type(error)(
                f"Nothing was upgraded, because no backup could be made. {error.what}",
                why=error.why,
                fix=f"{error.fix} Or make one by other means, and say --no-backup.".strip(),
            ) from error

    def _update_extension(
        self, versions: ExtensionVersions | None, say: Callable[[str], None]
    ) -> tuple[str, ...]:
        """Update pgvector if there is a later one, and return what an administrator must do."""
        if versions is None or not versions.is_due:
            return ()
        say(f"Updating pgvector from {versions.installed} to {versions.offered}.")
        if update_extension(self._administrator):
            return ()
        return (
            f"The server offers pgvector {versions.offered}, the database has "
            f"{versions.installed}: let an administrator run `alter extension vector update` in "
            "it, then run `kb upgrade` again.",
        )

    def _rebuild_indexes(self) -> tuple[str, ...]:
        from kb_assets.index.vectors import maintain_vector_indexes

        reports = maintain_vector_indexes(self.database)
        return tuple(report.space for report in reports if report.action != "none")

    def _upgrade_server(
        self, postgres: "Major | None", say: Callable[[str], None]
    ) -> "NewMajor | None":
        if postgres is None:
            return None
        from kb_assets.backup.new_major import upgrade_server

        self.close()
        self.__dict__.pop("urls", None)
        return upgrade_server(self.settings, postgres, say=say)
