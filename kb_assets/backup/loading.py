"""A dump into a database: definitions, rows, then indexes and what else needs the rows.

`pg_restore` does it, but for tables with vectors: their rows are copied in binary beside it.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Literal, TypeVar

import psutil
import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from psycopg.sql import Literal as Value

from kb_assets.backup.contents import count_tables
from kb_assets.backup.dump import DUMP_FOLDER
from kb_assets.backup.listing import Entry, write_listing
from kb_assets.backup.manifest import Manifest, SequenceFacts, TableFacts
from kb_assets.backup.programs import run_program
from kb_assets.backup.snapshot import Snapshot, wait_for
from kb_assets.backup.tables import find_tables
from kb_assets.backup.target import connected
from kb_assets.database.statements import Statements
from kb_assets.errors import BackupCorruptError

JOBS = max(2, min(4, os.cpu_count() or 2))

_READ_BYTES = 256 * 1024
_LEAST_MEMORY_BYTES = 64 * 1024**2
_MOST_MEMORY_BYTES = 2 * 1024**3
_GRAPH_BYTES_PER_VECTOR = 720
"""As an index is built; see `index/vectors.py`."""

Section = Literal["pre-data", "data", "post-data"]
Result = TypeVar("Result")

_statements = Statements(Path(__file__).with_name("restoring.sql"))
_backing_up = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Load:
    """What is put where.

    Attributes:
        manifest: The backup.
        folder: Its files.
        url: The database.
        program: `pg_restore`.
        stopping: Set when one part failed: the others end.
    """

    manifest: Manifest
    folder: Path
    url: str = field(repr=False)
    program: Path
    stopping: Event = field(default_factory=Event)

    def run(
        self, section: Section, entries: Sequence[Entry], *, jobs: int = 1, options: str = ""
    ) -> None:
        """Let `pg_restore` do a section of what is listed.

        Raises:
            DatabaseRefusedError: It failed.
            DatabaseUnavailableError: The database was lost.
            DiskError: A disk is full.
        """
        listed = write_listing(entries, self.folder / f"{section}.list")
        run_program(
            self.program,
            (
                *(f"--section={section}", f"--use-list={listed}", f"--jobs={jobs}"),
                *("--exit-on-error", str(self.folder / DUMP_FOLDER)),
            ),
            self.url,
            options=options,
            stopping=self.stopping,
        )

    def fill(self, entries: Sequence[Entry], tables: Sequence[TableFacts]) -> None:
        """Put the rows into tables, and set sequences.

        Args:
            entries: What `pg_restore` does.
            tables: Those of the backup; the ones that have files of their own are copied.
        """
        apart = sorted(
            (table for table in tables if table.file is not None),
            key=lambda table: -table.rows,
        )
        with ThreadPoolExecutor(1 + JOBS, "restore") as pool:
            try:
                futures = [pool.submit(self.run, "data", entries, jobs=JOBS)]
                futures += [pool.submit(self._copy, table) for table in apart]
                wait_for(futures, self.stopping)
            except BaseException:
                self.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def index(self, entries: Sequence[Entry]) -> None:
        """Build indexes, and make what else needs the rows to be there.

        Row-level security comes last: under it owners cannot prove foreign keys.
        """
        workers = max(1, (os.cpu_count() or 2) - 1)
        options = (
            f"-c maintenance_work_mem={self._memory_bytes() // 1024}kB"
            f" -c max_parallel_maintenance_workers={workers}"
        )
        protection = [one for one in entries if one.is_any(("ROW SECURITY ",))]
        others = [one for one in entries if one not in protection]
        self.run("post-data", others, jobs=JOBS, options=options)
        self.run("post-data", protection)

    def set_sequences(self, sequences: Sequence[SequenceFacts]) -> None:
        """Let sequences go on from where they stood."""
        with connected(self.url) as connection:
            for one in sequences:
                place = Identifier(one.schema, one.name).as_string(connection)
                connection.execute(
                    _statements(
                        "set_sequence",
                        sequence=Value(place),
                        value=Value(one.last_value),
                        is_called=Value(one.is_called),
                    )
                )

    def count(self, tables: Sequence[TableFacts]) -> tuple[TableFacts, ...]:
        """Return what tables hold now; those that are not there are left out.

        Row-level security must not be on yet: it binds owners, too.
        """
        wanted = {(table.schema, table.name) for table in tables}
        with connected(self.url) as connection:
            connection.execute(_backing_up("begin_snapshot"))
            row = connection.execute(_backing_up("export_snapshot")).fetchone()
            assert row is not None
            name, taken_at = row
            there = tuple(one for one in find_tables(connection) if one.place in wanted)
            snapshot = Snapshot(self.url, name, taken_at, there, connection, self.stopping)
            return count_tables(snapshot, there, sessions=JOBS)

    def _copy(self, table: TableFacts) -> None:
        place = (table.schema, table.name)
        columns = SQL(", ").join(map(Identifier, table.columns))
        copying = _statements("copy_rows_in", table=place, columns=columns)
        with (
            connected(self.url) as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            connection.execute(_statements("truncate_table", table=place))
            with (
                _readable(str(table.file)),
                pa.CompressedInputStream(str(self.folder / str(table.file)), "zstd") as rows,
                cursor.copy(copying) as copy,
            ):
                while piece := rows.read(_READ_BYTES):
                    if self.stopping.is_set():
                        raise CancelledError
                    copy.write(piece)

    def _memory_bytes(self) -> int:
        """Return what the largest vector index needs to be built in memory, up to a bound."""
        rows = {(table.schema, table.name): table.rows for table in self.manifest.tables}
        with connected(self.url) as connection:
            widths = connection.execute(_statements("measure_vectors")).fetchall()
        graphs = (
            rows.get((schema, name), 0) * (width + _GRAPH_BYTES_PER_VECTOR) * 5 // 4
            for schema, name, width in widths
        )
        bound = _MOST_MEMORY_BYTES
        if str(conninfo_to_dict(self.url).get("host") or "").startswith("/"):
            # The server has the memory of this machine, which several builds share.
            bound = min(bound, psutil.virtual_memory().available // 3)
        return max(_LEAST_MEMORY_BYTES, min(max(graphs, default=0), bound))


def row_differences(expected: Sequence[TableFacts], found: Sequence[TableFacts]) -> tuple[str, ...]:
    """Return which tables hold other rows than they should, in words."""
    now = {(table.schema, table.name): table for table in found}
    told = []
    for table in expected:
        name, there = f"{table.schema}.{table.name}", now.get((table.schema, table.name))
        if there is None:
            told.append(f"{name} is missing")
        elif there.rows != table.rows:
            told.append(f"{name} has {there.rows} rows, not {table.rows}")
        elif there.row_hash_sum != table.row_hash_sum or there.columns != table.columns:
            told.append(f"{name} has {table.rows} rows, but not the same")
    return tuple(told)


def require_same_rows(expected: Sequence[TableFacts], found: Sequence[TableFacts]) -> None:
    """Make sure that what was restored is what was backed up.

    Raises:
        BackupCorruptError: It is not.
    """
    if different := row_differences(expected, found):
        raise BackupCorruptError(
            "What was restored is not what was backed up.",
            why="; ".join(different) + ".",
            fix="Do not use this database. Restore another backup, and report this.",
        )


@contextmanager
def _readable(file: str) -> Any:  # noqa: ANN401
    try:
        yield
    except OSError as error:
        raise BackupCorruptError(
            f"{file} of the backup cannot be read.", why=str(error), fix="Use another backup."
        ) from error
    except psycopg.DataError as error:
        raise BackupCorruptError(
            f"{file} of the backup does not fit its table.",
            why=str(error).strip(),
            fix="Use another backup.",
        ) from error


def timed(seconds: dict[str, float], step: str, work: Callable[[], Result]) -> Result:
    """Do a step, and note how long it took."""
    started = time.monotonic()
    try:
        return work()
    finally:
        seconds[step] = seconds.get(step, 0) + time.monotonic() - started
