"""What came of one `kb index`, and what to exit with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kb_assets.cli import exits
from kb_assets.cli.failures import exit_code_of
from kb_assets.errors import KbError
from kb_assets.index.account import Account, account_for

if TYPE_CHECKING:
    from kb_assets.defs.launch import IndexRun
    from kb_assets.fingerprints import Shard
    from kb_assets.knowledge_base import KnowledgeBase

Reports = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""What each asset reported, by asset and then by shard or space."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one `kb index`.

    Attributes:
        run_id: Dagster's run, as the UI shows it: the first that failed, or the last.
        run_ids: All of them, one for each source.
        reports: What each asset reported, by asset and then by shard or space.
        accounts: Where the documents of each shard are now; empty if that cannot be asked.
        failed_checks: The asset checks that failed.
        error: What stopped a stage.
        seconds: How long it took.
    """

    run_id: str
    run_ids: tuple[str, ...]
    reports: Reports
    accounts: Mapping[str, Account]
    failed_checks: tuple[str, ...]
    error: Exception | None
    seconds: float

    @classmethod
    def of(
        cls, kb: "KnowledgeBase", shards: "tuple[Shard, ...]", run: "IndexRun", seconds: float
    ) -> "Outcome":
        """Return the outcome of a run, with where the documents are after it."""
        try:
            accounts = {shard.key: account_for(kb.reader, shard) for shard in shards}
        except KbError:
            if run.error is None:
                raise
            accounts = {}
        error: Exception | None = run.error
        if error is None and not run.succeeded and not run.failed_checks:
            error = RuntimeError("The run failed and gave no reason; `kb dev` shows its log.")
        return cls(
            run.run_id, run.run_ids, run.reports, accounts, run.failed_checks, error, seconds
        )

    @property
    def withheld(self) -> int:
        """Documents gone from their source that the mass-delete guard keeps."""
        return sum(account.missing for account in self.accounts.values())

    @property
    def waiting(self) -> int:
        """Documents that are not where they should be yet."""
        return sum(
            account.pending - account.missing + account.vanishing
            for account in self.accounts.values()
        )

    @property
    def quarantined(self) -> int:
        """Documents in quarantine."""
        return sum(account.quarantined for account in self.accounts.values())

    def exit_code(self, *, strict: bool) -> int:
        """Return what to exit with.

        Args:
            strict: Whether documents in quarantine count as a failure.
        """
        if self.error is not None:
            return exit_code_of(self.error)
        if self.withheld:
            return exits.WITHHELD
        if self.waiting:
            return exits.WAITING
        if self.failed_checks:
            return exits.CHECK_FAILED
        return exits.QUARANTINED if strict and self.quarantined else exits.DONE
