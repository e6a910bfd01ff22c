"""Counts what a run does: statements, rows, files, bytes, and texts that are paid for."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from kb_assets.database.connect import Database
from kb_assets.documents import beneath
from kb_assets.knowledge_base import KnowledgeBase
from tests.servers.openai_server import OpenAIServer


@dataclass
class Work:
    """What was done.

    Attributes:
        statements: Statements sent to the database, COPY included; begin and commit left out.
        connections: Connections opened.
        rows: Rows inserted, changed or deleted, in all tables of the knowledge base.
        files: Files opened.
        bytes_read: Bytes read from files.
        requests: Requests to the embedding provider.
        texts: Texts in them.
    """

    statements: int = 0
    connections: int = 0
    rows: int = 0
    files: int = 0
    bytes_read: int = 0
    requests: int = 0
    texts: int = 0
    sent: list[str] = field(default_factory=list)
    """The statements, for whoever wants to know."""


class CountingDatabase(Database):
    """The writer's database, counting what is asked of it."""

    def __init__(self, url: str, work: Work) -> None:
        super().__init__(url)
        self._work = work

        class Cursor(psycopg.Cursor[Any]):
            def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
                _count(work, query)
                return super().execute(query, *args, **kwargs)

            def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
                _count(work, statement)
                return super().copy(statement, *args, **kwargs)

        class ServerCursor(psycopg.ServerCursor[Any]):
            def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
                _count(work, query)
                return super().execute(query, *args, **kwargs)

        self._cursors = (Cursor, ServerCursor)

    def connect_outside_pool(self) -> psycopg.Connection:
        connection = super().connect_outside_pool()
        self._watch(connection)
        return connection

    def _configure(self, connection: psycopg.Connection) -> None:
        super()._configure(connection)
        self._watch(connection)

    def _watch(self, connection: psycopg.Connection) -> None:
        self._work.connections += 1
        connection.cursor_factory, connection.server_cursor_factory = self._cursors


def _count(work: Work, statement: Any) -> None:
    text = statement if isinstance(statement, str | bytes) else statement.as_string()
    if text:
        work.statements += 1
        work.sent.append(str(text))


@contextmanager
def counted(
    kb: KnowledgeBase, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Work]:
    """Count what is done within the context, with connections that are made for it."""
    work = Work()
    sound = kb.database
    requests = len(provider.requests)
    rows = _rows_written(kb)
    with (
        monkeypatch.context() as patch,
        CountingDatabase(kb.settings.database_url, work) as counting,
    ):
        _count_files(patch, work)
        kb.__dict__["database"] = counting
        try:
            yield work
        finally:
            kb.__dict__["database"] = sound
    work.rows = _rows_written(kb) - rows
    asked = provider.requests[requests:]
    work.requests, work.texts = len(asked), sum(len(one.texts) for one in asked)


def _count_files(patch: pytest.MonkeyPatch, work: Work) -> None:
    open_, read = os.open, os.read
    documents: set[int] = set()

    def counting_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        descriptor = open_(path, flags, *args, **kwargs)
        documents.discard(descriptor)
        if "dir_fd" in kwargs and not flags & os.O_DIRECTORY:
            work.files += 1
            documents.add(descriptor)
        return descriptor

    def counting_read(file: int, most: int) -> bytes:
        content = read(file, most)
        work.bytes_read += len(content) if file in documents else 0
        return content

    patch.setattr(beneath.os, "open", counting_open)
    patch.setattr(beneath.os, "read", counting_read)


def _rows_written(kb: KnowledgeBase) -> int:
    """Return how many rows were ever written; sessions report theirs when they end."""
    kb.close()
    with psycopg.connect(kb.settings.database_url, autocommit=True) as connection:
        others = "select count(*) from pg_stat_activity where datname = current_database()"
        while connection.execute(f"{others} and pid <> pg_backend_pid()").fetchone() != (0,):
            time.sleep(0.01)
        row = connection.execute(
            "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint"
            " from pg_stat_user_tables where schemaname in ('kb', 'kb_space')"
        ).fetchone()
    assert row is not None
    return int(row[0])
