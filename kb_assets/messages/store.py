"""Messages and conversations in PostgreSQL: what one transaction of intake does, step by step.

The steps take locks in one order, which every writer keeps: months, then conversations by id.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import psycopg

from kb_assets.database.arrays import numbers, texts
from kb_assets.database.bulk import copy_encoded
from kb_assets.database.connect import Database
from kb_assets.database.names import SCHEMA
from kb_assets.database.statements import Statements
from kb_assets.messages.plan import Batch, Conversation, Plan, Spans
from kb_assets.messages.rows import COLUMNS, encode, encode_late

_statements = Statements.beside(__file__)


class Overtaken(Exception):  # noqa: N818
    """Somebody else changed what this transaction relies on: it is to be tried again."""


def add_months(database: Database, months: Iterable[date]) -> None:
    """Make partitions for months that never had one."""
    with database.transaction() as connection:
        found = connection.execute(_statements("find_new_months"), {"months": list(months)})
        new = [month for (month,) in found]
    for month in new:
        with database.transaction() as connection:
            connection.execute(_statements("add_month"), {"month": month})


def hold_months(connection: psycopg.Connection[Any], months: list[date]) -> frozenset[date]:
    """Keep months as they are until the transaction ends, and return those that are closed.

    Raises:
        Overtaken: One is not there any more.
    """
    rows = connection.execute(_statements("hold_months"), {"months": months}).fetchall()
    if len(rows) < len(months):
        raise Overtaken("A month of the messages is not known any more.")
    return frozenset(month for month, is_closed in rows if is_closed)


def hold_conversations(
    connection: psycopg.Connection[Any], spans: Spans
) -> dict[str, Conversation]:
    """Add the conversations that are new, and keep all of them until the transaction ends.

    Args:
        connection: In a transaction.
        spans: The first and the last time of each one's messages.

    Raises:
        Overtaken: One was erased meanwhile.
    """
    ids = {"ids": texts(spans)}
    firsts = numbers(first for first, _ in spans.values())
    lasts = numbers(last for _, last in spans.values())
    new = ids | {"firsts": firsts, "lasts": lasts}
    added = connection.execute(_statements("add_conversations"), new).fetchall()
    rows = connection.execute(_statements("hold_conversations"), ids).fetchall()
    held = {id_: Conversation(*counted) for id_, *counted in rows}
    # Asked once they are held: whoever erases one holds it, too.
    erased = connection.execute(_statements("find_erased"), ids).fetchall()
    held |= {id_: Conversation(is_erased=True) for (id_,) in erased}
    if len(held) < len(spans) or not set(added).isdisjoint(erased):
        raise Overtaken("A conversation was erased while messages came in for it.")
    return held


def find_stored(connection: psycopg.Connection[Any], batch: Batch) -> dict[int, str]:
    """Return which conversation each message is stored in already, by its index in the batch."""
    named = {
        "microseconds": numbers(batch.microseconds),
        "ids": texts(message.id for message in batch.messages),
        "low": batch.messages[0].created_at,
        "high": batch.messages[-1].created_at,
    }
    # Planned anew each time: a plan made for months that were empty would read full ones whole.
    return dict(connection.execute(_statements("find_stored"), named, prepare=False).fetchall())


def save(connection: psycopg.Connection[Any], batch: Batch, plan: Plan, spans: Spans) -> None:
    """Store what a plan says.

    Raises:
        Overtaken: A late message is there that was not there a moment ago.
    """
    copy_encoded(connection, (SCHEMA, "message"), COLUMNS, encode(batch, plan))
    if plan.late:
        _save_late(connection, batch, plan)
    if plan.conversations:
        _save_conversations(connection, plan.conversations, spans)


def _save_late(connection: psycopg.Connection[Any], batch: Batch, plan: Plan) -> None:
    connection.execute(_statements("make_late_arrivals"))
    copy_encoded(connection, "late_arrivals", COLUMNS, encode_late(batch, plan))
    if connection.execute(_statements("add_late")).rowcount < len(plan.late):
        raise Overtaken("A message came in for another conversation with the same id and time.")


def _save_conversations(
    connection: psycopg.Connection[Any], changed: Mapping[str, Conversation], spans: Spans
) -> None:
    conversations = changed.values()
    connection.execute(
        _statements("save_conversations"),
        {
            "ids": texts(changed),
            "user_ids": texts(one.user_id for one in conversations),
            "messages": numbers(one.messages for one in conversations),
            "bytes": numbers(one.bytes for one in conversations),
            "tokens": numbers(one.tokens for one in conversations),
            "firsts": numbers(spans[name][0] for name in changed),
            "lasts": numbers(spans[name][1] for name in changed),
        },
    )
