"""What can be asserted of a knowledge base, counted: soundness of vectors, texts without any."""

import secrets
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import Composed

from kb_assets.database.connect import Database
from kb_assets.database.lease import SHARD_LOCK_CLASS
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import Space, live_space, live_space_in, spaces_in
from kb_assets.fingerprints import Shard
from kb_assets.index.vectors import index_states, is_fit

SAMPLE = 500
"""How many vectors a look at a space takes; hashes are random, so any stretch of them is fair."""

SELF_SAMPLE = 20
"""How many vectors are searched for by themselves."""

NEIGHBOURS = 10
"""How many neighbours are compared for each vector that is searched for."""

RECALL_SAMPLE = 50
"""How many vectors are searched for, exactly and through the index."""

_LEAST_RECALL_SAMPLE = 10
_MOST_DISTANCES = 2_000_000
"""An exact search computes a distance to every vector: of a large space fewer are asked for."""

_CANDIDATES = 100
"""How many neighbours the index keeps in view, as when readers search."""

_SAME_DISTANCE = 1e-6

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class TextCoverage:
    """How many of a shard's live texts can be found by meaning.

    Attributes:
        texts: Distinct texts readers see.
        missing: Those of them with neither a vector in the live space nor a reason.
    """

    texts: int
    missing: int


@dataclass(frozen=True, slots=True)
class Soundness:
    """How many vectors were looked at, and how many of them no search could use.

    Attributes:
        waiting: Vectors of texts that the next publish makes live.
        waiting_unsound: Those of them that are zero, not finite or of a wrong length.
        stored: Vectors drawn at random from the space.
        stored_unsound: Those of them that are unsound.
    """

    waiting: int
    waiting_unsound: int
    stored: int
    stored_unsound: int


@dataclass(frozen=True, slots=True)
class IndexHealth:
    """Whether the live space's index can be used, and finds what is in it.

    Attributes:
        space: The space's name.
        vectors: Whether it has any; without, it needs no index.
        usable: Whether the index is complete, and for the right distance.
        asked: Stored vectors that were searched for.
        found: Those that were found as their own nearest.
    """

    space: str
    vectors: bool
    usable: bool
    asked: int
    found: int


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """How much of what is nearest the live space's index finds.

    Attributes:
        space: The space's name.
        vectors: How many it has.
        asked: Stored vectors that were searched for; none if there is nothing to compare.
        recall: The share of their ten nearest that the index found.
    """

    space: str
    vectors: int
    asked: int
    recall: float


def busy_shards(database: Database, shards: tuple[Shard, ...]) -> frozenset[Shard]:
    """Return those shards that share slots with one a run is working on."""
    with database.transaction() as connection:
        rows = connection.execute(
            _statements("find_busy_shards"), {"lock_class": SHARD_LOCK_CLASS}
        ).fetchall()
    return frozenset(
        shard
        for shard in shards
        for source, low, high in rows
        if shard.source == source and low < shard.slot_high and high > shard.slot_low
    )


def text_coverage(database: Database, shard: Shard) -> TextCoverage:
    """Return how many of a shard's live texts have vectors in the live space."""
    with database.transaction() as connection:
        space = live_space_in(connection)
        named = _slots(connection, shard)
        if space is None or named is None:
            return TextCoverage(0, 0)
        row = connection.execute(
            _statements("count_shard_texts_without_vectors", embeddings=space.table),
            named | {"space_id": space.id},
        ).fetchone()
    assert row is not None
    return TextCoverage(*row)


def unfilled_spaces(database: Database, shards: tuple[Shard, ...]) -> dict[str, int]:
    """Return each space that is being built, and how many live texts of the shards it lacks."""
    missing: dict[str, int] = {}
    with database.transaction() as connection:
        for space in spaces_in(connection):
            if space.state != "building":
                continue
            missing[space.name] = 0
            for shard in shards:
                named = _slots(connection, shard)
                if named is not None:
                    row = connection.execute(
                        _statements("count_shard_texts_without_vectors", embeddings=space.table),
                        named | {"space_id": space.id},
                    ).fetchone()
                    missing[space.name] += row[1] if row else 0
    return missing


