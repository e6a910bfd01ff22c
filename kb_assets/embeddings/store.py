"""Vectors in PostgreSQL: stored once for each text, claimed before they are paid for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg.errors import UniqueViolation

from kb_assets.database.bulk import copy_encoded
from kb_assets.database.connect import Database, unavailable_when_lost
from kb_assets.database.lease import SHARD_LOCK_CLASS, Lease
from kb_assets.database.statements import Statements
from kb_assets.documents.normalise import normalise
from kb_assets.embeddings.embedder import Vectors
from kb_assets.embeddings.encoding import Hashes, bind_hashes, vector_rows
from kb_assets.embeddings.request import Text
from kb_assets.embeddings.space import Space
from kb_assets.errors import TextRefusedError
from kb_assets.fingerprints import input_text

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked of a provider.

    Attributes:
        texts: How many texts were sent.
        tokens: What the provider counted.
        cost_usd: What that costs.
        seconds: How long the answer took.
        outcome: What became of it.
    """

    texts: int
    tokens: int
    cost_usd: float
    seconds: float
    outcome: Literal["answered", "refused", "failed"]


class WantedTexts:
    """The distinct texts of a shard that a space has no vectors for.

    They stand in a temporary table, so that their number takes no memory here and no
    transaction stays open while a provider thinks.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], lease: Lease, space: Space, conditions: bytes
    ) -> None:
        self._connection = connection
        self._space = space
        self._named: dict[str, Any] = {
            "source_id": lease.source_id,
            "slot_low": lease.shard.slot_low,
            "slot_high": lease.shard.slot_high,
            "space_id": space.id,
            "conditions": conditions,
        }

    def find(self, *, everything: bool) -> tuple[int, int]:
        """Find them; return how many distinct texts wait in the shard, and how many are wanted.

        Texts that were refused under other conditions are wanted again.

        Args:
            everything: Also look at what is published already.
        """
        self._connection.execute(_statements("create_wanted"))
        row = self._connection.execute(
            _statements("find_wanted", embeddings=self._space.table),
            self._named | {"everything": everything},
        ).fetchone()
        assert row is not None
        waiting, wanted, some_refused = row
        if some_refused:
            wanted += self._connection.execute(
                _statements("find_refused", embeddings=self._space.table),
                {"space_id": self._space.id, "conditions": self._named["conditions"]},
            ).rowcount
        return waiting, wanted

    def count_tokens(self) -> int:
        """Return about how many tokens they have together."""
        row = self._connection.execute(_statements("count_tokens")).fetchone()
        assert row is not None
        return int(row[0])

    def windows(self, first: int, most: int) -> Iterator[list[Text]]:
        """Yield them in the order of their documents, more and more at a time.

        Args:
            first: How many come first, at most, so that requests begin soon.
            most: How many come at once at most.
        """
        after, limit = 0, first
        cursor = self._connection.cursor(binary=True)
        while True:
            named = {"after": after, "limit": limit}
            # Requests are open meanwhile: a loss must be told as one, so that they are kept.
            with unavailable_when_lost():
                rows = cursor.execute(_statements("read_wanted"), named).fetchall()
            if rows:
                yield [
                    Text(hash_, input_text(title, path, text), tokens)
                    for _, hash_, title, path, text, tokens in rows
                ]
            if len(rows) < limit:
                return
            after, limit = rows[-1][0], min(2 * limit, most)


class VectorStore:
    """Writes vectors of one space for one shard, under its lease."""

    def __init__(self, database: Database, lease: Lease, space: Space, conditions: bytes) -> None:
        self._database = database
        self._lease = lease
        self._space = space
        self._conditions = conditions
        self._claimant = {
            "space_id": space.id,
            "shard_id": lease.shard_id,
            "fence": lease.fence,
        }

    def claim(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Claim texts, and return those that are ours to pay for."""
        named = self._claimant | {"hashes": Hashes(hashes)}
        with self._transaction() as connection:
            claimed = connection.execute(_statements("claim"), named).rowcount
            ours = set(hashes)
            if claimed < len(ours):
                connection.execute(
                    _statements("take_over_claims"), named | {"lock_class": SHARD_LOCK_CLASS}
                )
                rows = connection.execute(_statements("find_claimed"), named).fetchall()
                ours = {hash_ for (hash_,) in rows}
            # Whoever had claimed them before stored vectors first and let go then: a statement
            # that begins after the claim is made sees them.
            answered = ours & self._answered(connection, hashes)
            if answered:
                named["hashes"] = Hashes(sorted(answered))
                connection.execute(_statements("release_claims"), named)
        return ours - answered

    def answered_elsewhere(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Return those texts that need no vector from us any more."""
        with self._database.transaction() as connection:
            bind_hashes(connection)
            return self._answered(connection, hashes)

    def add(self, hashes: Sequence[bytes], vectors: Vectors, *calls: Call) -> None:
        """Store what a provider answered, and write down what it cost.

        The claims stay until the stage ends: who wants a text looks for its vector first.

        Args:
            hashes: One for each row of `vectors`.
            vectors: Shape (texts, dimensions).
            calls: What each request took.
        """
        # In one order, so that two who store the same texts wait for each other in a row.
        order = sorted(range(len(hashes)), key=hashes.__getitem__)
        hashes, vectors = [hashes[at] for at in order], vectors[order]
        try:
            self._add(hashes, vectors, calls, some_exist=False)
        except UniqueViolation:
            self._add(hashes, vectors, calls, some_exist=True)

    def _add(
        self, hashes: Sequence[bytes], vectors: Vectors, calls: Sequence[Call], *, some_exist: bool
    ) -> None:
        space, columns = self._space, ("input_hash", "vector")
        rows = vector_rows(hashes, vectors, space.precision)
        with self._transaction() as connection:
            some_refused = self._record(connection, calls)
            if some_exist:
                connection.execute(_statements("create_incoming", vector_type=space.vector_type))
                copy_encoded(connection, "incoming", columns, rows)
                connection.execute(_statements("add_vectors", embeddings=space.table))
            elif hashes:
                copy_encoded(connection, space.table, columns, rows)
            if some_refused:
                connection.execute(
                    _statements("release_from_quarantine"),
                    {"space_id": space.id, "hashes": Hashes(hashes)},
                )

    def refuse(self, refused: Sequence[tuple[bytes, TextRefusedError]]) -> None:
        """Quarantine texts that have no usable vector, and release their claims."""
        hashes = Hashes([hash_ for hash_, _ in refused])
        with self._transaction() as connection:
            self._record(connection, [Call(1, 0, 0.0, 0.0, "refused") for _ in refused])
            connection.execute(
                _statements("quarantine_texts"),
                {
                    "space_id": self._space.id,
                    "conditions": self._conditions,
                    "hashes": hashes,
                    "reasons": [error.reason for _, error in refused],
                    "details": [normalise(str(error)) for _, error in refused],
                },
            )
            connection.execute(_statements("release_claims"), self._claimant | {"hashes": hashes})

    def record(self, call: Call) -> None:
        """Write a call down that brought nothing."""
        with self._database.transaction() as connection:
            self._record(connection, [call])

    def spent_usd(self) -> float:
        """Return what the run has spent so far, over all its shards."""
        with self._database.transaction() as connection:
            row = connection.execute(
                _statements("spent_by_run"), {"run_id": self._lease.run_id}
            ).fetchone()
        assert row is not None
        return float(row[0])

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Begin a transaction under the lease."""
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            bind_hashes(connection)
            yield connection

    def _answered(self, connection: psycopg.Connection[Any], hashes: Sequence[bytes]) -> set[bytes]:
        rows = connection.execute(
            _statements("find_answered", embeddings=self._space.table),
            {
                "space_id": self._space.id,
                "hashes": Hashes(hashes),
                "conditions": self._conditions,
            },
        ).fetchall()
        return {hash_ for (hash_,) in rows}

    def _record(self, connection: psycopg.Connection[Any], calls: Sequence[Call]) -> bool:
        """Write calls down, and return whether any text of the space is in quarantine."""
        row = connection.execute(
            _statements("record_calls"),
            {
                "run_id": self._lease.run_id,
                "space_id": self._space.id,
                "source_id": self._lease.source_id,
                "texts": [call.texts for call in calls],
                "tokens": [call.tokens for call in calls],
                "costs_usd": [call.cost_usd for call in calls],
                "seconds": [call.seconds for call in calls],
                "outcomes": [call.outcome for call in calls],
            },
        ).fetchone()
        assert row is not None
        return bool(row[0])


def release_claims(database: Database, lease: Lease) -> None:
    """Give up all claims of a shard, those of its earlier runs too, in every space."""
    with database.transaction() as connection:
        connection.execute(
            _statements("release_all_claims"),
            {"shard_id": lease.shard_id, "fence": lease.fence},
        )
