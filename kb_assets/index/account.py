"""Accounting: every document of a source is live, quarantined or pending, and nothing else."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.fingerprints import Shard

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Account:
    """Where the documents of a shard are.

    Attributes:
        listed: Documents the last listing found; None before the first.
        listed_at: When that was. A listing that shows the same again is not written down.
        documents: Documents known, without those on their way out.
        live: Answering with their newest content.
        partial: Those among the live of which a text has no vector.
        quarantined: Not processable as they are; an older revision may answer.
        pending: On their way, or missed and withheld by the mass-delete guard.
        missing: Those among the pending that the guard withholds.
        vanishing: Gone from the source; they leave search at the next publish.
        erased: Not listed and not read any more, whatever the source has.
    """

    listed: int | None
    listed_at: datetime | None
    documents: int
    live: int
    partial: int
    quarantined: int
    pending: int
    missing: int
    vanishing: int
    erased: int

    @property
    def is_balanced(self) -> bool:
        """Whether what was listed is what is accounted for, the missing ones set apart."""
        accounted = self.live + self.quarantined + self.pending - self.missing
        return self.listed is not None and self.listed == accounted

    @property
    def is_settled(self) -> bool:
        """Whether all is accounted for and nothing waits."""
        return self.is_balanced and self.pending == 0 and self.vanishing == 0


@dataclass(frozen=True, slots=True)
class Contents:
    """What readers can find in a shard.

    Attributes:
        chunks: Live chunks.
        texts: Distinct texts among them.
        tokens: Tokens in the chunks.
    """

    chunks: int
    texts: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A document in quarantine, and why."""

    source: str
    path: str
    stage: str
    reason: str
    detail: str
    attempts: int
    first_seen: datetime
    last_seen: datetime


_NOTHING = Account(None, None, 0, 0, 0, 0, 0, 0, 0, 0)


def account_for(database: Database, shard: Shard) -> Account:
    """Return where the documents of a shard are; all zero before its first run."""
    with database.transaction() as connection:
        named = _slots(connection, shard)
        if named is None:
            return _NOTHING
        listed = connection.execute(_statements("listed"), named).fetchone()
        counts = connection.execute(_statements("account"), named).fetchone()
    assert listed is not None
    assert counts is not None
    values = (*listed[:2], *counts, sum(map(shard.owns, listed[2])))
    return Account(*values)


def contents_of(database: Database, shard: Shard) -> Contents:
    """Return what readers can find in a shard."""
    with database.transaction() as connection:
        named = _slots(connection, shard)
        if named is None:
            return Contents(0, 0, 0)
        row = connection.execute(_statements("count_chunks"), named).fetchone()
    assert row is not None
    return Contents(*row)


def list_quarantine(database: Database, shard: Shard, limit: int = 100) -> list[Quarantined]:
    """Return the documents of a shard that are in quarantine, by path."""
    with database.transaction() as connection:
        named = _slots(connection, shard)
        if named is None:
            return []
        rows = connection.execute(_statements("list_quarantine"), named | {"limit": limit})
        return [Quarantined(*row) for row in rows]


def _slots(connection: psycopg.Connection[Any], shard: Shard) -> dict[str, Any] | None:
    row = connection.execute(_statements("source_id"), {"name": shard.source}).fetchone()
    if row is None:
        return None
    return {"source_id": row[0], "slot_low": shard.slot_low, "slot_high": shard.slot_high}
