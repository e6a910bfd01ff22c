"""Checks of `message_archive`: each asserts the one truth its name says, of all months.

None blocks: nothing comes after the asset, and what a red one tells of is as it is already.
"""

from datetime import UTC, datetime

import dagster as dg

from kb_assets.defs.metadata import table
from kb_assets.defs.partitions import ARCHIVE, month_key
from kb_assets.defs.resources import KnowledgeBaseResource

VERIFY = "`kb archive verify` looks at all of them."


def archive_checks() -> list[dg.AssetChecksDefinition]:
    """Return the checks of the archive."""
    return [archive_matches_manifest, hot_and_cold_are_disjoint, nothing_old_is_left_hot]


@dg.asset_check(
    asset=ARCHIVE,
    description="The newest objects, and a thirtieth of the others each day, are fetched anew and "
    "hold the very rows that their manifests say: SHA-256, number, keys, each row's hash. If it is "
    "red, `kb archive verify` names the objects; bring them back from a copy of the bucket.",
)
def archive_matches_manifest(
    context: dg.AssetCheckExecutionContext,
    knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
) -> dg.AssetCheckResult:
    """Red if an object is gone or damaged: ERROR, because its rows are nowhere else."""
    from kb_assets.archive.checks import examine

    with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
        objects, seen = examine(kb.reader, lambda: kb.archive_store, datetime.now(UTC).date())
    fetched, damages = len(seen.segments), [str(one.damage) for one in seen.damaged]
    return dg.AssetCheckResult(
        passed=not damages,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{damages[0]} {VERIFY}"
        if damages
        else f"{fetched} of {objects} objects were fetched, and are whole.",
        metadata={
            "objects": objects,
            "fetched": fetched,
            "fetched_bytes": sum(one.object_bytes for one in seen.segments),
            **({"damaged": dg.MetadataValue.json(damages)} if damages else {}),
        },
    )


@dg.asset_check(
    asset=ARCHIVE,
    description="No message is both in the database and in the archive. (Late messages may repeat "
    "archived ones until they are archived; readers see them once.) If it is red, delete those "
    "rows from kb.message; nothing that is archived is lost by it.",
)
def hot_and_cold_are_disjoint(
    context: dg.AssetCheckExecutionContext,
    knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
) -> dg.AssetCheckResult:
    """Red if a message is in two places: ERROR, because queries count it twice.

    Only months with rows in both places are compared; there are none, unless somebody put rows
    back by hand.
    """
    from kb_assets.archive.checks import overlaps

    with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
        seen = overlaps(kb.reader, lambda: kb.archive_store)
    rows = sum(seen.found.values())
    return dg.AssetCheckResult(
        passed=not seen.found,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{rows} archived messages are in the database, too: "
        f"{', '.join(map(month_key, seen.found))}. Find out who put them there, and delete them "
        "from kb.message; to bring a month back, use `kb archive restore`."
        if seen.found
        else "No month has rows in both places."
        if not seen.compared
        else "No message is in both places.",
        metadata={
            "rows_in_both": rows,
            "months": table(
                ["month", "archived rows compared", "in both"],
                [
                    (month_key(month), f"{count:,}", f"{seen.found.get(month, 0):,}")
                    for month, count in seen.compared.items()
                ],
            ),
        },
    )


@dg.asset_check(
    asset=ARCHIVE,
    description="No month, and no late message, that has been due for a week is still in the "
    "database, and no erasure has been open for a day. Months that are held are left out. If it is "
    "red, start archive_messages and read what its run says.",
)
def nothing_old_is_left_hot(
    context: dg.AssetCheckExecutionContext,
    knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
) -> dg.AssetCheckResult:
    """Red if the archive is behind: WARN, or ERROR if what was to be erased is still there."""
    from kb_assets.archive.checks import leftovers

    with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
        days = kb.settings.archive.retention_days if kb.settings.archive else None
        seen = leftovers(kb.reader, datetime.now(UTC), days)
    told = []
    if seen.months:
        told.append(f"Still in the database: {', '.join(map(month_key, seen.months))}.")
    if seen.late:
        late = ", ".join(f"{rows:,} of {month_key(month)}" for month, rows in seen.late.items())
        told.append(f"Late messages that nobody archives: {late}.")
    if told:
        told.append("Look at the last runs of archive_messages, or run `kb archive run`.")
    if seen.erasures:
        told.append(f"{seen.erasures} erasures are not finished: run `kb erase --resume`.")
    return dg.AssetCheckResult(
        passed=not told,
        severity=dg.AssetCheckSeverity.ERROR if seen.erasures else dg.AssetCheckSeverity.WARN,
        description=" ".join(told) or "Whatever was due has left.",
        metadata={
            "months": len(seen.months),
            "late_rows": sum(seen.late.values()),
            "open_erasures": seen.erasures,
        },
    )
