"""A month's way out of the database: closed, copied, verified, committed.

Whatever fails before the commit leaves every row where it was. The month stays closed, which
hides nothing from anybody, and the next run begins its copy anew.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from kb_assets.archive import store
from kb_assets.archive.clean import KEPT
from kb_assets.archive.commit import commit_late, commit_month
from kb_assets.archive.lease import MonthLease, month_lease
from kb_assets.archive.memory import share_allocator
from kb_assets.archive.plan import Window, due_months, window_of
from kb_assets.archive.relation import MESSAGES, Aging
from kb_assets.archive.repeats import Known
from kb_assets.archive.segment import Copied, Piece, Work, copies, enter, note_replaced, prove
from kb_assets.archive.verify import fetch_whole
from kb_assets.archive.workplace import workplace
from kb_assets.database.connect import Database
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.errors import ArchiveStaleError, KbError
from kb_assets.object_store import ObjectStore

_ATTEMPTS = 3
"""How often late rows are copied again that changed meanwhile."""

_LATE_UNDER_WAY = 2
"""Pieces of late rows: while one is committed, the next is proven, and one more is copied."""

_statements = Statements.beside(__file__)
_CLOSE_MONTH = _statements("close_month")
_GIVE_UP_COPIES = _statements("give_up_copies")


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """A segment that was committed.

    Attributes:
        segment: Its number.
        source: `month` or `late`.
        rows: How many rows it holds.
        object_bytes: The size of its object.
        url: Where its object is.
    """

    segment: int
    source: str
    rows: int
    object_bytes: int
    url: str


@dataclass(slots=True)
class MonthReport:
    """What was done with a month.

    Attributes:
        month: Its first day.
        rows: How many rows became cold.
        repeated: How many late rows were cold already, and were deleted.
        table_bytes: What the rows took in the database, indexes left out.
        object_bytes: What they take now.
        segments: What was committed.
        seconds: How long each step took: `copy`, `upload`, `verify`, `commit`. Uploading and
            verifying go on while the next segment is copied.
        note: Why nothing was done, if nothing was.
    """

    month: date
    rows: int = 0
    repeated: int = 0
    table_bytes: int = 0
    object_bytes: int = 0
    segments: list[SegmentReport] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""


def months_due(
    database: Database, now: datetime, retention_days: int, aging: Aging = MESSAGES
) -> tuple[date, ...]:
    """Return the months that have something to archive, oldest first.

    Or something to give up: copies that a killed run left behind days ago.
    Those that were restored are left alone for as long as they are held.
    """
    with database.transaction() as connection:
        months = store.find_months(connection, aging)
        late = store.find_late_months(connection, aging)
        abandoned = store.find_abandoned(connection, aging, now - KEPT)
    held = {one.month for one in months if one.hold_until is not None and one.hold_until > now}
    hot = {one.month for one in months if one.is_hot} | set(late)
    return due_months((hot | set(abandoned)) - held, now, retention_days)


def archive_month(
    run: Run, destination: ObjectStore, month: date, *, aging: Aging = MESSAGES
) -> MonthReport:
    """Move a month's rows to the archive: those of its partition, then those that came late.

    Args:
        run: Who works.
        destination: Where to.
        month: Its first day; whether it is due is the caller's to know.
        aging: The table.

    Raises:
        NotFoundError: The month never had a message.
        SchemaError: The table has other columns than those that are archived.
        ArchiveBusyError: Another run is at work in it.
        ArchiveCorruptError: What was written is not what was read back; nothing was deleted.
        ArchiveStaleError: Rows kept changing while they were copied; nothing was deleted.
        TransientError: The database, the store or the disk failed; nothing was deleted.
    """
    report = MonthReport(month)
    share_allocator()
    with month_lease(run.archive, aging, month, run_id=run.run_id) as lease:
        server = _prepare(run.archive, lease, aging)
        with workplace(run.settings.home_folder, f"{aging.name}-{month:%Y-%m}") as folder:
            work = Work(run, destination, aging, lease, folder, server, report.seconds)
            if _close(run.archive, lease):
                _archive_partition(work, report)
            _archive_late(work, report)
    if not report.rows and not report.repeated:
        report.note = "There was nothing to archive."
    return report


def _prepare(database: Database, lease: MonthLease, aging: Aging) -> tuple[str, str]:
    with database.transaction() as connection:
        lease.guard(connection)
        store.require_columns(connection, aging)
        connection.execute(_GIVE_UP_COPIES, {"month_id": lease.month_id, "fence": lease.fence})
        return store.describe_server(connection)


def _close(database: Database, lease: MonthLease) -> bool:
    """Close the month to every write, and say whether it has a partition."""
    named = {"month_id": lease.month_id, "relation": lease.relation, "month": lease.month}
    with database.transaction() as connection:
        lease.guard(connection)
        row = connection.execute(_CLOSE_MONTH, named).fetchone()
    return row is not None and bool(row[0])


def _archive_partition(work: Work, report: MonthReport) -> None:
    """Copy and prove all of a frozen partition; a segment is proven while the next is copied."""
    table = f"{work.aging.name}_{work.lease.month:%Y_%m}"
    measured = _measured(work, table)
    segments: list[Copied] = []
    proofs: list[Future[tuple[dict[str, Any], Path]]] = []
    with _given_up_on_error(work, segments), ThreadPoolExecutor(1) as beside:
        for piece in copies(work, table, (), measured):
            if proofs:
                proofs[-1].result()[1].unlink()
            if piece.written.tally.rows:
                segments.append(enter(work, "month", piece.window, piece.written))
                proofs.append(beside.submit(prove, work, segments[-1]))
        manifests = {
            copied.segment: proof.result()[0]
            for copied, proof in zip(segments, proofs, strict=True)
        }
        rows = sum(copied.facts.rows for copied in segments)
        note_replaced(work, _restored(work), segments, is_rewrite=False)
        with work.timed("commit"):
            commit_month(work.run.archive, work.lease, work.aging, manifests, rows)
    report.table_bytes += measured[1]
    for copied in segments:
        _report(work, report, copied)


def _archive_late(work: Work, report: MonthReport) -> None:
    """Archive rows of a table that is still written to; those that change are copied again."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _archive_late_once(work, report)
            return
        except ArchiveStaleError:
            if attempt == _ATTEMPTS:
                raise


