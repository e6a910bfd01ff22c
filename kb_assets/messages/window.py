"""The newest messages of a conversation, as many as fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL

from kb_assets.database.statements import Statements
from kb_assets.errors import NotFoundError

_statements = Statements.beside(__file__)

_TOKENS_BEFORE = SQL("total_tokens - token_count")
_BYTES_BEFORE = SQL("total_bytes - octet_length(content)")
_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class WindowMessage:
    """A message in a window.

    Attributes:
        id: What the client calls it.
        created_at: When it was written, in UTC.
        role: Who speaks.
        content: What is said.
        language: As the client named it.
        intent: As the client named it.
        metadata: Whatever the client said of it.
        token_count: How many tokens the content has.
    """

    id: str
    created_at: datetime
    role: str
    content: str
    language: str | None
    intent: str | None
    metadata: Mapping[str, Any]
    token_count: int


@dataclass(frozen=True, slots=True)
class Window:
    """The newest messages of a conversation, in the order in which they came in.

    Attributes:
        messages: Those of them that are in the database, oldest first.
        earlier: How many more the conversation has, in the database or in the archive.
    """

    messages: tuple[WindowMessage, ...]
    earlier: int


def read_window(
    connection: psycopg.Connection[Any],
    conversation_id: str,
    max_tokens: int | None,
    max_bytes: int | None,
) -> Window:
    """Return a conversation's newest messages that fit into one of the limits.

    Raises:
        NotFoundError: There is no such conversation, or it was erased.
    """
    named: dict[str, Any] = {"conversation_id": conversation_id}
    try:
        row = connection.execute(_statements("find_conversation"), named).fetchone()
    except (psycopg.DataError, UnicodeEncodeError):
        row = None  # No text the database can hold: nothing is called that.
    if row is None:
        raise NotFoundError(
            f"There is no conversation {conversation_id!r}.",
            why="No message of it came in, or it was erased.",
        )
    messages, size, tokens, first_at, last_at = row
    if max_tokens is not None:
        before, floor = _TOKENS_BEFORE, tokens - min(max_tokens, _NO_LIMIT)
    else:
        before, floor = _BYTES_BEFORE, size - min(max_bytes or 0, _NO_LIMIT)
    named |= {"first_at": first_at, "last_at": last_at, "last_ordinal": messages, "floor": floor}
    found = connection.execute(_statements("read_window", before=before), named, prepare=False)
    window = tuple(WindowMessage(*one) for one in found)
    return Window(window, messages - len(window))
