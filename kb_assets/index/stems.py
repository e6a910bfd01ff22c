"""Stems and stop words, as PostgreSQL's dictionaries have them, asked once for each word."""

import threading
from collections.abc import Collection
from typing import Any

import psycopg

from kb_assets.database.statements import Statements

MAX_REMEMBERED = 500_000
"""Words of one language that are remembered; beyond, it starts anew."""

_statements = Statements.beside(__file__)
_known: dict[tuple[str, int], dict[str, str | None]] = {}
_lock = threading.Lock()


def stems_of(
    connection: psycopg.Connection[Any], language: str, words: Collection[str]
) -> dict[str, str | None]:
    """Return the stem of each word; None for a stop word.

    Args:
        connection: Any database of the knowledge base.
        language: One of PostgreSQL's text search configurations.
        words: In lower case, each once.
    """
    server = server_major(connection)
    found = remembered_stems(server, language, words)
    if missing := [word for word in words if word not in found]:
        rows = connection.execute(_statements("stems"), {"language": language, "words": missing})
        asked: dict[str, str | None] = dict(rows.fetchall())
        found |= asked
        with _lock:
            known = _known.setdefault((language, server), {})
            if len(known) > MAX_REMEMBERED:
                known.clear()
            known |= asked
    return found


def remembered_stems(server: int, language: str, words: Collection[str]) -> dict[str, str | None]:
    """Return the stems of those words that were asked for before, of a server's major version."""
    with _lock:
        known = _known.get((language, server), {})
        return {word: known[word] for word in words if word in known}


def server_major(connection: psycopg.Connection[Any]) -> int:
    """Return the server's major version: each may bring other dictionaries."""
    return connection.info.server_version // 10_000
