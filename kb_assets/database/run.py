"""What every stage of one run shares."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from kb_assets.database.connect import Database
from kb_assets.database.lease import Lease, shard_lease
from kb_assets.fingerprints import Shard
from kb_assets.settings import Settings


def _silent(_: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Run:
    """One run over a knowledge base.

    Attributes:
        database: Where the writer connects.
        settings: The knowledge base's settings.
        run_id: Who is at work: Dagster's run, or a process of its own.
        say: Told, in a sentence, what takes long or waits.
        confirm_deletes: The mass-delete guard was overruled.
        confirm_cost: The cost limit was overruled.
        verify: Trust no version token and no index: look at everything again.
        archiver: Opens where the archiver connects, if the writer may not delete messages.
    """

    database: Database
    settings: Settings
    run_id: str
    say: Callable[[str], None] = field(default=_silent)
    confirm_deletes: bool = False
    confirm_cost: bool = False
    verify: bool = False
    archiver: Callable[[], Database] | None = None

    @property
    def archive(self) -> Database:
        """Where messages are moved and erased."""
        return self.archiver() if self.archiver else self.database

    def lease(self, shard: Shard) -> AbstractContextManager[Lease]:
        """Hold a shard while the context lasts.

        Raises:
            ShardBusyError: Another run holds it, and did not finish in time.
        """
        return shard_lease(
            self.database,
            shard,
            run_id=self.run_id,
            wait_seconds=self.settings.limits.lease_wait_seconds,
            on_wait=self.say,
        )
