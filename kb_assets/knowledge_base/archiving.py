"""Old messages: moved to the archive, read together with new ones, looked at, brought back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from kb_assets.database.run import Run
from kb_assets.errors import KbError, SettingsError
from kb_assets.knowledge_base.connections import opened_once
from kb_assets.knowledge_base.indexing import Indexing
from kb_assets.settings import ArchiveSettings

if TYPE_CHECKING:
    from kb_assets.archive.audit import AuditReport
    from kb_assets.archive.months import ArchivedMonth
    from kb_assets.archive.read import QueryResult
    from kb_assets.archive.restore import RestoreReport
    from kb_assets.archive.stage import MonthReport
    from kb_assets.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What one run of the archive did.

    Attributes:
        months: Each month that was looked at, oldest first.
        removed: How many leftover objects were removed from the store.
    """

    months: "tuple[MonthReport, ...]"
    removed: int


class Archiving(Indexing):
    """Old messages: moved to the archive, read together with new ones, looked at, brought back.

    Modules of the archive are loaded when they are needed: Arrow and DuckDB take a while.
    """

    @property
    def archive_settings(self) -> ArchiveSettings:
        """The section `[archive]`.

        Raises:
            SettingsError: There is none.
        """
        if self.settings.archive is None:
            raise SettingsError(
                "This knowledge base has no archive.",
                why="kb.toml has no section [archive].",
                fix='Write `[archive]` into kb.toml; it goes to the folder "archive" beside it, '
                "unless `uri` says otherwise.",
            )
        return self.settings.archive

    @opened_once
    def archive_store(self) -> "ObjectStore":
        """Where the archive's objects are.

        Raises:
            SettingsError: There is no archive.
            ObjectStoreError: It cannot be opened.
        """
        from kb_assets.object_store import ObjectStore

        settings = self.archive_settings
        is_folder = "://" not in settings.uri
        uri = str(self.settings.root.resolve() / settings.uri) if is_folder else settings.uri
        return ObjectStore(uri, settings.options, setting="archive.uri")

    def archive_messages(
        self, months: Sequence[date] | None = None, *, run: Run | None = None
    ) -> ArchiveReport:
        """Move messages that are old enough to the archive.

        What is wrong with one month keeps no other from being archived.

        Args:
            months: First days of the months to look at; by default all that are due, and
                erasures that broke off are finished as well.
            run: Who works; made up if it is not given.

        Raises:
            SettingsError: There is no archive.
            KbError: A month could not be archived: nothing of it was deleted.
        """
        from kb_assets.archive.account import reason_to_wait
        from kb_assets.archive.clean import remove_leftovers
        from kb_assets.archive.stage import MonthReport, archive_month, months_due
        from kb_assets.archive.workplace import remove_abandoned
        from kb_assets.erasure.erase import finish_erasures

        run, store, now = run or self.run(), self.archive_store, datetime.now(UTC)
        days = self.archive_settings.retention_days
        due = months_due(run.archive, now, days)
        remove_abandoned(run.settings.home_folder)
        removed = remove_leftovers(run.archive, store, now)
        reports, failures = [], list[KbError]()
        for month in due if months is None else months:
            if month not in due:
                reason = reason_to_wait(run.archive, month, now, days)
                reports.append(MonthReport(month, note=reason))
                continue
            run.say(f"Archiving {month:%Y-%m}.")
            try:
                reports.append(archive_month(run, store, month))
            except KbError as error:
                failures.append(error)
        if months is None:
            try:
                finish_erasures(run, store)
            except KbError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return ArchiveReport(tuple(reports), removed)

    def archived_months(self) -> "tuple[ArchivedMonth, ...]":
        """Return every month that has messages, and where they are, oldest first."""
        from kb_assets.archive.months import archived_months

        return archived_months(self.reader)

    def query_messages(self, sql: str) -> "QueryResult":
        """Run one SELECT, in DuckDB's dialect, over the table `messages`: hot and cold as one.

        Raises:
            SettingsError: There is no archive; or the query cannot be run, or returns too much.
            ArchiveCorruptError: An object that it needs is gone or damaged.
            TransientError: The database, the store or the cache cannot be used.
        """
        from kb_assets.archive.cache import ObjectCache
        from kb_assets.archive.read import ArchiveReader

        folder = self.settings.home_folder / "archive-cache"
        cache = ObjectCache(folder, self.archive_store, self.archive_settings.cache_bytes)
        return ArchiveReader(self.reader, cache).query(sql)

    def verify_archive(
        self, *, watch: Callable[[int, int], None] = lambda done, of: None
    ) -> "AuditReport":
        """Read every object of the archive back, and compare it with its manifests.

        Args:
            watch: Told how many objects of how many were looked at.

        Raises:
            SettingsError: There is no archive.
            ObjectStoreError: The store refuses us.
            TransientError: The database or the store cannot be reached.
        """
        from kb_assets.archive.audit import verify_archive

        return verify_archive(self.reader, self.archive_store, watch=watch)

    def restore_month(
        self, month: date, hold_days: int = 30, *, run: Run | None = None
    ) -> "RestoreReport":
        """Bring a month back into the database; doing it again changes nothing.

        Args:
            month: Its first day.
            hold_days: For how long it is not archived again.
            run: Who works; made up if it is not given.

        Raises:
            SettingsError: There is no archive.
            NotFoundError: The month never had a message.
            ArchiveBusyError: Another run is at work in it.
            ArchiveCorruptError: An object is damaged; nothing was changed.
            TransientError: The database, the store or the disk failed; nothing was changed.
        """
        from kb_assets.archive.restore import restore_month

        run = run or self.run()
        return restore_month(run, self.archive_store, month, hold_days, datetime.now(UTC))
