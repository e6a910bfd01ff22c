"""A database into files: its schema, its rows, and what they add up to, all of one snapshot.

`pg_dump` writes the schema and most tables. Vectors it would write as text, which takes many
times as long: tables that have some are copied in binary instead.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pyarrow as pa

from kb_assets.backup.contents import Contents, read_contents, stored_columns
from kb_assets.backup.programs import find_program, run_program
from kb_assets.backup.questions import Questions, ask, write_questions
from kb_assets.backup.snapshot import Snapshot, wait_for
from kb_assets.backup.tables import Table
from kb_assets.database.statements import Statements
from kb_assets.errors import DiskError
from kb_assets.settings import Settings

DUMP_FOLDER = "dump"
SCHEMA_FILE = "schema.sql"

_WRITE_BYTES = 1024**2
_LOCK_WAIT = "600s"

_statements = Statements.beside(__file__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Dumped:
    """What was written.

    Attributes:
        contents: What the database held.
        questions: What was asked, and answered.
        seconds: How long each part took: `schema`, `dump`, `vectors`, `checksums`, `questions`.
            All but the first went on at once.
    """

    contents: Contents
    questions: Questions
    seconds: dict[str, float]


def dump(snapshot: Snapshot, folder: Path, settings: Settings) -> Dumped:
    """Write a database into a folder.

    Args:
        snapshot: Its state.
        folder: Empty.
        settings: Which questions are asked.

    Raises:
        DatabaseRefusedError: There is no program for a server of this version, or something
            cannot be read.
        DatabaseUnavailableError: The server was lost.
        DiskError: The local disk is full, or cannot be written.
    """
    work = _Work(snapshot, folder, settings)
    with ThreadPoolExecutor(4, "dump") as pool:
        try:
            work.timed("schema", work.write_schema)
            asked = pool.submit(work.timed, "questions", work.ask)
            counted = pool.submit(work.timed, "checksums", work.count)
            others = (
                pool.submit(work.timed, "vectors", work.copy_vectors),
                pool.submit(work.timed, "dump", work.dump),
            )
            wait_for((asked, counted, *others), snapshot.stopping)
        except BaseException:
            snapshot.stopping.set()
            raise
    return Dumped(counted.result(), asked.result(), work.seconds)


@dataclass(slots=True)
class _Work:
    """What is done at once."""

    snapshot: Snapshot
    folder: Path
    settings: Settings
    seconds: dict[str, float] = field(default_factory=dict)
    program: Path = field(init=False)
    jobs: int = field(init=False)

    def __post_init__(self) -> None:
        major = self.snapshot.connection.info.server_version // 10000
        self.program = find_program("pg_dump", major)
        self.jobs = max(2, min(4, os.cpu_count() or 2))

    def timed(self, name: str, work: Callable[[], Result]) -> Result:
        started = time.monotonic()
        try:
            return work()
        finally:
            self.seconds[name] = time.monotonic() - started

    def write_schema(self) -> None:
        self._run("--schema-only", f"--file={self.folder / SCHEMA_FILE}")

    def dump(self) -> None:
        apart = [
            f"--exclude-table-data={_pattern(table)}"
            for table in self.snapshot.tables
            if table.has_vectors
        ]
        self._run(
            *("--format=directory", f"--file={self.folder / DUMP_FOLDER}"),
            *(f"--jobs={self.jobs}", "--compress=gzip:1", *apart),
        )

    def copy_vectors(self) -> None:
        tables = [table for table in self.snapshot.tables if table.has_vectors]
        tables.sort(key=lambda table: -table.total_bytes)
        self.snapshot.each([_Copy(table, self.folder) for table in tables], self.jobs)

    def count(self) -> Contents:
        return read_contents(self.snapshot, sessions=self.jobs)

    def ask(self) -> Questions:
        (questions,) = self.snapshot.each([lambda session: ask(session, self.settings)], 1)
        with _disk():
            write_questions(questions, self.folder)
        return questions

    def _run(self, *arguments: str) -> None:
        common = (
            f"--snapshot={self.snapshot.name}",
            f"--lock-wait-timeout={_LOCK_WAIT}",
            "--no-sync",
        )
        run_program(
            self.program,
            (*common, *arguments),
            self.snapshot.url,
            stopping=self.snapshot.stopping,
        )


@dataclass(frozen=True, slots=True)
class _Copy:
    """A table's rows into a file, in binary, compressed."""

    table: Table
    folder: Path

    def __call__(self, connection: psycopg.Connection[Any]) -> None:
        assert self.table.file is not None
        file = self.folder / self.table.file
        statement = _statements(
            "copy_rows", table=self.table.place, columns=stored_columns(self.table)
        )
        with (
            _disk(),
            _compressed(file) as target,
            connection.cursor() as cursor,
            cursor.copy(statement) as rows,
        ):
            gathered = bytearray()
            for row in rows:
                gathered += row
                if len(gathered) >= _WRITE_BYTES:
                    target.write(gathered)
                    gathered = bytearray()
            target.write(gathered)


@contextmanager
def _compressed(file: Path) -> Iterator[Any]:
    """Open a file for writing through zstd, level 1."""
    file.parent.mkdir(exist_ok=True)
    with pa.OSFile(str(file), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as target:
        yield target


def _pattern(table: Table) -> str:
    """Return a table as `pg_dump` names it: quoted, so that nothing in it is a wildcard."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.place)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            "The backup cannot be written here before it is uploaded.",
            why=str(error),
            fix="See that the disk of the knowledge base's home has room for the whole of it.",
        ) from error
