"""Months of generated messages: put into the tables, archived by a new process, compared."""

import multiprocessing
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.generated_messages import (
    COLUMNS,
    GeneratedMessage,
    GzipRatio,
    Prose,
    encoded,
    generated,
)
from benchmarks.memory import Peaks
from kb_assets import KnowledgeBase
from kb_assets.database.bulk import copy_encoded, copy_rows
from kb_assets.database.cluster import ADMINISTRATOR
from kb_assets.database.embedded import start_embedded

COPIES = 3
SMALL = 200
"""How many messages a process archives before its time counts."""

_CONVERSATION = {
    "id": "text",
    "user_id": "text",
    "messages": "int8",
    "bytes": "int8",
    "tokens": "int8",
    "first_at": "timestamptz",
    "last_at": "timestamptz",
}
# The moment as a number, since PostgreSQL and DuckDB print it in different ways.
_ALL_COLUMNS = ", ".join("{moment}" if name == "created_at" else name for name in COLUMNS)
_CONTENTS = "count(*), coalesce(sum({number}), 0)"
_POSTGRES = _CONTENTS.format(
    number=f"('x' || left(md5(concat_ws('|', {_ALL_COLUMNS})), 15))::bit(60)::bigint"
).format(moment="(extract(epoch from created_at) * 1000000)::bigint")
_DUCKDB = _CONTENTS.format(
    number=f"('0x' || left(md5(concat_ws('|', {_ALL_COLUMNS})), 15))::bigint"
).format(moment="epoch_us(created_at)")

Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Contents:
    """What rows a relation has, in whatever order: a sum over checksums of all their columns."""

    rows: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Archived:
    """One month, archived once.

    Attributes:
        rows: How many messages it has.
        copy: Seconds of a binary COPY of them to nowhere, the median of several.
        whole: Seconds of the archive's run.
        peak: The most memory, in bytes, of all its Python processes together.
        table_bytes: What the rows took in the table, heap and TOAST, without indexes.
        parquet_bytes: What they take in the archive.
        objects: In how many files.
    """

    rows: int
    copy: float
    whole: float
    peak: int
    table_bytes: int
    parquet_bytes: int
    objects: int


class Months:
    """Months one after another, of a knowledge base that has an archive.

    Attributes:
        gzip: How small gzip makes the text of all of them.
    """

    def __init__(self, kb: KnowledgeBase, prose: Prose) -> None:
        self.kb, self.gzip = kb, GzipRatio()
        self._prose = prose
        self._month, self._seed = date(2015, 1, 1), 0

    def next(self) -> date:
        """Return a month nothing has been put into."""
        self._month = following(self._month)
        add_month(self.kb, self._month)
        return self._month

    def archive(self, month: date, rows: int, *, late: bool = False) -> Archived:
        """Put messages into a month, or behind it where it is closed, and archive them."""
        small = self.next()
        load(self.kb, self._messages(small, SMALL))
        load(self.kb, self._messages(month, rows), late=late)
        table = "message_late" if late else f"message_{month:%Y_%m}"
        before, table_bytes = contents(self.kb, table), heap_bytes(self.kb, table)
        assert before.rows == rows
        home = self.kb.settings.root
        copy, whole, peak = in_new_process(_archive, home, month, small, table, rows)
        files = objects(self.kb, month, "late" if late else "month")
        assert contents_of(files) == before
        assert hot_rows(self.kb, month) == 0
        settle(self.kb)
        size = sum(file.stat().st_size for file in files)
        return Archived(rows, copy, whole, peak, table_bytes, size, len(files))

    def _messages(self, month: date, rows: int) -> Iterator[list[GeneratedMessage]]:
        self._seed += 1
        for batch in generated(rows, month, following(month), self._seed, self._prose):
            self.gzip.add(message.content for message in batch)
            yield batch


def add_month(kb: KnowledgeBase, month: date) -> None:
    with kb.database.transaction() as connection:
        connection.execute("select kb.add_month('message', %s)", (month,))


def following(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def in_new_process(work: Callable[..., Done], *arguments: object) -> Done:
    new_process = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, new_process) as processes:
        return processes.submit(work, *arguments).result()


