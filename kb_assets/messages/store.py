"""Messages and conversations in PostgreSQL: what one transaction of intake does, step by step.

The steps take locks in one order, which every writer keeps: months, then conversations by id.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import psycopg

from kb_assets.database.bulk import copy_encoded
from kb_assets.database.connect import Database
from kb_assets.database.names import SCHEMA
from kb_assets.database.statements import Statements
from kb_assets.messages.plan import Conversation, Incoming, Plan, Spans
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
    ids = {"ids": list(spans)}
    firsts, lasts = [first for first, _ in spans.values()], [last for _, last in spans.values()]
    connection.execute(_statements("add_conversations"), ids | {"firsts": firsts, "lasts": lasts})
    rows = connection.execute(_statements("hold_conversations"), ids).fetchall()
    held = {id_: Conversation(*counted) for id_, *counted in rows}
    # Asked once they are held: whoever erases one holds it, too.
    for (id_,) in connection.execute(_statements("find_erased"), ids):
        held[id_] = Conversation(is_erased=True)
    if len(held) < len(spans):
        raise Overtaken("A conversation was erased while messages came in for it.")
    return held


def find_stored(connection: psycopg.Connection[Any], batch: Sequence[Incoming]) -> dict[int, str]:
    """Return which conversation each message is stored in already, by its index in the batch."""
    named = {
        "microseconds": [one.microsecond for one in batch],
        "ids": [one.message.id for one in batch],
        "low": batch[0].message.created_at,
        "high": batch[-1].message.created_at,
    }
    # Planned anew each time: a plan made for months that were empty would read full ones whole.
    return dict(connection.execute(_statements("find_stored"), named, prepare=False).fetchall())


def save(connection: psycopg.Connection[Any], plan: Plan, spans: Spans) -> None:
    """Store what a plan says.

    Raises:
        Overtaken: A late message is there that was not there a moment ago.
    """
    copy_encoded(connection, (SCHEMA, "message"), COLUMNS, encode(plan.rows))
    if plan.late:
        _save_late(connection, plan.late)
    if plan.conversations:
        _save_conversations(connection, plan.conversations, spans)


def _save_late(connection: psycopg.Connection[Any], late: Sequence[Incoming]) -> None:
    connection.execute(_statements("make_late_arrivals"))
    copy_encoded(connection, "late_arrivals", COLUMNS, encode_late(late))
    if connection.execute(_statements("add_late")).rowcount < len(late):
        raise Overtaken("A message came in for another conversation with the same id and time.")


def _save_conversations(
    connection: psycopg.Connection[Any], changed: Mapping[str, Conversation], spans: Spans
) -> None:
    conversations = changed.values()
    connection.execute(
        _statements("save_conversations"),
        {
            "ids": list(changed),
            "user_ids": [one.user_id for one in conversations],
            "messages": [one.messages for one in conversations],
            "bytes": [one.bytes for one in conversations],
            "tokens": [one.tokens for one in conversations],
            "firsts": [spans[name][0] for name in changed],
            "lasts": [spans[name][1] for name in changed],
        },
    )
