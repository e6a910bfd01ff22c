"""What the index's assets have in common."""

from typing import Any

import dagster as dg

from kb_assets.defs.partitions import backfill_policy, shard_partitions
from kb_assets.settings import Settings

GROUP = "index"


def shard_asset(settings: Settings) -> dict[str, Any]:
    """Return the attributes of an asset that is made shard by shard."""
    return {
        "group_name": GROUP,
        "owners": list(settings.owners),
        "partitions_def": shard_partitions(settings),
        "backfill_policy": backfill_policy(),
    }


def whole_asset(settings: Settings) -> dict[str, Any]:
    """Return the attributes of an asset that is made at once for all shards.

    The backfill policy looks out of place without partitions, and is needed: `dg launch` takes
    a range of partitions only if every selected asset has `single_run`.
    """
    return {
        "group_name": GROUP,
        "owners": list(settings.owners),
        "backfill_policy": dg.BackfillPolicy.single_run(),
    }
