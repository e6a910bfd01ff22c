"""Asset checks: each asserts the one truth its name says.

Only `vectors_are_sound` blocks, because only there would going on do harm. The others tell what
is wrong while readers keep what they have, and holding back the rest would not mend it.
"""

import dagster as dg

from kb_assets.defs.index_check import index_check
from kb_assets.defs.metadata import account_table, table
from kb_assets.fingerprints import Shard
from kb_assets.index.account import account_for
from kb_assets.index.checks import (
    index_health,
    index_recall,
    soundness,
    text_coverage,
    unfilled_spaces,
)
from kb_assets.knowledge_base import KnowledgeBase

LEAST_FOUND = 0.9
"""HNSW is approximate: a vector may miss itself now and then, but not many do."""

GOOD_RECALL = 0.95
LEAST_RECALL = 0.8

CONFIRM_DELETES = (
    "Look whether the source is whole. If the documents are gone on purpose, run "
    "`kb index --confirm-deletes`, or materialize raw_documents with confirm_deletes: true."
)


def index_checks() -> list[dg.AssetChecksDefinition]:
    """Return the checks of the index."""
    return [
        no_document_vanished_by_accident,
        vectors_are_sound,
        every_document_is_accounted_for,
        every_chunk_is_embedded,
        new_space_is_filled,
        index_is_valid,
        index_recall_holds,
    ]


@index_check(
    "raw_documents",
    description="The mass-delete guard withholds nothing: no shard lost more documents at once "
    "than limits.max_deleted_share allows. If it is red, see whether the source is whole, and "
    "confirm what is gone on purpose with confirm_deletes.",
)
def no_document_vanished_by_accident(
    kb: KnowledgeBase, shards: tuple[Shard, ...]
) -> dg.AssetCheckResult:
    """Red while the guard withholds documents.

    ERROR, because somebody has to decide. Not blocking: the documents stay in search, and what
    is new or changed is as good as ever.
    """
    missing = [(shard.key, account_for(kb.database, shard).missing) for shard in shards]
    withheld = sum(count for _, count in missing)
    return dg.AssetCheckResult(
        passed=withheld == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{withheld} documents are gone and kept. {CONFIRM_DELETES}"
        if withheld
        else "Nothing is withheld.",
        metadata={
            "withheld": withheld,
            "shards": table(["shard", "withheld"], [(key, str(one)) for key, one in missing]),
        },
    )


@index_check(
    "chunk_embeddings",
    blocking=True,
    stands=False,
    description="No vector is zero, not finite or of a wrong length: neither those about to be "
    "published nor a random sample of the rest. If it is red, delete those vectors, see to the "
    "provider, and start the shard again.",
)
def vectors_are_sound(kb: KnowledgeBase, shards: tuple[Shard, ...]) -> dg.AssetCheckResult:
    """Red if a vector can be found by no search.

    Blocking with ERROR if the vector waits to be published: going on would replace a good old
    revision by one that nobody finds. WARN, which never blocks, if it is live already: holding
    back other documents would not mend it.
    """
    seen = soundness(kb.database, shards)
    severity = dg.AssetCheckSeverity.ERROR if seen.waiting_unsound else dg.AssetCheckSeverity.WARN
    unsound = seen.waiting_unsound + seen.stored_unsound
    return dg.AssetCheckResult(
        passed=unsound == 0,
        severity=severity,
        description=f"{unsound} vectors are unusable. Delete them from the space's table, see to "
        "the provider, and run `kb index` again: it embeds what is missing."
        if unsound
        else f"{seen.waiting + seen.stored} vectors were looked at.",
        metadata={
            "looked_at_waiting": seen.waiting,
            "unsound_waiting": seen.waiting_unsound,
            "looked_at_stored": seen.stored,
            "unsound_stored": seen.stored_unsound,
        },
    )


@index_check(
    "published_documents",
    description="Every document the listing found is live or quarantined, and none waits: "
    "listed = live + quarantined. If it is red, start the shard again: a run goes on where the "
    "last one ended; `kb why PATH` says what a document waits for.",
)
def every_document_is_accounted_for(
    kb: KnowledgeBase, shards: tuple[Shard, ...]
) -> dg.AssetCheckResult:
    """Red if a document is lost, or waits although the run is through.

    ERROR, because a document that is nowhere is what this system promises not to have. Not
    blocking: the vector index serves what is live whatever else is missing.
    """
    accounts = [(shard.key, account_for(kb.database, shard)) for shard in shards]
    open_ = [key for key, account in accounts if not account.is_settled]
    return dg.AssetCheckResult(
        passed=not open_,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Not settled: {', '.join(open_)}. `kb status` and `kb why PATH` say where "
        "the documents are; the next run goes on with those that wait."
        if open_
        else "All documents are live or quarantined with a reason.",
        metadata={"shards": account_table(accounts)},
    )


