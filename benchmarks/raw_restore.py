"""The least that a restored knowledge base takes: bare tables, their rows, and the indexes.

Tables without any constraint are made from the source's catalogue. Binary COPY reads ready files on
the server, two at a time and without WAL. The server's settings, and what indexes are built with,
are those of a drill.
"""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from kb_assets.backup.loading import JOBS, Load
from kb_assets.backup.manifest import Manifest, TableFacts
from kb_assets.backup.programs import find_program
from kb_assets.backup.scratch import scratch_database

_COLUMNS = """
select array_agg(attname order by attnum),
    array_agg(format_type(atttypid, atttypmod) order by attnum),
    array_agg(case attstorage when 'e' then 'external' when 'm' then 'main' when 'x' then 'extended'
        else 'plain' end order by attnum)
from pg_attribute
where attrelid = %s::regclass and attname = any(%s)
"""
_INDEXES = """
select m.amname = 'hnsw', pg_get_indexdef(x.indexrelid)
from pg_index x
join pg_class t on t.oid = x.indrelid and t.relkind = 'r'
join pg_namespace n on n.oid = t.relnamespace
join pg_class i on i.oid = x.indexrelid
join pg_am m on m.oid = i.relam
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by pg_relation_size(t.oid) desc
"""


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table of the source: how it is made anew without constraints, and its rows in a file."""

    facts: TableFacts
    types: tuple[str, ...]
    storages: tuple[str, ...]
    file: Path

    @property
    def place(self) -> Identifier:
        return Identifier(self.facts.schema, self.facts.name)

    def definition(self) -> Composable:
        columns = SQL(", ").join(
            SQL("{} {} storage {}").format(Identifier(name), SQL(type_), SQL(storage))
            for name, type_, storage in zip(
                self.facts.columns, self.types, self.storages, strict=True
            )
        )
        return SQL("create table {} ({})").format(self.place, columns)


@dataclass(frozen=True, slots=True)
class RawSource:
    """What is put into the scratch server: tables by size, and the definitions of indexes."""

    tables: tuple[RawTable, ...]
    vector_indexes: tuple[str, ...]
    other_indexes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RawRestore:
    """Seconds of each part, and what the vector index was given."""

    load: float
    vector_indexes: float
    other_indexes: float
    memory_bytes: int
    workers: int

    @property
    def floor(self) -> float:
        return self.load + self.vector_indexes

    @property
    def with_all_indexes(self) -> float:
        return self.floor + self.other_indexes


def read_source(url: str, manifest: Manifest, folder: Path) -> RawSource:
    """Write the rows of every table to a file, as COPY gives them, largest table first."""
    folder.mkdir()
    folder.chmod(0o755)
    with psycopg.connect(url, autocommit=True) as connection:
        tables = [
            _read_table(connection, facts, folder / f"{number:03}.binary")
            for number, facts in enumerate(manifest.tables)
        ]
        indexes = connection.execute(_INDEXES).fetchall()
    return RawSource(
        tuple(sorted(tables, key=lambda table: -table.file.stat().st_size)),
        tuple(definition for is_hnsw, definition in indexes if is_hnsw),
        tuple(definition for is_hnsw, definition in indexes if not is_hnsw),
    )


def _read_table(connection: psycopg.Connection[Any], facts: TableFacts, file: Path) -> RawTable:
    place, columns = Identifier(facts.schema, facts.name), list(facts.columns)
    named = place.as_string(connection)
    row = connection.execute(_COLUMNS, (named, columns)).fetchone()
    assert row is not None and row[0] == columns
    statement = SQL("copy {} ({}) to stdout (format binary)").format(place, _listed(columns))
    with file.open("wb") as target, connection.cursor() as cursor, cursor.copy(statement) as rows:
        target.writelines(rows)
    file.chmod(0o644)
    return RawTable(facts, tuple(row[1]), tuple(row[2]), file)


def raw_restore(source: RawSource, manifest: Manifest, folder: Path) -> RawRestore:
    """Restore without proving anything, on a server like a drill's."""
    workers = max(1, (os.cpu_count() or 2) - 1)
    with scratch_database(folder, manifest.server_major) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create extension vector")
            for schema in {table.facts.schema for table in source.tables} - {"public"}:
                connection.execute(SQL("create schema {}").format(Identifier(schema)))
            for table in source.tables:
                connection.execute(table.definition())
        load = Load(manifest, folder, url, find_program("pg_restore", manifest.server_major))
        memory_bytes = load._memory_bytes()
        options = (
            f"-c maintenance_work_mem={memory_bytes // 1024}kB"
            f" -c max_parallel_maintenance_workers={workers}"
        )

        def build(definition: str) -> None:
            with psycopg.connect(url, autocommit=True, options=options) as connection:
                connection.execute(definition)

        return RawRestore(
            _at_once(lambda table: _fill(url, table), source.tables),
            _at_once(build, source.vector_indexes),
            _at_once(build, source.other_indexes),
            memory_bytes,
            workers,
        )


def _fill(url: str, table: RawTable) -> None:
    filling = SQL("copy {} ({}) from {} (format binary, freeze)").format(
        table.place, _listed(table.facts.columns), Literal(str(table.file))
    )
    with psycopg.connect(url) as connection:
        connection.execute(SQL("truncate {}").format(table.place))
        assert connection.execute(filling).rowcount == table.facts.rows


def _at_once(work: Callable[[Any], None], items: Iterable[Any]) -> float:
    """Return the seconds of doing something with all items, as many at a time as a drill does."""
    started = time.perf_counter()
    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(work, items))
    return time.perf_counter() - started


def _listed(columns: Iterable[str]) -> Composable:
    return SQL(", ").join(map(Identifier, columns))
