"""One segment on its way: entered, copied, uploaded, read back, proven; not yet committed."""

import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg.sql import Literal

from kb_assets.archive import store
from kb_assets.archive.copy import Written, rows_of, snapshot, write_sorted
from kb_assets.archive.lease import MonthLease
from kb_assets.archive.manifest import (
    Made,
    ObjectFacts,
    Replacement,
    manifest_bytes,
    manifest_of,
)
from kb_assets.archive.memory import TooLargeError, give_back
from kb_assets.archive.plan import Window, manifest_key, object_key, rows_per_segment, window_of
from kb_assets.archive.relation import Aging
from kb_assets.archive.repeats import part_repeats
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
    work: Work, table: str, known: tuple[Path, ...], measured: tuple[int, int]
) -> Iterator[Piece]:
    """Copy a month's rows, as many as one segment holds at a time, out of one snapshot.

    Args:
        work: The month.
        table: The partition, or the table of late rows.
        known: Files whose keys are left out.
        measured: About how many rows there are, and what they take.

    Raises:
        LeaseLostError: Another run took the month over.
        DatabaseUnavailableError: The database was lost.
        DiskError: The local disk is full.
    """
    left = [(window_of(work.lease.month), rows_per_segment(*measured))]
    with snapshot(work.run.database.conninfo) as cursor:
        while left:
            window, rows = left.pop()
            with work.run.database.transaction() as connection:
                work.lease.guard(connection)
                cut = list(store.windows(connection, table, window, rows))
            for place, one in enumerate(cut):
                try:
                    piece = _copied(work, cursor, table, one, known)
                except TooLargeError:
                    # Rows that are larger than the others of their month.
                    if rows == 1:
                        raise
                    left += [(later, rows) for later in reversed(cut[place + 1 :])]
                    left.append((one, max(1, rows // 8)))
                    break
                yield piece


def enter(work: Work, source: str, window: Window, written: Written) -> Copied:
    """Enter a segment before its object is uploaded: whatever happens then, it is known as ours.

    Raises:
        LeaseLostError: Another run took the month over.
    """
    tally = written.tally
    with work.run.database.transaction() as connection:
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


def _copied(
    work: Work,
    cursor: Any,  # noqa: ANN401
    table: str,
    window: Window,
    known: tuple[Path, ...],
) -> Piece:
    statement = _statements(
        "copied",
        copied=work.aging.copied(),
        table=(SCHEMA, table),
        low=Literal(window.low),
        high=Literal(window.high),
    )
    file = work.folder / f"{window.low:%d-%H%M%S.%f}.parquet"
    with work.timed("copy"):
        give_back()
        rows, repeated = rows_of(cursor, statement), None
        if known:
            rows, repeated = part_repeats(rows, work.aging, known)
        return Piece(window, write_sorted(rows, file, work.aging), repeated)


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
        give_back()
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