@dataclass(frozen=True, slots=True)
class _Proven:
    """A segment that may be committed, its manifest, and its file as it was read back."""

    copied: Copied
    manifest: dict[str, Any]
    file: Path


def _archive_late_once(work: Work, report: MonthReport) -> None:
    measured = _measured(work, work.aging.late)
    if not measured[0]:
        return
    with ThreadPoolExecutor(1) as proving, ThreadPoolExecutor(1) as committing:
        under_way: deque[Future[None]] = deque()
        for piece in copies(work, work.aging.late, _known(work), measured):
            if len(under_way) == _LATE_UNDER_WAY:
                under_way.popleft().result()
            proof = proving.submit(_prove_late, work, piece)
            under_way.append(committing.submit(_commit_late, work, report, piece, proof))
        for commit in under_way:
            commit.result()
    report.table_bytes += measured[1]


def _prove_late(work: Work, piece: Piece) -> _Proven | None:
    """Enter and prove what a piece has; nothing if all of it was cold already."""
    if not piece.written.tally.rows:
        return None
    segments: list[Copied] = []
    with _given_up_on_error(work, segments):
        segments.append(enter(work, "late", piece.window, piece.written))
        return _Proven(segments[0], *prove(work, segments[0]))


def _commit_late(
    work: Work, report: MonthReport, piece: Piece, proof: Future[_Proven | None]
) -> None:
    proven = proof.result()
    segments = [proven.copied] if proven else []
    manifests = {proven.copied.segment: proven.manifest} if proven else {}
    file = proven.file if proven else None
    with _given_up_on_error(work, segments), work.timed("commit"):
        deleted = commit_late(
            work.run.archive, work.lease, work.aging, manifests, file, piece.repeated
        )
    report.repeated += deleted - piece.written.tally.rows
    for copied in segments:
        _report(work, report, copied)


def _measured(work: Work, table: str) -> tuple[int, int]:
    with work.run.archive.transaction() as connection:
        work.lease.guard(connection)
        return store.measure(connection, work.aging, table, window_of(work.lease.month))


def _restored(work: Work) -> list[store.Segment]:
    """Return what a month that was restored was archived in before."""
    with work.run.archive.transaction() as connection:
        return store.find_segments(connection, [work.lease.month], ("restored",), aging=work.aging)


def _known(work: Work) -> list[Known]:
    """Return what is cold of the month; files are, byte for byte, as when they were verified."""
    with work.run.archive.transaction() as connection:
        segments = store.find_segments(connection, [work.lease.month], aging=work.aging)
    return [
        Known(
            Window(segment.low, segment.high),
            partial(fetch_whole, work.destination, segment.facts, work.folder),
        )
        for segment in segments
    ]


def _report(work: Work, report: MonthReport, copied: Copied) -> None:
    facts = copied.facts
    report.rows += facts.rows
    report.object_bytes += facts.object_bytes
    url = work.destination.url(facts.object_key)
    report.segments.append(
        SegmentReport(copied.segment, copied.source, facts.rows, facts.object_bytes, url)
    )


@contextmanager
def _given_up_on_error(work: Work, segments: list[Copied]) -> Iterator[None]:
    """Note why segments were not committed; if that fails too, the next run notes it."""
    try:
        yield
    except Exception as error:
        with suppress(KbError), work.run.archive.transaction() as connection:
            store.mark_stale(connection, [one.segment for one in segments], str(error)[:1000])
        raise
