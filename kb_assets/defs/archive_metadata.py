"""What a month's materialization shows: what was moved, what it saved, and where it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from kb_assets.archive.account import Unread
from kb_assets.defs.metadata import Metadata, counts, moment, table

if TYPE_CHECKING:
    from kb_assets.archive.stage import MonthReport

_HASH_DIGITS = 12


_MOVED = ("rows", "repeats_", "bytes_", "ratio", "seconds_", "sample")
_NONE = dg.MetadataValue.int(0)

Cold = tuple[str, int, int, str]
"""An object of a month: what it was made of, its rows, its bytes, and where it is."""

_OBJECT_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("source", "string", "`month`, `late`, or `rewrite` after an erasure"),
        dg.TableColumn("rows", "int", "How many messages it holds"),
        dg.TableColumn("bytes", "int", "Its size"),
        dg.TableColumn("url", "string", "Where the object is"),
    ]
)


def archive_metadata(
    report: "MonthReport", sample: Sequence[Unread], cold: Sequence[Cold], before: Metadata
) -> Metadata:
    """Return what is shown of a month, whether anything of it was moved or not.

    Args:
        report: What was moved.
        sample: Some of what was in the database before.
        cold: All that is archived of the month now.
        before: What was shown of it the last time: what was moved then stands until more is.
    """
    if report.note:
        stands = {name: value for name, value in before.items() if name.startswith(_MOVED)}
        moved = {"note": dg.MetadataValue.text(report.note), "rows": _NONE, **stands}
    else:
        moved = {**_moved(report), "sample": _sample_table(sample)}
    return {
        **moved,
        "dagster/row_count": dg.MetadataValue.int(sum(rows for _, rows, _, _ in cold)),
        "archived_bytes": dg.MetadataValue.int(sum(size for _, _, size, _ in cold)),
        "objects": dg.MetadataValue.int(len(cold)),
        **({"object_urls": _object_table(cold)} if cold else {}),
    }


def _moved(report: "MonthReport") -> Metadata:
    """Return numbers whose names begin with one of `_MOVED`."""
    sizes = {"bytes_before": report.table_bytes, "bytes_after": report.object_bytes}
    ratio = {"ratio": report.object_bytes / max(1, report.table_bytes)} if report.rows else {}
    repeats = {"repeats_deleted": report.repeated} if report.repeated else {}
    seconds = {f"seconds_{step}": taken for step, taken in report.seconds.items()}
    return counts({"rows": report.rows, **repeats, **sizes, **ratio, **seconds})


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