def load(
    kb: KnowledgeBase, batches: Iterable[list[GeneratedMessage]], *, late: bool = False
) -> None:
    """Put messages and their conversations into the tables, and leave the server at rest."""
    table = "message_late" if late else "message"
    began: dict[str, int] = {}
    last: dict[str, GeneratedMessage] = {}

    def rows() -> Iterator[bytes]:
        for batch in batches:
            for message in batch:
                began.setdefault(message.conversation_id, message.created_at)
                last[message.conversation_id] = message
            yield b"".join(encoded(message, late=late) for message in batch)

    with kb.database.transaction() as connection:
        copy_encoded(connection, ("kb", table), COLUMNS, rows())
    known = (
        (
            *(one.conversation_id, one.user_id),
            *(one.ordinal, one.total_bytes, one.total_tokens),
            *(moment(began[one.conversation_id]), moment(one.created_at)),
        )
        for one in last.values()
    )
    with kb.database.transaction() as connection:
        columns, types = [*_CONVERSATION], [*_CONVERSATION.values()]
        copy_rows(connection, ("kb", "conversation"), columns, types, known)
    settle(kb)


def settle(kb: KnowledgeBase) -> None:
    """Do now what the server would do on its own, later, while something is timed."""
    url = start_embedded(kb.settings.home_folder).url("kb", ADMINISTRATOR)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum (analyze) kb.message, kb.message_late, kb.conversation")
        connection.execute("checkpoint")


def moment(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def contents(kb: KnowledgeBase, table: str) -> Contents:
    with kb.database.transaction() as connection:
        row = connection.execute(f"select {_POSTGRES} from kb.{table}").fetchone()  # noqa: S608
    assert row is not None
    return Contents(int(row[0]), int(row[1]))


def contents_of(files: list[Path]) -> Contents:
    (row,) = asked_of(files, f"select {_DUCKDB} from files")  # noqa: S608
    return Contents(int(row[0]), int(row[1]))


def asked_of(files: list[Path], sql: str) -> list[tuple[Any, ...]]:
    """Ask Parquet files, as `files`, without the project's own code."""
    names = [str(file) for file in files]
    with duckdb.connect() as connection:
        connection.execute("set enable_progress_bar = false")
        connection.read_parquet(names, filename=True).create_view("files")
        return connection.execute(sql).fetchall()


def heap_bytes(kb: KnowledgeBase, table: str) -> int:
    with kb.database.transaction() as connection:
        row = connection.execute(
            "select pg_relation_size(oid) + case when reltoastrelid = 0 then 0"
            " else pg_relation_size(reltoastrelid) end from pg_class where oid = %s::regclass",
            (f"kb.{table}",),
        ).fetchone()
    assert row is not None
    return int(row[0])


def hot_rows(kb: KnowledgeBase, month: date) -> int:
    with kb.database.transaction() as connection:
        row = connection.execute(
            "select count(*) from (select created_at from kb.message union all"
            " select created_at from kb.message_late) hot"
            " where created_at >= %(low)s and created_at < %(high)s",
            {"low": midnight(month), "high": midnight(following(month))},
        ).fetchone()
    assert row is not None
    return int(row[0])


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def objects(kb: KnowledgeBase, month: date, source: str) -> list[Path]:
    """Return the files of a month's segments in the local folder."""
    with kb.database.transaction() as connection:
        found = connection.execute(
            "select s.object_key from kb.archive_segment s"
            " join kb.archive_month m on m.id = s.month_id"
            " where m.month = %s and s.source = %s and s.state = 'committed'",
            (month, source),
        ).fetchall()
    return [kb.settings.root / "archive" / key for (key,) in found]


def _archive(
    home: Path, month: date, small: date, table: str, rows: int
) -> tuple[float, float, int]:
    """Return the seconds of a COPY and of the archive's run, and the most memory."""
    with KnowledgeBase.open(home / "kb.toml") as kb, Peaks() as peaks:
        kb.archive_messages([small])
        copy = statistics.median(_copy_to_nowhere(kb, table, rows) for _ in range(COPIES))
        started = time.perf_counter()
        kb.archive_messages([month])
        whole = time.perf_counter() - started
    return copy, whole, sum(peaks.bytes.values())


def _copy_to_nowhere(kb: KnowledgeBase, table: str, rows: int) -> float:
    statement = SQL("copy {} to stdout (format binary)").format(Identifier("kb", table))
    with kb.database.transaction() as connection, connection.cursor() as cursor:
        started = time.perf_counter()
        with cursor.copy(statement) as copy:
            deque(copy, maxlen=0)
        taken = time.perf_counter() - started
        assert cursor.rowcount == rows
    return taken
