"""The knowledge base as Dagster's one resource."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from kb_assets.database.run import Run
from kb_assets.defs.failures import failure_of, retry_of
from kb_assets.defs.options import IndexOptions
from kb_assets.defs.processes import sign
from kb_assets.errors import KbError, TransientError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.knowledge_base.garbage import seldom_collected
from kb_assets.processes import kept_processes
from kb_assets.settings import Settings

KNOWLEDGE_BASE = "knowledge_base"
"""The resource's key."""


@dataclass(slots=True)
class Observer:
    """Who follows a run in the process it happens in.

    Attributes:
        say: Told what takes long, in a sentence.
        reports: What each asset reported, by asset and then by shard or space.
        failures: What ended steps, as it was raised.
    """

    say: Callable[[str], None]
    reports: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)


class KnowledgeBaseResource:
    """Opens the knowledge base for a step, and closes it when the step ends.

    Nothing is connected before a step asks for the database, so that definitions load
    without one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        knowledge_base: KnowledgeBase | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Remember what is to be opened.

        Args:
            settings: The knowledge base's settings.
            knowledge_base: One that is open already, and is left open.
            observer: Who follows along, besides Dagster's event log.
        """
        self.settings = settings
        self._given = knowledge_base
        self._observer = observer
        self._signed = ""

    @contextmanager
    def opened(self) -> Iterator[KnowledgeBase]:
        """Lend the knowledge base."""
        if self._given is not None:
            yield self._given
            return
        with KnowledgeBase(self.settings) as knowledge_base:
            yield knowledge_base

    @contextmanager
    def run(self, context: dg.AssetExecutionContext, options: IndexOptions) -> Iterator[Run]:
        """Lend what the stages of Dagster's run share; failures come out as Dagster wants them.

        Raises:
            dagster.Failure: A stage failed for good.
            dagster.RetryRequested: It may work when it is tried again.
        """

        def say(sentence: str) -> None:
            context.log.info(sentence)
            self.say(sentence)

        with (
            self.told_as_dagster_wants(context),
            self.opened() as knowledge_base,
            kept_processes(),
            seldom_collected(),
        ):
            self.sign(context)
            yield knowledge_base.run(
                run_id=context.run_id,
                say=say,
                confirm_deletes=options.confirm_deletes,
                confirm_cost=options.confirm_cost,
                verify=options.verify,
            )

    @contextmanager
    def told_as_dagster_wants(
        self, context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext
    ) -> Iterator[None]:
        """Turn what a stage raises into what Dagster understands, and note it.

        A permanent error is not tried again. A transient one is, unless somebody is watching
        the run: they see it at once, and the next run goes on from there.
        """
        try:
            yield
        except KeyboardInterrupt:
            context.instance.report_run_canceling(context.run)
            raise
        except Exception as error:
            if self._observer is not None:
                self._observer.failures.append(error)
            if isinstance(error, TransientError) and self._observer is None:
                again = retry_of(error, context.retry_number)
                if again is not None:
                    raise again from error
            if isinstance(error, KbError):
                raise failure_of(error) from error
            raise

    def sign(self, context: dg.AssetExecutionContext) -> None:
        """Note on the run which process executes it, once."""
        if self._signed != context.run_id:
            sign(context.instance, context.run)
            self._signed = context.run_id

    def say(self, sentence: str) -> None:
        """Tell who follows along what begins; Dagster's own events say the same."""
        if self._observer is not None:
            self._observer.say(sentence)

    def note(self, asset: str, part: str, report: dict[str, Any]) -> None:
        """Pass on what an asset reported of a shard or a space."""
        if self._observer is not None:
            self._observer.reports.setdefault(asset, {})[part] = report

    def note_failure(self, failure: KbError) -> None:
        """Pass on what ended no step, and must not be taken for success."""
        if self._observer is not None:
            self._observer.failures.append(failure)
