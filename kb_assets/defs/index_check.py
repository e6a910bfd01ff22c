"""How a check of the index looks: at which shards, and how long a green result stands.

A check counts the shards its run worked on; started by itself, it counts all of them. Either
way it leaves out shards another run is working on at that moment. The checks have no partitions
of their own (those are a preview in Dagster), so the latest result stands for the asset; its
metadata says which shards it counted.

A green result of those whose cost grows with the corpus stands in the runs that follow, while
nothing was done to what it is about and for a day at most; `counted_at` says since when. A check
that is started by itself always looks.
"""

from collections.abc import Callable

import dagster as dg

from kb_assets.defs.partitions import shards_of_run
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.defs.unchanged import find_state, green_before, stamp
from kb_assets.fingerprints import Shard
from kb_assets.index.checks import busy_shards
from kb_assets.knowledge_base import KnowledgeBase

Look = Callable[[KnowledgeBase, tuple[Shard, ...]], dg.AssetCheckResult]


def index_check(
    asset: str,
    *,
    description: str,
    blocking: bool = False,
    of_index: bool = False,
    stands: bool = True,
) -> Callable[[Look], dg.AssetChecksDefinition]:
    """Make an asset check of a function that looks at shards nobody is working on.

    Args:
        asset: What it is about.
        description: What it asserts.
        blocking: Whether it keeps what comes after its asset from being made if it is red.
        of_index: Whether it is about what all shards share, whatever the run worked on.
        stands: Whether a green result stands; not worth it if looking costs no more with a corpus.
    """

    def check_of(look: Look) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=asset, name=look.__name__, description=description, blocking=blocking)
        def check(
            context: dg.AssetCheckExecutionContext,
            knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
        ) -> dg.AssetCheckResult:
            settings = knowledge_base.settings
            wanted = shards_of_run(settings, context.run.tags) or settings.shards
            shards = () if of_index else wanted
            with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
                state = find_state(kb.database, shards) if stands else None
                return green_before(context, settings, state) or _looked(look, kb, shards, state)

        return check

    return check_of


def _looked(
    look: Look, kb: KnowledgeBase, shards: tuple[Shard, ...], state: str | None
) -> dg.AssetCheckResult:
    busy = busy_shards(kb.database, shards)
    result = look(kb, tuple(shard for shard in shards if shard not in busy))
    # What leaves out shards is true of this moment only.
    return result._replace(metadata={**result.metadata, **({} if busy else stamp(state))})
