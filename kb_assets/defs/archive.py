"""The asset `message_archive`: what became of each month's messages."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime

import dagster as dg

from kb_assets.archive.account import cold_segments, oldest_messages
from kb_assets.archive.plan import following, month_of
from kb_assets.database.run import Run
from kb_assets.defs.archive_metadata import archive_metadata
from kb_assets.defs.columns import message_columns
from kb_assets.defs.freshness import ARCHIVE_MAX_AGE, within
from kb_assets.defs.metadata import Metadata
from kb_assets.defs.partitions import (
    ARCHIVE,
    ARCHIVE_GROUP,
    month_key,
    month_of_key,
    month_partitions,
)
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.defs.unchanged import shown_before
from kb_assets.errors import ArchiveBusyError, ArchiveCorruptError, ArchiveStaleError, KbError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.store import add_months
from kb_assets.settings import Settings

MONTHS_AHEAD = 2
"""For how many months to come a run makes partitions; messages make what is missing themselves."""

DESCRIPTION = """
Messages that are older than the archive's retention, as Parquet in its destination.

A month that is due (`retention_days` under `[archive]`) is closed, copied in one snapshot,
uploaded, read back by another reader, and only then deleted from the database, by the transaction
that makes it cold. A run that breaks off deletes nothing: start it again. What comes in later for
such a month follows in a file of its own.

A month that is not due, is held because it was restored, or is empty stays as it is; its **note**
says so. **rows**, **bytes** and **seconds** are of the last run that moved something, the row count
is all that is archived of the month. The sample has no content, and ids by their hash, so that an
erasure leaves none behind here.

`archive_messages_schedule` starts it once `kb.toml` has `[archive]`; without, it fails, and
nothing is deleted. `kb archive query` reads what is archived, `kb archive restore` brings it back.
"""


def message_archive_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with a partition for each month."""

    @dg.asset(
        name=ARCHIVE,
        group_name=ARCHIVE_GROUP,
        owners=list(settings.owners),
        partitions_def=month_partitions(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        freshness_policy=within(ARCHIVE_MAX_AGE) if settings.archive else None,
        description=DESCRIPTION,
        kinds={"postgres", "parquet"},
        metadata=message_columns(),
    )
    def message_archive(
        context: dg.AssetExecutionContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetMaterialization]:
        months = [month_of_key(key) for key in context.partition_keys]
        with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
            knowledge_base.sign(context)
            shown, failure = _archive(kb, months, context)
            if failure is not None:
                # A run that fails records nothing by itself.
                for key, metadata in shown.items():
                    yield dg.AssetMaterialization(
                        context.asset_key, metadata=metadata, partition=key
                    )
                raise failure
        for key, metadata in shown.items():
            context.add_asset_metadata(metadata, partition_key=key)
        yield dg.MaterializeResult()

    return message_archive


def _archive(
    kb: KnowledgeBase, months: Sequence[date], context: dg.AssetExecutionContext
) -> tuple[dict[str, Metadata], KbError | None]:
    """Archive what is due, and return what to show of each month, and what went wrong first.

    What is wrong with one month keeps no other from being archived; what is wrong with the
    database or the store ends the run. Erasures that broke off are finished.
    """
    run = kb.run(run_id=context.run_id, say=context.log.info)
    add_months(run.database, _next_months())
    shown: dict[str, Metadata] = {}
    failure = _finish_erasures(kb, run)
    for month in months:
        try:
            before = shown_before(context, month_key(month))
            shown[month_key(month)] = _archive_month(kb, run, month, before)
        except (ArchiveCorruptError, ArchiveStaleError) as error:
            context.log.error(str(error))
            failure = failure or error
        except KbError as error:
            return shown, failure or error
    return shown, failure


def _finish_erasures(kb: KnowledgeBase, run: Run) -> KbError | None:
    """Finish erasures that broke off, and return what kept one from being finished."""
    try:
        kb.resume_erasures(run=run)
    except ArchiveBusyError as busy:
        run.say(str(busy))
    except KbError as error:
        return error
    return None


def _archive_month(kb: KnowledgeBase, run: Run, month: date, before: Metadata) -> Metadata:
    # Not at module level: pyarrow and DuckDB take a second to load.
    from kb_assets.archive.stage import MonthReport

    sample = oldest_messages(run.database, month)
    try:
        (report,) = kb.archive_messages([month], run=run).months
    except ArchiveBusyError as busy:
        report = MonthReport(month, note=str(busy))
    cold = [
        (one.source, one.rows, one.object_bytes, kb.archive_store.url(one.object_key))
        for one in cold_segments(run.database, month)
    ]
    return archive_metadata(report, sample, cold, before)


def _next_months() -> list[date]:
    months = [month_of(datetime.now(UTC))]
    for _ in range(MONTHS_AHEAD):
        months.append(following(months[-1]))
    return months