def soundness(database: Database, shards: tuple[Shard, ...]) -> Soundness:
    """Look at vectors of the live space: those these shards would publish, and some of the rest."""
    waiting = waiting_unsound = stored = stored_unsound = 0
    with database.transaction() as connection:
        space = live_space_in(connection)
        if space is None:
            return Soundness(0, 0, 0, 0)
        wanted = {"dimensions": space.model.dimensions, "limit": SAMPLE}
        for shard in shards:
            named = _slots(connection, shard)
            if named is not None:
                query = _statements("find_unsound_waiting", embeddings=space.table)
                seen, bad = _pair(connection, query, named | wanted)
                waiting, waiting_unsound = waiting + seen, waiting_unsound + bad
        query = _statements("find_unsound", embeddings=space.table)
        for start in _starts():
            seen, bad = _pair(connection, query, wanted | {"start": start})
            stored, stored_unsound = stored + seen, stored_unsound + bad
            wanted["limit"] -= seen
    return Soundness(waiting, waiting_unsound, stored, stored_unsound)


def index_health(database: Database) -> IndexHealth | None:
    """Look at the live space's index, and search through it for vectors it must find."""
    space = live_space(database)
    if space is None:
        return None
    asked = found = 0
    with database.transaction() as connection:
        usable = is_fit(space, index_states(connection, space))
        some = connection.execute(_statements("count_vectors", embeddings=space.table)).fetchone()
        has_vectors = bool(some and some[0])
        if usable and has_vectors:
            asked, found = _search_for_some(connection, space)
    return IndexHealth(space.name, has_vectors, usable, asked, found)


def index_recall(database: Database) -> IndexRecall | None:
    """Search the live space for some of its vectors, exactly and through its index."""
    space = live_space(database)
    if space is None:
        return None
    with database.transaction() as connection:
        row = connection.execute(_statements("count_vectors", embeddings=space.table)).fetchone()
        vectors = int(row[0]) if row else 0
        if vectors < NEIGHBOURS or not is_fit(space, index_states(connection, space)):
            return IndexRecall(space.name, vectors, 0, 1.0)
        hashes = _some_hashes(connection, space, vectors)
    exact = _nearest(database, space, hashes, through_index=False)
    found = _nearest(database, space, hashes, through_index=True)
    near = sum(
        distance <= exact[hash_][-1] + _SAME_DISTANCE
        for hash_, distances in found.items()
        for distance in distances
    )
    return IndexRecall(space.name, vectors, len(exact), near / sum(map(len, exact.values())))


def _some_hashes(connection: psycopg.Connection[Any], space: Space, vectors: int) -> list[bytes]:
    wanted = min(RECALL_SAMPLE, max(_LEAST_RECALL_SAMPLE, _MOST_DISTANCES // vectors))
    query = _statements("sample_hashes", embeddings=space.table)
    hashes: dict[bytes, None] = {}
    for start in _starts():
        rows = connection.execute(query, {"start": start, "limit": wanted - len(hashes)})
        hashes |= dict.fromkeys(hash_ for (hash_,) in rows)
    return list(hashes)


def _nearest(
    database: Database, space: Space, hashes: list[bytes], *, through_index: bool
) -> dict[bytes, list[float]]:
    """Return how far the nearest vectors are from each, nearest first."""
    query = _statements("distances_to_neighbours", embeddings=space.table)
    with database.transaction() as connection:
        if through_index:
            connection.execute(_statements("let_only_the_index_answer"))
            named = {"candidates": str(_CANDIDATES)}
            connection.execute(_statements("search_as_readers_do"), named)
        else:
            connection.execute(_statements("let_no_index_answer"))
        rows = connection.execute(query, {"hashes": hashes, "neighbours": NEIGHBOURS})
        return dict(rows.fetchall())


def _search_for_some(connection: psycopg.Connection[Any], space: Space) -> tuple[int, int]:
    connection.execute(_statements("let_only_the_index_answer"))
    query = _statements("find_themselves", embeddings=space.table)
    asked = found = 0
    for start in _starts():
        named = {"start": start, "limit": SELF_SAMPLE - asked}
        seen, same = _pair(connection, query, named)
        asked, found = asked + seen, found + same
    return asked, found


def _starts() -> tuple[bytes, bytes]:
    """Return where to draw from: a random hash, then the first, if there were too few after it."""
    return secrets.token_bytes(32), b""


def _pair(
    connection: psycopg.Connection[Any],
    query: Composed,
    named: dict[str, Any],
) -> tuple[int, int]:
    row = connection.execute(query, named).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _slots(connection: psycopg.Connection[Any], shard: Shard) -> dict[str, Any] | None:
    row = connection.execute(_statements("source_id"), {"name": shard.source}).fetchone()
    if row is None:
        return None
    return {"source_id": row[0], "slot_low": shard.slot_low, "slot_high": shard.slot_high}