@index_check(
    "published_documents",
    description="Every text readers see has a vector in the space that answers, or is in "
    "quarantine with a reason. If it is red, `kb index --verify` embeds what is missing.",
)
def every_chunk_is_embedded(kb: KnowledgeBase, shards: tuple[Shard, ...]) -> dg.AssetCheckResult:
    """Red if a live text cannot be found by its meaning.

    ERROR: publishing refuses such documents, so vectors were deleted behind its back or a space
    was promoted by force. Not blocking: it is live already, and the next run may mend it.
    """
    covered = [(shard.key, text_coverage(kb.database, shard)) for shard in shards]
    missing = sum(one.missing for _, one in covered)
    return dg.AssetCheckResult(
        passed=missing == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{missing} live texts have no vector. Run `kb index --verify`, which embeds "
        "what is missing."
        if missing
        else "Every live text can be found.",
        metadata={
            "missing": missing,
            "shards": table(
                ["shard", "texts", "missing"],
                [(key, str(one.texts), str(one.missing)) for key, one in covered],
            ),
        },
    )


@index_check(
    "chunk_embeddings",
    stands=False,
    description="A space that is being built has a vector of every text readers see. If it is red, "
    "the failure is in the metadata of chunk_embeddings; the next run goes on filling it.",
)
def new_space_is_filled(kb: KnowledgeBase, shards: tuple[Shard, ...]) -> dg.AssetCheckResult:
    """Red if the provider of a new space kept it from being filled.

    WARN: readers do not see that space yet, and it cannot be promoted before it is complete.
    """
    missing = unfilled_spaces(kb.database, shards)
    lacking = {name: count for name, count in missing.items() if count}
    return dg.AssetCheckResult(
        passed=not lacking,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{name} lacks {count} texts" for name, count in lacking.items())
        or "No space is being built, or it lacks nothing.",
        metadata={"spaces": table(["space", "missing"], list(missing.items()))},
    )


@index_check(
    "vector_index",
    of_index=True,
    description="The index of the space that answers is complete and for the right distance, and "
    "vectors drawn at random find themselves through it. If it is red, materialize vector_index.",
)
def index_is_valid(kb: KnowledgeBase, _: tuple[Shard, ...]) -> dg.AssetCheckResult:
    """Red if searches cannot use the index, or it misleads them. Nothing comes after it."""
    health = index_health(kb.database)
    if health is None or not health.vectors:
        return dg.AssetCheckResult(passed=True, description="There is nothing to index yet.")
    finds = health.asked == 0 or health.found / health.asked >= LEAST_FOUND
    return dg.AssetCheckResult(
        passed=health.usable and finds,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{health.found} of {health.asked} vectors found themselves."
        if health.usable
        else "There is no usable index: searches are exact, and slow. Materialize vector_index.",
        metadata={
            "space": health.space,
            "usable": health.usable,
            "vectors_asked": health.asked,
            "found_themselves": health.found,
        },
    )


@index_check(
    "vector_index",
    of_index=True,
    description="Searching through the index finds what an exact search does: at least 95 of 100 "
    "nearest neighbours of vectors drawn at random. If it is red, drop the space's index; the next "
    "run builds it anew.",
)
def index_recall_holds(kb: KnowledgeBase, _: tuple[Shard, ...]) -> dg.AssetCheckResult:
    """Red if the index loses neighbours: WARN, or ERROR once every fifth is lost.

    Without a usable index searches are exact; that is for `index_is_valid` to say.
    """
    seen = index_recall(kb.database)
    if seen is None or not seen.asked:
        return dg.AssetCheckResult(passed=True, description="There is nothing to compare.")
    severity = dg.AssetCheckSeverity.WARN
    if seen.recall < LEAST_RECALL:
        severity = dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        passed=seen.recall >= GOOD_RECALL,
        severity=severity,
        description=f"The index finds {seen.recall:.1%} of the ten nearest neighbours of "
        f"{seen.asked} vectors."
        + (
            ""
            if seen.recall >= GOOD_RECALL
            else " Drop the space's HNSW index; `kb index` then builds it anew."
        ),
        metadata={
            "space": seen.space,
            "vectors": seen.vectors,
            "vectors_asked": seen.asked,
            "recall": seen.recall,
        },
    )
