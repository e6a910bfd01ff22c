"""Everything the database needs now and then, in one call."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg

from kb_assets.database.connect import DatabaseUrls, conninfo, unavailable_when_lost
from kb_assets.housekeeping.history import Pruned, prune_history
from kb_assets.housekeeping.tables import DatabaseState, measure, tend_tables

_LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class HousekeepingReport:
    """What was done, and how things are afterwards.

    Attributes:
        pruned: What was deleted of Dagster's history.
        knowledge: The knowledge base's database.
        dagster: Dagster's.
        tended: The tables that were vacuumed or analyzed, of both.
        seconds: How long it took.
    """

    pruned: Pruned
    knowledge: DatabaseState
    dagster: DatabaseState
    tended: tuple[tuple[str, str], ...]
    seconds: float


def tend(urls: DatabaseUrls, keep_runs_days: int) -> HousekeepingReport:
    """Prune Dagster's history, vacuum what is due, and measure.

    Tables of the knowledge base are vacuumed as their owner, if his URL is known here; else
    autovacuum has to.

    Args:
        urls: Where each role connects.
        keep_runs_days: How long Dagster's runs are kept.

    Raises:
        DatabaseUnavailableError: A database cannot be reached, or something was locked.
    """
    began = time.monotonic()
    before = datetime.now(UTC) - timedelta(days=keep_runs_days)
    with _connected(urls.dagster) as connection:
        pruned = prune_history(connection, before)
        dagster, tended_there = _tended(connection, only_current_schema=True)
    with _connected(urls.migrator) as connection:
        knowledge, tended = _tended(connection)
    # Dagster may have its tables in the same database.
    theirs = {one.name for one in dagster.tables}
    ours = tuple(one for one in knowledge.tables if one.name not in theirs)
    knowledge = replace(knowledge, tables=ours)
    seconds = time.monotonic() - began
    return HousekeepingReport(pruned, knowledge, dagster, (*tended_there, *tended), seconds)


def _tended(
    connection: psycopg.Connection, *, only_current_schema: bool = False
) -> tuple[DatabaseState, tuple[tuple[str, str], ...]]:
    found = measure(connection, only_current_schema=only_current_schema)
    tended = tend_tables(connection, found.tables)
    return measure(connection, only_current_schema=only_current_schema), tended


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    where = conninfo(url, "kb_assets housekeeping", _LOCK_SECONDS)
    with unavailable_when_lost(), psycopg.connect(where, autocommit=True) as connection:
        yield connection
