"""What a backup's materialization shows, and what its drill does."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from kb_assets.defs.metadata import Metadata, counts, place, table

if TYPE_CHECKING:
    from kb_assets.backup.place import DrillFacts
    from kb_assets.backup.stage import BackupReport

_HASH_DIGITS = 12
_MOST_LINES = 20


def backup_metadata(report: "BackupReport", url: str) -> Metadata:
    """Return what is shown of a backup that was made."""
    made = report.manifest
    tables = sorted(made.tables, key=lambda one: -one.rows)
    rows = [
        (f"{one.schema}.{one.name}", f"{one.rows:,}", one.row_hash_sum[:_HASH_DIGITS])
        for one in tables
    ]
    return {
        "backup": dg.MetadataValue.text(made.id),
        "url": place(url),
        "snapshot_at": dg.MetadataValue.timestamp(datetime.fromisoformat(made.snapshot_at)),
        "dagster/row_count": dg.MetadataValue.int(made.rows),
        "encrypted": dg.MetadataValue.bool(made.is_encrypted),
        **counts(
            {
                "files": len(made.files),
                "stored_bytes": made.stored_bytes,
                "database_bytes": made.database_bytes,
                **_named(report.seconds),
            }
        ),
        "tables": table(["table", "rows", "checksum"], rows),
        **({"notes": listed(report.notes)} if report.notes else {}),
    }


def drill_metadata(found: "DrillFacts") -> Metadata:
    """Return what is shown of a drill; how long it took is the RTO, if it passed."""
    seconds = {step: taken / 1000 for step, taken in found.seconds.items()}
    told = {"failures": found.failures, "notes": found.notes}
    return {
        "backup": dg.MetadataValue.text(found.id),
        **counts({"rto_seconds": seconds["total"]} if found.passed else {}),
        **counts(_named(seconds)),
        **{name: listed(lines) for name, lines in told.items() if lines},
    }


def listed(lines: Sequence[str]) -> dg.MetadataValue:
    """Return sentences as the UI shows them at once, a line for each; JSON is a click away."""
    more = len(lines) - _MOST_LINES
    told = [*lines[:_MOST_LINES], *([f"And {more:,} more."] if more > 0 else [])]
    return dg.MetadataValue.text("\n".join(told))


def _named(seconds: dict[str, float]) -> dict[str, float]:
    return {f"seconds_{step.replace(' ', '_')}": taken for step, taken in seconds.items()}
