"""Queries over all messages, wherever they are: hot rows and cold files as one table.

Each message is seen once. A row is hot or cold, never both, with one exception: a message that
was repeated after its month had left waits among the late ones until it is removed, and is left
out here.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kb_assets.archive.cache import Borrowed, ObjectCache
from kb_assets.archive.guarded import (
    PLANNED_TABLE,
    TABLE,
    lock,
    opened,
    plan_of,
    quoted,
    told_to_the_author,
)
from kb_assets.archive.pruning import needs_of
from kb_assets.archive.relation import MESSAGES, Aging
from kb_assets.archive.snapshot import Seen, load_snapshot
from kb_assets.archive.store import Segment
from kb_assets.database.connect import Database
from kb_assets.errors import SettingsError

MOST_ROWS = 100_000
"""The most rows that a query may return."""

MOST_BYTES = 256 * 1024**2
"""The most text that it may return."""

_FETCH_ROWS = 1_000
_COUNT_HOT = "select (select count(*) from hot) + (select count(*) from late)"


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query found, and what it took.

    Attributes:
        columns: The names of what was selected.
        rows: Its values.
        fetched_objects: How many objects were fetched from the store.
        scanned_objects: How many were looked into, those at hand included.
        hot_rows: How many rows the database was asked for.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    fetched_objects: int
    scanned_objects: int
    hot_rows: int


class ArchiveReader:
    """Reads messages, hot and cold, by SQL."""

    def __init__(self, reader: Database, cache: ObjectCache, aging: Aging = MESSAGES) -> None:
        """Remember where messages are; nothing is connected yet.

        Args:
            reader: The database; its transactions are snapshots.
            cache: Where objects come from.
            aging: The table.
        """
        self._reader = reader
        self._cache = cache
        self._aging = aging

    def query(self, sql: str) -> QueryResult:
        """Run one SELECT over the table `messages`, in DuckDB's dialect.

        What is archived is fetched as far as the query may touch it.

        Raises:
            SettingsError: It cannot be run, or returns more than fits into memory.
            ArchiveCorruptError: An object that it needs is gone or damaged.
            DatabaseUnavailableError: The database cannot be reached.
            ObjectStoreUnavailableError: The store cannot be reached.
            DiskError: The cache cannot be written.
        """
        needs = needs_of(plan_of(sql, self._aging), PLANNED_TABLE, self._aging)
        with (
            self._cache.borrow() as borrowed,
            TemporaryDirectory(prefix="kb-query-") as spill,
            opened(Path(spill)) as duck,
        ):
            seen = load_snapshot(self._reader, needs, self._aging, duck)
            self._cache.keep_only(one.facts for one in seen.cold)
            self._leave_out_repeats(duck, seen, borrowed)
            hot = duck.execute(_COUNT_HOT).fetchone()[0]
            needed = [one for one in seen.cold if any(need.touches(one) for need in seen.needs)]
            files = borrowed.files(one.facts for one in needed)
            duck.execute(f"create view {TABLE} as {self._all_rows(files)}")
            lock(duck, files)
            with told_to_the_author(self._aging):
                columns, rows = _run(duck, sql)
        return QueryResult(columns, rows, borrowed.fetched, borrowed.used, hot)

    def _leave_out_repeats(self, duck: Any, seen: Seen, borrowed: Borrowed) -> None:  # noqa: ANN401
        """Delete late rows that are cold already, by their keys."""
        time, key = self._aging.time, self._aging.key
        late = duck.execute(f"select distinct {time} from late order by 1").fetchall()  # noqa: S608
        moments = [moment for (moment,) in late]
        cold = [one for one in seen.cold if _holds_any(moments, one)]
        if not cold:
            return
        files = _parquet(borrowed.files(one.facts for one in cold))
        duck.execute(
            f"delete from late using {files} cold"  # noqa: S608
            f" where late.{time} = cold.{time} and late.{key} = cold.{key}"
        )

    def _all_rows(self, files: Sequence[Path]) -> str:
        columns = ", ".join(f'"{name}"' for name in self._aging.names)
        sources = [*([_parquet(files)] if files else []), "hot", "late"]
        rows = " union all ".join(f"select {columns} from {source}" for source in sources)  # noqa: S608
        return f'select * from ({rows}) anti join erased using ("{self._aging.group}")'  # noqa: S608


def _run(duck: Any, sql: str) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:  # noqa: ANN401
    answer = duck.execute(sql)
    columns = tuple(column[0] for column in answer.description)
    rows: list[tuple[Any, ...]] = []
    held = 0
    while arrived := answer.fetchmany(_FETCH_ROWS):
        rows += arrived
        held += sum(
            len(value) for row in arrived for value in row if isinstance(value, str | bytes)
        )
        if len(rows) > MOST_ROWS or held > MOST_BYTES:
            raise SettingsError(
                "The query returns too much.",
                why=f"It returns more than {MOST_ROWS:,} rows, or {MOST_BYTES:,} bytes.",
                fix="Aggregate, select fewer columns, or add a limit.",
            )
    return columns, rows


def _holds_any(moments: Sequence[Any], segment: Segment) -> bool:
    """Say whether one of the moments, which are sorted, lies in a segment's window."""
    return bisect_left(moments, segment.low) < bisect_left(moments, segment.high)


def _parquet(files: Iterable[Path]) -> str:
    return f"read_parquet([{', '.join(quoted(str(file)) for file in files)}])"
