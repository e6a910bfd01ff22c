"""What happened after a backup and must outlast its restore: erasures, and what they left."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kb_assets.database.run import Run
from kb_assets.erasure.erase import finish_erasures, hide_again
from kb_assets.erasure.ledger import Erasure, read_requests
from kb_assets.object_store import ObjectStore

if TYPE_CHECKING:
    from kb_assets.archive.reconcile import ReconcileReport


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a restored database was told.

    Attributes:
        requests: How many erasures the ledgers tell of.
        hidden: How many of them the database did not know.
        finished: What was finished: those, and what was unfinished when the backup was made.
        archive: What it was told of its archive; None if there is none, or it was left alone.
        is_beside: Whether the archive is another database's, and was left alone.
    """

    requests: int
    hidden: int
    finished: tuple[Erasure, ...]
    archive: "ReconcileReport | None" = None
    is_beside: bool = False

    @property
    def told(self) -> tuple[str, ...]:
        """What happened in sentences, problems last."""
        lines = [f"Erased again: {self.hidden} of {self.requests} subjects of the ledger."]
        if self.is_beside:
            lines.append(
                "The archive was left alone, for it is another database's: archive and erase "
                "nothing with this one. To put it in the other's place, restore without --to-url."
            )
        if self.archive is None:
            return tuple(lines)
        if self.archive.replaced:
            lines.append(f"Replaced in the archive since the backup: {self.archive.replaced}.")
        if self.archive.months:
            months = ", ".join(f"{month:%Y-%m}" for month in self.archive.months)
            lines.append(
                f"Came back from the archive: {months}, {self.archive.rows:,} messages that the "
                "database did not have; the next run of the archive takes them again."
            )
        lines += (f"To be looked at: {problem}" for problem in self.archive.problems)
        return tuple(lines)


def replay_erasures(
    run: Run,
    archive_store: ObjectStore | None,
    backup_store: ObjectStore,
    *,
    is_beside: bool = False,
) -> ReplayReport:
    """Erase again what was erased after a backup, in the database that it was restored to.

    First all of it is hidden. Then the archive is told apart: what was written anew or archived
    since then (see `reconcile_archive`). Then erasures are finished. Ended at any point it can be
    run again, and run twice it changes nothing.

    Args:
        run: Who works; its database is the restored one, with the schema of this code.
        archive_store: The archive's destination, if there is an archive.
        backup_store: The backups' destination: the ledger of times without an archive is there.
        is_beside: Whether the archive is that of another database, which may be at work: what was
            erased is hidden here, and nothing in the archive is changed or looked at.

    Raises:
        BackupCorruptError: An entry of a ledger is damaged; nothing was changed.
        SettingsError: Erased messages are in an archive, and the settings do not say where.
        ArchiveCorruptError: An object with erased messages is damaged: they are hidden.
        ObjectStoreError: A store refuses us.
        TransientError: The database, a store or the disk failed; what is done stays done.
    """
    stores = [backup_store] if archive_store is None else [archive_store, backup_store]
    requests = [request for store in stores for request in read_requests(store)]
    hidden = hide_again(run, requests)
    if is_beside and archive_store is not None:
        return ReplayReport(len(requests), hidden, (), is_beside=True)
    archive = None
    if archive_store is not None:
        from kb_assets.archive.reconcile import reconcile_archive

        archive = reconcile_archive(run, archive_store)
    finished = finish_erasures(run, archive_store, ledger=archive_store or backup_store)
    return ReplayReport(len(requests), hidden, finished, archive)
