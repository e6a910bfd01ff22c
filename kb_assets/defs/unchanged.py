"""What did not change is not counted again: the last numbers stand, and say when they were counted.

Counting costs with the corpus, where a run with nothing to do costs next to nothing. Whether
anything can have changed is told by the state of what was counted: see `find_state`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
)

from kb_assets.chunks.stage import ChunkReport
from kb_assets.database.connect import Database
from kb_assets.database.names import SPACE_SCHEMA
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.defs.metadata import Metadata, counts
from kb_assets.defs.partitions import runs_in_cluster
from kb_assets.documents.stage import ReadReport
from kb_assets.fingerprints import Shard
from kb_assets.index.publish import PublishReport
from kb_assets.settings import Settings

COUNTED_AT = "counted_at"
STATE = "counted_state"

STANDS_SECONDS = 24 * 60 * 60
"""How long numbers stand at most: what happens behind the index's back changes no state of it."""

_MOST_RESULTS = 50
"""Among how many results of a check one for the same shards is looked for, if runs take turns."""

_find_state = Statements.beside(__file__)("find_state")


def find_state(database: Database, shards: Sequence[Shard] = ()) -> str | None:
    """Return what is different once anything was done to shards, or to what all shards share.

    Nothing is counted for it. It begins with the shards, so that it is theirs and nobody else's.

    Returns:
        None if it cannot be told: documents wait, or may not have been read as they are.
    """
    wanted = {
        "sources": [shard.source for shard in shards],
        "lows": [shard.slot_low for shard in shards],
        "highs": [shard.slot_high for shard in shards],
        "space_schema": SPACE_SCHEMA,
    }
    with database.transaction() as connection:
        row = connection.execute(_find_state, wanted).fetchone()
    of = f"{shards[0].key}...{shards[-1].key}: " if shards else ""
    return None if row is None else f"{of}{row[0]}"


def stamp(state: str | None) -> Metadata:
    """Return what numbers are marked with whose state was found before they were counted."""
    if state is None:
        return {}
    return {
        STATE: dg.MetadataValue.text(state),
        COUNTED_AT: dg.MetadataValue.timestamp(time.time()),
    }


def stands(metadata: Mapping[str, Any], state: str | None) -> bool:
    """Say whether numbers that were counted earlier are those of this state, and fresh enough."""
    if state is None or metadata.get(STATE) != dg.MetadataValue.text(state):
        return False
    return bool(time.time() - metadata[COUNTED_AT].value < STANDS_SECONDS)


def shown_before(context: dg.AssetExecutionContext, partition: str | None = None) -> Metadata:
    """Return what the last materialization showed: of a partition, or of an asset without any."""
    partitions = None if partition is None else [partition]
    wanted = dg.AssetRecordsFilter(context.asset_key, asset_partitions=partitions)
    records = context.instance.fetch_materializations(wanted, limit=1).records
    last = records[0].asset_materialization if records else None
    return {} if last is None else dict(last.metadata)


def with_counts(
    context: dg.AssetExecutionContext,
    run: Run,
    shard: Shard,
    report: ReadReport | ChunkReport | PublishReport,
    count: Callable[[Database, Shard], Metadata],
) -> Metadata:
    """Return a report's numbers, and what else the materialization of a shard shows.

    Args:
        context: Of the asset.
        run: What the stages share.
        shard: What was worked on.
        report: What came of it.
        count: Counts what there is, at a cost that grows with it.
    """
    state = find_state(run.database, (shard,))
    shown = {} if state is None else shown_before(context, shard.key)
    if not stands(shown, state):
        shown = {**count(run.database, shard), **stamp(state)}
    return {**shown, **counts(asdict(report))}


def green_before(
    context: dg.AssetCheckExecutionContext, settings: Settings, state: str | None
) -> dg.AssetCheckResult | None:
    """Return the result of a check that stands, if there is one.

    A green one does, until one is red. If the check was started by itself, none does.
    """
    if state is None or not context.job_def.asset_layer.executable_asset_keys:
        return None
    (key,) = context.selected_asset_check_keys
    taking_turns = settings.shards if runs_in_cluster() else settings.sources
    for record in context.instance.event_log_storage.get_asset_check_execution_history(
        key,
        limit=min(len(taking_turns), _MOST_RESULTS),
        status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    ):
        assert record.event is not None
        assert record.event.dagster_event is not None
        last = record.event.dagster_event.asset_check_evaluation_data
        if not last.passed:
            return None
        if stands(last.metadata, state):
            return dg.AssetCheckResult(
                passed=True, description=last.description, metadata=last.metadata
            )
    return None
