"""What is left over, removed: only objects this archive made, and only days after they failed."""

from datetime import datetime, timedelta

from kb_assets.archive.plan import manifest_key
from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.object_store import ObjectStore

KEPT = timedelta(days=3)
"""How long a failed or replaced object stays: readers may still be at it."""

_statements = Statements.beside(__file__)
_FIND_REMOVABLE = _statements("find_removable")
_MARK_REMOVED = _statements("mark_removed")


def remove_leftovers(database: Database, destination: ObjectStore, now: datetime) -> int:
    """Remove objects of failed and of replaced segments, and return how many.

    Raises:
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    with database.transaction() as connection:
        rows = connection.execute(_FIND_REMOVABLE, {"before": now - KEPT}).fetchall()
    if not rows:
        return 0
    destination.delete([name for _, key in rows for name in (key, manifest_key(key))])
    with database.transaction() as connection:
        connection.execute(_MARK_REMOVED, {"ids": [segment for segment, _ in rows]})
    return len(rows)
