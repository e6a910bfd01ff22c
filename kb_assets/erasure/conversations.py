"""Conversations: hidden at once, and their rows in the database deleted."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable

from kb_assets.archive.lease import month_lease
from kb_assets.archive.relation import MESSAGES
from kb_assets.database.names import SCHEMA
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.erasure.ledger import Request, enter
from kb_assets.erasure.subject import Subject
from kb_assets.errors import DatabaseUnavailableError

_TABLES = {"hot_rows": MESSAGES.name, "late_rows": MESSAGES.late}
"""What is counted in a receipt, and in which table."""

_ATTEMPTS = 10
_PAUSE_SECONDS = 3.0
"""Between attempts to thaw a month; others go on with the table meanwhile."""

_statements = Statements(Path(__file__).with_name("erasing.sql"))


def find_conversations(connection: psycopg.Connection[Any], subject: Subject) -> list[str]:
    """Return the conversations of a subject that were not erased before, ordered by id."""
    named = {"conversation_id": None, "user_id": None, f"{subject.scope}_id": subject.name}
    return [id_ for (id_,) in connection.execute(_statements("find_conversations"), named)]


def count_hot(
    connection: psycopg.Connection[Any], conversation_ids: Sequence[str]
) -> dict[str, int]:
    """Return how many rows conversations have in the database."""
    ids = {"conversation_ids": list(conversation_ids)}
    counted = {}
    for name, table in _TABLES.items():
        statement = _statements("count_hot", table=(SCHEMA, table))
        row = connection.execute(statement, ids).fetchone()
        counted[name] = 0 if row is None else int(row[0])
    return counted


def hide_conversations(run: Run, request: Request, conversation_ids: Sequence[str]) -> int:
    """Hide conversations for good, delete their rows, and return the erasure's number.

    What is on its way to the archive cannot be changed there: such a month is taken over from
    its archiver, which begins anew afterwards.

    Raises:
        ArchiveBusyError: A run that is at work in such a month did not finish in time.
        LeaseLostError: Such a month was taken over by another run; nothing was changed.
    """
    months: set[date] = set()
    attempts_left = _ATTEMPTS
    while True:
        try:
            id_ = _hide_holding(run, request, conversation_ids, months)
        except DatabaseUnavailableError as error:
            # Readers of a month that is on its way to the archive keep it as it is.
            if not isinstance(error.__cause__, LockNotAvailable) or not attempts_left:
                raise
            attempts_left -= 1
            time.sleep(_PAUSE_SECONDS)
        else:
            if id_ is not None:
                return id_


def _hide_holding(
    run: Run, request: Request, conversation_ids: Sequence[str], months: set[date]
) -> int | None:
    """Hide and delete while months are held, or add to the months that must be."""
    wait_seconds = run.settings.limits.lease_wait_seconds
    with ExitStack() as stack:
        leases = [
            stack.enter_context(
                month_lease(
                    run.archive, MESSAGES, month, run_id=run.run_id, wait_seconds=wait_seconds
                )
            )
            for month in sorted(months)
        ]
        with run.archive.transaction() as connection:
            connection.execute(_statements("hold_months"))
            for lease in leases:
                lease.guard(connection)
            return _hide(connection, request, run.run_id, conversation_ids, months)


def _hide(
    connection: psycopg.Connection[Any],
    request: Request,
    run_id: str,
    conversation_ids: Sequence[str],
    months: set[date],
) -> int | None:
    ids = {"conversation_ids": list(conversation_ids)}
    connection.execute(_statements("add_missing_conversations"), ids)
    connection.execute(_statements("hold_conversations"), ids)
    frozen = {month for (month,) in connection.execute(_statements("find_frozen"), ids)}
    if not frozen <= months:
        months |= frozen
        return None
    if frozen:
        connection.execute(_statements("limit_lock_wait"))
    for month in frozen:
        connection.execute(_statements("thaw_month"), {"month": month})
    receipt = {"conversations": len(conversation_ids), "cold_rows": 0, "segments": 0}
    for name, table in _TABLES.items():
        statement = _statements("delete_hot", table=(SCHEMA, table))
        receipt[name] = connection.execute(statement, ids).rowcount
    for month in frozen:
        connection.execute(_statements("freeze_month"), {"month": month})
    id_ = enter(connection, request, run_id, receipt)
    connection.execute(_statements("hide_conversations"), ids | {"erasure_id": id_})
    return id_
