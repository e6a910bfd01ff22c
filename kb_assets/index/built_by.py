"""Which version of pgvector built an index, and whether a later one asks for a new one.

An index says it in its comment. One that says nothing is of the time before, when no version
below 0.8.4 was let in.
"""

import re
from typing import Any

import psycopg
from psycopg.sql import Literal

from kb_assets.database.statements import Statements

_PREFIX = "built by pgvector "

_REBUILT_SINCE = {
    (0, 8, 4): "0.8.3 and 0.8.4 mended how VACUUM repairs the graph: it may be damaged",
}
"""From which version on an index of an earlier one is built anew, and why: see pgvector's
CHANGELOG. A new line belongs here when its notes ask for one."""

_statements = Statements.beside(__file__)


def reason_to_rebuild(comment: str | None) -> str:
    """Return why an index is built anew, or nothing.

    Args:
        comment: The index's.
    """
    if comment is None or not comment.startswith(_PREFIX):
        return ""
    version = tuple(map(int, re.findall(r"\d+", comment)[:3]))
    return "; ".join(why for since, why in _REBUILT_SINCE.items() if version < since)


def note_builder(connection: psycopg.Connection[Any], index: tuple[str, str]) -> None:
    """Let an index say which version built it.

    Args:
        connection: As its owner.
        index: Its schema and name.
    """
    row = connection.execute(_statements("find_pgvector_version")).fetchone()
    assert row is not None
    words = Literal(_PREFIX + row[0])
    connection.execute(_statements("comment_vector_index", index=index, words=words))
