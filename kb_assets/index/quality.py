"""The verdict on retrieval, where it stops things."""

from typing import Any

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.errors import QualityError

_statements = Statements.beside(__file__)


def failure_in(connection: psycopg.Connection[Any]) -> str:
    """Return why the last evaluation of the configured questions failed; empty if it held."""
    row = connection.execute(_statements("last_verdict")).fetchone()
    if row is None or row[0] == "holds":
        return ""
    return f"The evaluation of {row[2]:%F %R %Z} failed. {' '.join(row[1])}"


def require_quality(database: Database) -> None:
    """Refuse to go on while retrieval fails.

    Raises:
        QualityError: The last evaluation of the configured questions failed.
    """
    with database.transaction() as connection:
        failure = failure_in(connection)
    if failure:
        raise QualityError(
            "Nothing is published: readers keep what they have, and what waits is kept.",
            why=failure,
            fix="Find out with `kb eval --per-question`; once `kb eval` holds again, publishing "
            "goes on. If these documents are what mends it, set KB_QUALITY__BLOCK_PUBLISH=false "
            "for one run.",
        )
