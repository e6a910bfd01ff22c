"""One segment on its way: entered, copied, uploaded, read back, proven; not yet committed."""

import time
from collections import deque
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg.sql import Literal

from kb_assets.archive import store
from kb_assets.archive.copy import Written, rows_of, snapshot, sorter, write_sorted
from kb_assets.archive.lease import MonthLease
from kb_assets.archive.manifest import (
    Made,
    ObjectFacts,
    Replacement,
    manifest_bytes,
    manifest_of,
)
from kb_assets.archive.memory import TooLargeError
from kb_assets.archive.plan import Window, manifest_key, object_key, rows_per_segment, window_of
from kb_assets.archive.relation import Aging
from kb_assets.archive.repeats import Known, part_repeats
from kb_assets.archive.verify import fetch_verified
from kb_assets.database.names import SCHEMA
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.object_store import ObjectStore

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Work:
    """What the steps of one month share.

    Attributes:
        run: Who works.
        destination: Where objects go.
        aging: The table.
        lease: Holds the month.
        folder: For files in work.
        server: The versions of the server and of the schema.
        seconds: How long each step took so far.
    """

    run: Run
    destination: ObjectStore
    aging: Aging
    lease: MonthLease
    folder: Path
    server: tuple[str, str]
    seconds: MutableMapping[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add what the body takes to a step's time."""
        started = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - started
            self.seconds[step] = self.seconds.get(step, 0.0) + taken


@dataclass(frozen=True, slots=True)
class Copied:
    """A segment's file, and what its object must be.

    Attributes:
        segment: The segment's number.
        source: `month`, `late` or `rewrite`.
        window: Its span of time.
        written: Its file; without rows there is no object.
        facts: What the object must be.
    """

    segment: int
    source: str
    window: Window
    written: Written
    facts: ObjectFacts


@dataclass(frozen=True, slots=True)
class Piece:
    """As many of a month's rows as one segment holds.

    Attributes:
        window: Their span of time.
        written: Their file; it may have no rows.
        repeated: Keys and hashes of rows that were left out: an Arrow table, or nothing.
    """

    window: Window
    written: Written
    repeated: Any


def copies(
    work: Work, table: str, known: Sequence[Known], measured: tuple[int, int]
) -> Iterator[Piece]:
    """Copy a month's rows, as many as one segment holds at a time, out of one snapshot.

    Args:
        work: The month.
        table: The partition, or the table of late rows.
        known: Segments whose keys are left out.
        measured: About how many rows there are, and what they take.

    Raises:
        LeaseLostError: Another run took the month over.
        DatabaseUnavailableError: The database was lost.
        DiskError: The local disk is full.
    """
    with (
        snapshot(work.run.archive.conninfo) as cursor,
        sorter(work.folder / "sorting") as sorting,
        ThreadPoolExecutor(1) as reading,
    ):
        ahead: _Ahead | None = None
        left = deque([(window_of(work.lease.month), rows_per_segment(*measured))])
        while ahead or left:
            now = ahead or _read(work, reading, cursor, table, left)
            ahead = _read(work, reading, cursor, table, left) if left else None
            try:
                piece = _copied(work, sorting, now, known)
            except TooLargeError:
                # Rows that are larger than the others of their month.
                if now.rows == 1:
                    raise
                if ahead is not None:
                    wait([ahead.arriving])
                    left.appendleft((ahead.window, ahead.rows))
                    ahead = None
                left.appendleft((now.window, max(1, now.rows // 8)))
            else:
                yield piece


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Rows that are being read: those of a window that has about so many."""

    window: Window
    rows: int
    arriving: Future[Any]


def _read(
    work: Work,
    reading: ThreadPoolExecutor,
    cursor: Any,  # noqa: ANN401
    table: str,
    left: deque[tuple[Window, int]],
) -> _Ahead:
    """Read about so many rows of the first window that is left."""
    whole, rows = left.popleft()
    with work.run.archive.transaction() as connection:
        work.lease.guard(connection)
        window = store.first_window(connection, table, whole, rows)
    if window.high < whole.high:
        left.appendleft((Window(window.high, whole.high), rows))
    statement = _statements(
        "copied",
        copied=work.aging.copied(),
        table=(SCHEMA, table),
        low=Literal(window.low),
        high=Literal(window.high),
    )
    return _Ahead(window, rows, reading.submit(rows_of, cursor, statement))


def _copied(
    work: Work,
    sorting: Any,  # noqa: ANN401
    ahead: _Ahead,
    known: Sequence[Known],
) -> Piece:
    file = work.folder / f"{ahead.window.low:%d-%H%M%S.%f}.parquet"
    with work.timed("copy"):
        rows, repeated = part_repeats(ahead.arriving.result(), work.aging, known)
        return Piece(ahead.window, write_sorted(sorting, rows, file, work.aging), repeated)


def enter(work: Work, source: str, window: Window, written: Written) -> Copied:
    """Enter a segment before its object is uploaded: whatever happens then, it is known as ours.

    Raises:
        LeaseLostError: Another run took the month over.
    """
    tally = written.tally
    with work.run.archive.transaction() as connection:
        work.lease.guard(connection)
        segment = store.add_segment(
            connection,
            work.lease.month_id,
            source,
            window,
            fence=work.lease.fence,
            run_id=work.run.run_id,
        )
        facts = ObjectFacts(
            object_key=object_key(work.aging.name, work.lease.month, segment, written.sha256),
            sha256=written.sha256,
            object_bytes=written.file_bytes,
            rows=tally.rows,
            row_hash_sum=tally.row_hash_sum,
            conversation_low=tally.low or "",
            conversation_high=tally.high or "",
        )
        store.note_object(connection, segment, facts)
    return Copied(segment, source, window, written, facts)


def prove(work: Work, copied: Copied) -> tuple[dict[str, Any], Path]:
    """Upload a segment's file, and read it back to the last row.

    Returns:
        The manifest, which lies beside the object, and the file that was read back.

    Raises:
        ArchiveCorruptError: The object is not what was uploaded.
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    facts = copied.facts
    with work.timed("upload"):
        work.destination.put_file(facts.object_key, copied.written.file, facts.sha256)
        copied.written.file.unlink()
    with work.timed("verify"):
        proven = fetch_verified(work.destination, facts, work.aging, work.folder)
    made = Made(copied.segment, work.run.run_id, *work.server)
    manifest = manifest_of(facts, made, copied.window, copied.source, work.aging)
    work.destination.put_bytes(manifest_key(facts.object_key), manifest_bytes(manifest))
    return manifest, proven


def note_replaced(
    work: Work, replaced: Sequence[store.Segment], by: Sequence[Copied], *, is_rewrite: bool
) -> None:
    """Note beside objects what takes their place: proven already, and committed next.

    Raises:
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    keys = tuple(copied.facts.object_key for copied in by)
    for segment in replaced:
        note = Replacement(segment.object_key, keys, is_rewrite)
        work.destination.put_bytes(note.key, note.content)
