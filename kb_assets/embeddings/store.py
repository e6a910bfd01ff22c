"""Vectors in PostgreSQL: stored once for each text, claimed before they are paid for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from kb_assets.database.bulk import copy_rows
from kb_assets.database.connect import Database
from kb_assets.database.lease import SHARD_LOCK_CLASS, Lease
from kb_assets.database.statements import Statements
from kb_assets.documents.normalise import normalise
from kb_assets.embeddings.embedder import Vectors
from kb_assets.embeddings.space import Space
from kb_assets.errors import TextRefusedError
from kb_assets.fingerprints import input_text

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class WantedText:
    """A text that has no vector in a space.

    Attributes:
        number: Its place among the wanted ones.
        input_hash: The key of its vector.
        text: What is embedded.
        tokens: About how many tokens it has.
    """

    number: int
    input_hash: bytes
    text: str
    tokens: int


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
        self._conditions = conditions
        self._named: dict[str, Any] = {
            "source_id": lease.source_id,
            "slot_low": lease.shard.slot_low,
            "slot_high": lease.shard.slot_high,
            "space_id": space.id,
        }

    def find(self, *, everything: bool) -> tuple[int, int]:
        """Find them, and return how many texts and tokens they are.

        Texts that were refused under other conditions are wanted again.

        Args:
            everything: Also look at what is published already.
        """
        under = {"conditions": self._conditions}
        self._connection.execute(_statements("drop_wanted"))
        self._connection.execute(_statements("create_wanted"))
        self._connection.execute(
            _statements("find_wanted", embeddings=self._space.table),
            self._named | under | {"everything": everything},
        )
        self._connection.execute(
            _statements("find_refused", embeddings=self._space.table),
            {"space_id": self._space.id} | under,
        )
        row = self._connection.execute(_statements("count_wanted")).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def count_all(self) -> int:
        """Return how many distinct texts wait in the shard, had or wanted."""
        row = self._connection.execute(_statements("count_texts"), self._named).fetchone()
        assert row is not None
        return int(row[0])

    def windows(self, size: int) -> Iterator[list[WantedText]]:
        """Yield them in the order of their documents, at most `size` at a time."""
        after = 0
        while True:
            rows = self._connection.execute(
                _statements("read_wanted"), {"after": after, "limit": size}
            ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield [
                WantedText(number, hash_, input_text(title, path, text), tokens)
                for number, hash_, title, path, text, tokens in rows
            ]


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

    def drop_void_claims(self) -> None:
        """Forget claims of the shard's runs that are over."""
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            connection.execute(
                _statements("drop_void_claims"),
                {"shard_id": self._lease.shard_id, "fence": self._lease.fence},
            )

    def claim(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Claim texts, and return those that are ours to pay for."""
        named = self._claimant | {"conditions": self._conditions}
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            rows = connection.execute(
                _statements("claim", embeddings=self._space.table),
                named | {"hashes": list(hashes), "lock_class": SHARD_LOCK_CLASS},
            ).fetchall()
            claimed = [hash_ for (hash_,) in rows]
            answered = connection.execute(
                _statements("drop_answered_claims", embeddings=self._space.table),
                named | {"hashes": claimed},
            ).fetchall()
        return set(claimed) - {hash_ for (hash_,) in answered}

    def answered_elsewhere(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Return those texts that need no vector from us any more."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                _statements("answered_elsewhere", embeddings=self._space.table),
                {
                    "space_id": self._space.id,
                    "hashes": list(hashes),
                    "conditions": self._conditions,
                },
            ).fetchall()
        return {hash_ for (hash_,) in rows}

    def release(self, hashes: Sequence[bytes]) -> None:
        """Give claims up."""
        with self._database.transaction() as connection:
            connection.execute(
                _statements("release_claims"), self._claimant | {"hashes": list(hashes)}
            )

    def add(self, hashes: Sequence[bytes], vectors: Vectors, call: Call) -> None:
        """Store what a provider answered, release the claims, and write down the cost.

        Args:
            hashes: One for each row of `vectors`.
            vectors: Shape (texts, dimensions).
            call: What it took.
        """
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            self._record(connection, call)
            connection.execute(_statements("create_incoming", vector_type=self._space.vector_type))
            copy_rows(
                connection,
                "incoming",
                ["input_hash", "vector"],
                ["bytea", self._space.precision],
                zip(hashes, vectors, strict=True),
            )
            connection.execute(_statements("add_vectors", embeddings=self._space.table))
            connection.execute(
                _statements("release_from_quarantine"),
                {"space_id": self._space.id, "hashes": list(hashes)},
            )
            connection.execute(
                _statements("release_claims"), self._claimant | {"hashes": list(hashes)}
            )

    def refuse(self, refused: Sequence[tuple[bytes, TextRefusedError]]) -> None:
        """Quarantine texts that have no usable vector."""
        hashes = [hash_ for hash_, _ in refused]
        with self._database.transaction() as connection:
            self._lease.guard(connection)
            self._record(connection, Call(len(hashes), 0, 0.0, 0.0, "refused"))
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
            self._record(connection, call)

    def spent_usd(self) -> float:
        """Return what the run has spent so far, over all its shards."""
        with self._database.transaction() as connection:
            row = connection.execute(
                _statements("spent_by_run"), {"run_id": self._lease.run_id}
            ).fetchone()
        assert row is not None
        return float(row[0])

    def _record(self, connection: psycopg.Connection[Any], call: Call) -> None:
        connection.execute(
            _statements("record_call"),
            {
                "run_id": self._lease.run_id,
                "space_id": self._space.id,
                "source_id": self._lease.source_id,
                "texts": call.texts,
                "tokens": call.tokens,
                "cost_usd": call.cost_usd,
                "seconds": call.seconds,
                "outcome": call.outcome,
            },
        )
