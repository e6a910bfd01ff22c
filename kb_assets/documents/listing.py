"""A source's listing, laid beside the documents that are known: what is new, changed, or gone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from kb_assets.database.bulk import copy_rows
from kb_assets.database.lease import Lease
from kb_assets.database.statements import Statements
from kb_assets.documents.plan import Candidate, State
from kb_assets.documents.source import Entry
from kb_assets.fingerprints import Shard, slot

_statements = Statements.beside(__file__)

_PAGE = 1000

_LISTING = {
    "path": "text",
    "slot": "int2",
    "token": "text",
    "size_bytes": "int8",
    "sidecar": "text",
    "problem": "text",
}


@dataclass(frozen=True, slots=True)
class Absence:
    """Documents a listing does not show.

    Attributes:
        live: How many documents of the shard readers see.
        moved: Absent, but their content stands under another path now.
        unseen: Absent, and never seen by readers.
        lost: The others: readers would lose them.
    """

    live: int
    moved: tuple[int, ...]
    unseen: tuple[int, ...]
    lost: tuple[int, ...]

    def withheld(self, max_share: float) -> tuple[int, ...]:
        """Return the lost ones if they are so large a share of the live ones that it looks wrong.

        This is the mass-delete guard: an unmounted disk or a truncated listing looks like
        many deletions at once.
        """
        return self.lost if len(self.lost) > self.live * max_share else ()


class Listing:
    """A source's listing of one shard, in a temporary table beside the documents.

    It lives as long as its connection, and holds no transaction open.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], shard: Shard, *, source_id: int
    ) -> None:
        self._connection = connection
        self._named = {
            "source_id": source_id,
            "slot_low": shard.slot_low,
            "slot_high": shard.slot_high,
        }
        self._shard = shard

    def fill(self, entries: Iterable[Entry]) -> int:
        """Store what a source lists, and return how many entries are the shard's own."""
        self._connection.execute(_statements("create_listing"))
        own = 0

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal own
            for entry in entries:
                own += self._shard.owns(entry.path)
                yield (
                    entry.path,
                    slot(entry.path),
                    entry.token,
                    entry.size_bytes,
                    entry.sidecar,
                    entry.problem,
                )

        copy_rows(self._connection, "listing", list(_LISTING), list(_LISTING.values()), rows())
        self._connection.execute(_statements("analyze_listing"))
        return own

    def to_read(
        self, recipe_id: int, conditions: bytes, *, everything: bool
    ) -> Iterator[Candidate]:
        """Yield what may have changed since it was last read, in the order of paths."""
        named = self._named | {
            "recipe_id": recipe_id,
            "conditions": conditions,
            "everything": everything,
        }
        self._connection.execute(_statements("create_to_read"))
        self._connection.execute(_statements("find_to_read"), named)
        after = 0
        while True:
            rows = self._connection.execute(
                _statements("read_page"), {"after": after, "limit": _PAGE}
            ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield from map(_candidate, rows)

    def absence(self) -> Absence:
        """Return what the shard had and the listing does not show."""
        rows = self._connection.execute(_statements("find_missing"), self._named).fetchall()
        live = self._connection.execute(_statements("count_live"), self._named).fetchone()
        assert live is not None
        return Absence(
            live=live[0],
            moved=tuple(id_ for id_, _, moved in rows if moved),
            unseen=tuple(id_ for id_, seen, moved in rows if not moved and not seen),
            lost=tuple(id_ for id_, seen, moved in rows if not moved and seen),
        )

    def welcome_back(self, lease: Lease) -> int:
        """Clear the marks of documents that are listed again, and return how many there were."""
        returned = self._connection.execute(_statements("count_returned"), self._named).fetchone()
        assert returned is not None
        if returned[0]:
            with self._connection.transaction():
                lease.guard(self._connection)
                self._connection.execute(_statements("welcome_back"), self._named)
        return int(returned[0])


def _candidate(row: tuple[Any, ...]) -> Candidate:
    _, path, slot_, token, size_bytes, sidecar, problem, document_id = row[:8]
    seen_hash, seen_recipe, live_hash, live_recipe, judge_again = row[8:]
    return Candidate(
        entry=Entry(path, token, size_bytes, sidecar, problem),
        slot=slot_,
        document_id=document_id,
        seen=None if seen_hash is None else State(seen_hash, seen_recipe),
        live=None if live_hash is None else State(live_hash, live_recipe),
        judge_again=judge_again,
    )
