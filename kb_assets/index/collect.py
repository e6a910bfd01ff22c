"""Collecting vectors that no chunk uses, after a time in which they may be wanted again."""

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import list_spaces
from kb_assets.index.publish import lock_publishing

MAX_TEXTS = 10_000
"""The most texts one transaction looks at, so that publishers wait for moments only."""

_statements = Statements.beside(__file__)


def collect_unused_vectors(database: Database, grace_seconds: float) -> int:
    """Delete the vectors of texts that were unused for long enough, in every space.

    Whether a text is used is looked at again under the publish lock: a text that came back
    keeps its vectors.

    Returns:
        How many texts lost their vectors.
    """
    collected = 0
    while True:
        looked_at, unused = _collect(database, grace_seconds)
        collected += unused
        if looked_at < MAX_TEXTS:
            return collected


def _collect(database: Database, grace_seconds: float) -> tuple[int, int]:
    spaces = list_spaces(database)
    with database.transaction() as connection:
        lock_publishing(connection)
        rows = connection.execute(
            _statements("collect_unused"), {"grace_seconds": grace_seconds, "limit": MAX_TEXTS}
        ).fetchall()
        hashes = [hash_ for hash_, used in rows if not used]
        if hashes:
            for space in spaces:
                connection.execute(
                    _statements("delete_vectors", embeddings=space.table), {"hashes": hashes}
                )
    return len(rows), len(hashes)
