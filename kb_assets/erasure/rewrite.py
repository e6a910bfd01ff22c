"""The archive without what was erased: segments are written anew, proven, and take the old's place.

As with every segment, nothing is replaced before its successor was read back to the last row, and
what is replaced stays in the store for a few days, for readers that are still at it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet
from psycopg.types.json import Jsonb

from kb_assets.archive.cache import ObjectCache
from kb_assets.archive.copy import sorter, write_sorted
from kb_assets.archive.lease import month_lease
from kb_assets.archive.plan import Window
from kb_assets.archive.relation import MESSAGES
from kb_assets.archive.segment import Work, enter, note_replaced, prove
from kb_assets.archive.store import Segment, describe_server, find_segments, mark_stale
from kb_assets.archive.verify import fetch_verified, read_verified, schema_of
from kb_assets.archive.workplace import remove_abandoned, workplace
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.erasure.ledger import conversations_of
from kb_assets.errors import ArchiveStaleError, KbError, SettingsError
from kb_assets.object_store import ObjectStore

_COLD = ("committed", "restored")
_statements = Statements(Path(__file__).with_name("erasing.sql"))


def rewrite_archive(run: Run, store: ObjectStore | None, erasure_id: int) -> None:
    """Take what an erasure is about out of every segment; safe to run again.

    Raises:
        SettingsError: There is an archive, and the settings do not say where.
        ArchiveBusyError: Another run is at work in a month, and did not finish in time.
        ArchiveCorruptError: A segment's object is not what it must be.
        ObjectStoreError: The store refuses us.
        TransientError: The database, the store or the disk failed; what is done stays done.
    """
    remove_abandoned(run.settings.home_folder)
    with run.archive.transaction() as connection:
        months = sorted(_find(connection, erasure_id))
    for month in months:
        if store is None:
            raise SettingsError(
                f"{month:%Y-%m} is archived, and cannot be written anew.",
                why="kb.toml has no section [archive] that says where the archive is.",
                fix="Write [archive] with the archive's uri, then run `kb erase --resume`.",
            )
        _rewrite_month(run, store, month, erasure_id)


def _find(connection: psycopg.Connection[Any], erasure_id: int) -> dict[date, set[int]]:
    """Return the segments, by month, in which there may be rows that an erasure is about."""
    named = {"conversation_ids": conversations_of(connection, erasure_id)}
    found: dict[date, set[int]] = {}
    for month, segment, *_ in connection.execute(_statements("find_cold"), named):
        found.setdefault(month, set()).add(segment)
    return found


def _rewrite_month(run: Run, store: ObjectStore, month: date, erasure_id: int) -> None:
    wait_seconds = run.settings.limits.lease_wait_seconds
    with month_lease(
        run.archive, MESSAGES, month, run_id=run.run_id, wait_seconds=wait_seconds
    ) as lease:
        with run.archive.transaction() as connection:
            server = describe_server(connection)
            wanted = _find(connection, erasure_id).get(month, set())
            segments = [
                segment
                for segment in find_segments(connection, [month], _COLD)
                if segment.id in wanted
            ]
        with workplace(run.settings.home_folder, f"{MESSAGES.name}-{month:%Y-%m}") as folder:
            work = Work(run, store, MESSAGES, lease, folder, server)
            for segment in segments:
                run.say(f"Looking through segment {segment.id} of {month:%Y-%m}.")
                _rewrite(work, segment)


def _rewrite(work: Work, segment: Segment) -> None:
    with work.run.archive.transaction() as connection:
        erased = _erased_in(connection, segment)
    file = fetch_verified(work.destination, segment.facts, MESSAGES, work.folder)
    lost = _count(file, erased)
    if sum(lost.values()) == segment.rows:
        note_replaced(work, [segment], [], is_rewrite=True)
        with work.run.archive.transaction() as connection:
            work.lease.guard(connection)
            _retire(connection, segment, lost)
    elif lost:
        _replace(work, segment, file, erased, lost)
    if lost:
        cache = work.run.settings.home_folder / "archive-cache"
        ObjectCache(cache, work.destination, 0).remove(segment.facts)
    file.unlink()


def _erased_in(connection: psycopg.Connection[Any], segment: Segment) -> dict[str, int]:
    """Return every erased conversation that a segment may have, and by which erasure."""
    named = {"low": segment.conversation_low, "high": segment.conversation_high}
    return dict(connection.execute(_statements("find_erased_between"), named).fetchall())


def _count(file: Path, erased: Mapping[str, int]) -> Counter[int]:
    """Return how many rows of a file each erasure is about."""
    with parquet.ParquetFile(file) as opened:
        (groups,) = opened.read([MESSAGES.group]).columns
    counted = pc.value_counts(groups.filter(pc.is_in(groups, _values(erased))))
    lost: Counter[int] = Counter()
    for group in counted.to_pylist():
        lost[erased[group["values"]]] += group["counts"]
    return lost


def _replace(
    work: Work, segment: Segment, file: Path, erased: Mapping[str, int], lost: Counter[int]
) -> None:
    rows = pa.Table.from_batches(_others(file, erased), schema_of(MESSAGES))
    with sorter(work.folder / "sorting") as sorting:
        written = write_sorted(sorting, rows, work.folder / f"{segment.id}.parquet", MESSAGES)
    left = segment.rows - sum(lost.values())
    if written.tally.rows != left:
        raise ArchiveStaleError(f"{written.tally.rows:,} rows were written instead of {left:,}.")
    new = enter(work, "rewrite", Window(segment.low, segment.high), written)
    with _stale_on_error(work, new.segment):
        manifest, proven = prove(work, new)
        proven.unlink()
        note_replaced(work, [segment], [new], is_rewrite=True)
        named = {"id": new.segment, "state": segment.state, "manifest": Jsonb(manifest)}
        with work.run.archive.transaction() as connection:
            work.lease.guard(connection)
            _one(connection.execute(_statements("commit_rewrite"), named).rowcount, new.segment)
            _retire(connection, segment, lost)


def _others(file: Path, erased: Mapping[str, int]) -> Iterator[Any]:
    values = _values(erased)
    for batch in read_verified(file, MESSAGES):
        yield batch.filter(pc.invert(pc.is_in(batch.column(MESSAGES.group), values)))


def _values(erased: Mapping[str, int]) -> Any:  # noqa: ANN401
    return pa.array(list(erased), pa.string())


def _retire(connection: psycopg.Connection[Any], segment: Segment, lost: Counter[int]) -> None:
    _one(connection.execute(_statements("retire"), {"id": segment.id}).rowcount, segment.id)
    named = {"erasure_ids": list(lost), "rows": list(lost.values())}
    connection.execute(_statements("count_rewritten"), named)


def _one(found: int, segment: int) -> None:
    if found != 1:
        raise ArchiveStaleError(f"Segment {segment} is not what it was.", fix="Try again.")


@contextmanager
def _stale_on_error(work: Work, segment: int) -> Iterator[None]:
    """Note why a segment was not committed; if that fails too, the next run notes it."""
    try:
        yield
    except Exception as error:
        with suppress(KbError), work.run.archive.transaction() as connection:
            mark_stale(connection, [segment], str(error)[:1000])
        raise
