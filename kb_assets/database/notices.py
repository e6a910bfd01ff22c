"""What the server says beside its answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


@contextmanager
def notices_of(connection: psycopg.Connection[Any]) -> Iterator[list[str]]:
    """Collect what the server says meanwhile."""
    said: list[str] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        said.append(notice.message_primary or "")

    connection.add_notice_handler(listen)
    try:
        yield said
    finally:
        connection.remove_notice_handler(listen)
