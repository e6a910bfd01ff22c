"""The query log: what was asked and found, written beside the searches and never in their way."""

import logging
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from kb_assets.database.bulk import copy_rows
from kb_assets.database.connect import Database
from kb_assets.database.names import SCHEMA
from kb_assets.database.statements import Statements
from kb_assets.errors import DatabaseUnavailableError
from kb_assets.retrieval.cache.keys import filters_json
from kb_assets.retrieval.hits import Hit, Results
from kb_assets.retrieval.query import Query
from kb_assets.settings import SearchSettings

BATCH = 100
"""So many entries are written at once, without waiting for more."""

WAIT_SECONDS = 5.0
"""How long an entry waits for others, and all of them for a database that is not there."""

MAX_WAITING = 10_000
"""Beyond so many, entries are dropped and counted."""

MAX_DELETED = 10_000
"""The most entries one transaction deletes."""

_MOST_DAYS = 36_500.0
_SECONDS_PER_DAY = 86_400

_COLUMNS = {
    "asked_at": "timestamptz",
    "caller": "text",
    "question": "text",
    "mode": "text",
    "space": "text",
    "filters": "jsonb",
    "seconds": "jsonb",
    "hits": "jsonb",
    "notes": "text[]",
}

_log = logging.getLogger(__name__)
_statements = Statements.beside(__file__)

_Row = tuple[Any, ...]


class QueryLog:
    """Notes searches, and writes many at once in a thread that lives while any wait.

    Attributes:
        dropped: Entries that could not be written.
    """

    def __init__(self, writer: Callable[[], Database], settings: SearchSettings) -> None:
        """Remember where to write; nothing is connected yet.

        Args:
            writer: Gives the writer's database when there is something to write.
            settings: Say whether anything is kept at all.
        """
        self.dropped = 0
        self._writer = writer
        self._is_on = settings.log_days > 0
        self._waiting: list[_Row] = []
        self._is_closing = self._has_failed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, query: Query, results: Results) -> None:
        """Note a search; it is written within seconds, if the database is there."""
        if not self._is_on:
            return
        row = _row(query, results)
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self.dropped += 1
                return
            self._waiting.append(row)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="query log", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write what waits; what cannot be written now is dropped."""
        with self._changed:
            thread = self._thread
            self._is_closing = True
            self._changed.notify_all()
        if thread is not None:
            thread.join()
        self._is_closing = False

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._is_due, WAIT_SECONDS)
                rows, self._waiting = self._waiting, []
                self._has_failed = False
            self._write(rows)
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    return

    def _is_due(self) -> bool:
        return self._is_closing or (len(self._waiting) >= BATCH and not self._has_failed)

    def _write(self, rows: list[_Row]) -> None:
        try:
            with self._writer().transaction() as connection:
                table = (SCHEMA, "query_log")
                copy_rows(connection, table, [*_COLUMNS], [*_COLUMNS.values()], rows)
        except DatabaseUnavailableError as error:
            self._failed(error, rows, again=not self._is_closing)
        except Exception as error:  # whatever it is, it would come back the same
            self._failed(error, rows, again=False)

    def _failed(self, error: Exception, rows: list[_Row], *, again: bool) -> None:
        with self._changed:
            kept = rows[: MAX_WAITING - len(self._waiting)] if again else []
            self._waiting[:0] = kept
            self._has_failed = True
            self.dropped += len(rows) - len(kept)
        _log.warning(
            "The query log could not be written (%s: %s): %d entries wait, %d were dropped so far.",
            type(error).__name__,
            error,
            len(kept),
            self.dropped,
        )


def forget_old_queries(database: Database, days: float) -> int:
    """Delete what was asked longer ago, and return how many entries that were; 0 deletes all."""
    forgotten = 0
    named = {"seconds": min(days, _MOST_DAYS) * _SECONDS_PER_DAY, "limit": MAX_DELETED}
    while True:
        with database.transaction() as connection:
            deleted = connection.execute(_statements("forget_queries"), named).rowcount
        forgotten += deleted
        if deleted < MAX_DELETED:
            return forgotten


def _row(query: Query, results: Results) -> _Row:
    return (
        datetime.now(UTC),
        _storable(query.caller.name) if query.caller and query.caller.name else None,
        query.text,
        results.mode,
        results.space or None,
        Jsonb(filters_json(query.filters)),
        Jsonb(dict(results.seconds)),
        Jsonb([_hit(hit) for hit in results]),
        [_storable(note) for note in results.notes],
    )


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "source": hit.source,
        "path": hit.path,
        "ordinal": hit.ordinal,
        "last_ordinal": hit.last_ordinal,
        "score": hit.score if math.isfinite(hit.score) else None,
    }


def _storable(text: str) -> str:
    """Return text as PostgreSQL can hold it: what providers say may be anything."""
    return text.replace("\x00", "").encode(errors="replace").decode()
