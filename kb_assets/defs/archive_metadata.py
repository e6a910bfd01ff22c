"""What a month's materialization shows: what was moved, what it saved, and where it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from kb_assets.archive.account import Unread
from kb_assets.defs.metadata import Metadata, counts, moment, table

if TYPE_CHECKING:
    from kb_assets.archive.stage import MonthReport

_HASH_DIGITS = 12


Cold = tuple[str, str, int, int]
"""An object of a month: where it is, what it was made of, its rows and bytes."""

_OBJECT_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("url", "string", "Where the object is"),
        dg.TableColumn("source", "string", "`month`, `late`, or `rewrite` after an erasure"),
        dg.TableColumn("rows", "int", "How many messages it holds"),
        dg.TableColumn("bytes", "int", "Its size"),
    ]
)


def archive_metadata(
    report: "MonthReport", sample: Sequence[Unread], cold: Sequence[Cold]
) -> Metadata:
    """Return what is shown of a month, whether anything of it was moved or not.

    Args:
        report: What was moved.
        sample: Some of what was in the database before.
        cold: All that is archived of the month now.
    """
    moved = {} if report.note else _moved(report, sample)
    return {
        "rows": dg.MetadataValue.int(report.rows),
        **moved,
        "dagster/row_count": dg.MetadataValue.int(sum(rows for _, _, rows, _ in cold)),
        "archived_bytes": dg.MetadataValue.int(sum(size for *_, size in cold)),
        "objects": dg.MetadataValue.int(len(cold)),
        "object_urls": _object_table(cold),
        "note": dg.MetadataValue.text(report.note or "none"),
    }


def _moved(report: "MonthReport", sample: Sequence[Unread]) -> Metadata:
    ratio = report.object_bytes / max(1, report.table_bytes)
    seconds = {f"seconds_{step}": taken for step, taken in report.seconds.items()}
    numbers = {
        "repeats_deleted": report.repeated,
        "bytes_before": report.table_bytes,
        "bytes_after": report.object_bytes,
        **({"ratio": ratio} if report.rows else {}),
        **seconds,
    }
    return {**counts(numbers), "sample": _sample_table(sample)}


def _object_table(cold: Sequence[Cold]) -> dg.TableMetadataValue:
    """Return where objects are: a table of Dagster's own, which cuts no address short."""
    names = [column.name for column in _OBJECT_COLUMNS.columns]
    records = [dg.TableRecord(dict(zip(names, one, strict=True))) for one in cold]
    return dg.MetadataValue.table(records, schema=_OBJECT_COLUMNS)


def _sample_table(sample: Sequence[Unread]) -> dg.MarkdownMetadataValue:
    heads = ["id (hash)", "conversation (hash)", "role", "created (UTC)", "bytes", "tokens"]
    rows = [
        (
            one.id_hash[:_HASH_DIGITS],
            one.conversation_hash[:_HASH_DIGITS],
            one.role,
            moment(one.created_at),
            f"{one.content_bytes:,}",
            f"{one.token_count:,}",
        )
        for one in sample
    ]
    return table(heads, rows)
