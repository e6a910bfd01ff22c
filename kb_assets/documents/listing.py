"""A source's listing, laid beside the documents that are known: what is new, changed, or gone."""

import hashlib
import struct
import tempfile
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import IO, Any

import psycopg

from kb_assets.database.binary import NULL, field
from kb_assets.database.bulk import copy_encoded
from kb_assets.database.lease import Lease
from kb_assets.database.statements import Statements
from kb_assets.documents.moves import Moves
from kb_assets.documents.plan import Candidate, State
from kb_assets.documents.source import Entry
from kb_assets.fingerprints import Shard

_statements = Statements.beside(__file__)

MAX_MEMORY_BYTES = 64 * 1024 * 1024
"""Listings that take more are kept on disk: about 500,000 documents."""

_PAGE = 1000
_PIECE_BYTES = 1024 * 1024
_COLUMNS = ("path", "token", "own", "size_bytes", "sidecar", "problem")
_FIELDS = len(_COLUMNS).to_bytes(2, "big")
_LENGTH = struct.Struct("!i").pack
_OWN_AND_SIZE = struct.Struct("!i?iq").pack
_NEITHER = 2 * NULL


class Listed:
    """What a source lists, held as rows until it is known whether they are needed.

    A context manager.

    Attributes:
        found: How many entries are the shard's own.
        fingerprint: Of the shard's own entries, in their order; None if one of them has no
            version token, so that an equal listing does not mean that nothing changed.
    """

    def __init__(self, entries: Iterable[Entry], shard: Shard) -> None:
        """Take in a listing to its end."""
        self.found = 0
        self._rows: IO[bytes] = tempfile.SpooledTemporaryFile(MAX_MEMORY_BYTES)  # noqa: SIM115 (closed by __exit__)
        write, digest = self._rows.write, hashlib.sha256()
        all_have_tokens = True
        try:
            for entry in entries:
                own = shard.of == 1 or shard.owns(entry.path)
                row = row_of(entry, own)
                write(row)
                if own:
                    self.found += 1
                    digest.update(row)
                    all_have_tokens &= entry.token is not None
        except BaseException:
            self._rows.close()
            raise
        self.fingerprint = digest.digest() if all_have_tokens else None

    def rows(self) -> Iterator[bytes]:
        """Yield the rows of the table `listing`, in the binary format of COPY."""
        self._rows.seek(0)
        while piece := self._rows.read(_PIECE_BYTES):
            yield piece

    def __enter__(self) -> "Listed":
        return self

    def __exit__(self, *exception: object) -> None:
        self._rows.close()


def row_of(entry: Entry, own: bool) -> bytes:
    """Return an entry as a row of the table `listing`; fingerprints are of those, too.

    Args:
        entry: What the source lists.
        own: Whether it belongs to the shard that is being read.
    """
    path, token, size_bytes, sidecar, problem = entry
    raw = path.encode()
    version = NULL if token is None else field(token.encode())
    rest = _OWN_AND_SIZE(1, own, 8, size_bytes)
    if sidecar is None and problem is None:
        return b"".join((_FIELDS, _LENGTH(len(raw)), raw, version, rest, _NEITHER))
    texts = (NULL if text is None else field(text.encode()) for text in (sidecar, problem))
    return b"".join((_FIELDS, _LENGTH(len(raw)), raw, version, rest, *texts))


@dataclass(frozen=True, slots=True)
class Absence:
    """Documents a listing does not show.

    Attributes:
        live: How many documents of the shard readers see; counted if any is absent.
        moved: Absent, but their content stands under another path now.
        unseen: Absent, and never seen by readers.
        lost: The others: readers would lose them.
    """

    live: int
    moved: tuple[int, ...]
    unseen: tuple[int, ...]
    lost: tuple[int, ...]

    def without(self, found: AbstractSet[int]) -> "Absence":
        """Return what is absent but for documents that were found elsewhere."""
        return Absence(
            live=self.live,
            moved=tuple(id_ for id_ in self.moved if id_ not in found),
            unseen=tuple(id_ for id_ in self.unseen if id_ not in found),
            lost=tuple(id_ for id_ in self.lost if id_ not in found),
        )

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

    def fill(self, listed: Listed) -> None:
        """Store what a source lists."""
        self._connection.execute(_statements("create_listing"))
        copy_encoded(self._connection, "listing", _COLUMNS, listed.rows())
        self._connection.execute(_statements("analyze_listing"))

    def to_read(
        self, recipe_id: int, conditions: bytes, *, everything: bool
    ) -> Iterator[Candidate]:
        """Yield what may have changed since it was last read, in the order of paths."""
        named = self._named | {
            "recipe_id": recipe_id,
            "conditions": conditions,
            "everything": everything,
        }
        # Found once and held by the server, so that no transaction is open while documents are
        # parsed.
        with self._connection.cursor("to_read", withhold=True) as cursor:
            cursor.itersize = _PAGE
            yield from map(_candidate, cursor.execute(_statements("find_to_read"), named))

    def moves(self, recipe_id: int) -> Moves:
        """Return the documents of the shard that may turn up under another path."""

        def missing() -> Iterator[tuple[int, str, State]]:
            named = self._named | {"recipe_id": recipe_id}
            for id_, path, hash_ in self._connection.execute(_statements("find_movable"), named):
                yield id_, path, State(hash_, recipe_id)

        return Moves(missing())

    def absence(self) -> Absence:
        """Return what the shard had and the listing does not show."""
        rows = self._connection.execute(_statements("find_missing"), self._named).fetchall()
        if not rows:
            return Absence(live=0, moved=(), unseen=(), lost=())
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
    entry = Entry(*row[:5])
    document_id, seen_hash, seen_recipe, live_hash, live_recipe, judge_again = row[5:]
    return Candidate(
        entry=entry,
        document_id=document_id,
        seen=None if seen_hash is None else State(seen_hash, seen_recipe),
        live=None if live_hash is None else State(live_hash, live_recipe),
        judge_again=judge_again,
    )
