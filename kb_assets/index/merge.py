"""Merging postings: few rows for each term, and nothing of what is gone.

New rows are merged with one another now and then, and with the rest when they or the dead have
become a good part of it. Readers notice nothing; publishers wait.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy
import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.index.analysis import Integers
from kb_assets.index.lexical import copy_documents, copy_postings
from kb_assets.index.postings import Posting, merged
from kb_assets.index.publish import lock_publishing

MOST_GENERATIONS = 16
"""So many publishes may leave rows of their own before they are merged with one another."""

LARGEST_TAIL = 0.25
"""When the chunks since the last full merge are more than this share of all, all are merged."""

MOST_DEAD = 0.2
"""When this share of all chunks is dead, all are merged and the dead dropped."""

_ROWS_AT_ONCE = 2000

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class _State:
    source_id: int
    chunks: int
    dead: int
    next_ordinal: int
    generation: int
    merged_generation: int
    base_generation: int
    base_ordinal: int

    @property
    def needs_full(self) -> bool:
        tail = self.next_ordinal - self.base_ordinal
        return self.dead > MOST_DEAD * (self.chunks + self.dead) or (
            self.has_many and tail > LARGEST_TAIL * self.next_ordinal
        )

    @property
    def has_many(self) -> bool:
        return self.generation - self.merged_generation > MOST_GENERATIONS


def merge_postings(database: Database) -> int:
    """Merge the postings of every source that needs it, and return how many did."""
    done = 0
    for source_id in [state.source_id for state in _states(database) if _is_due(state)]:
        with database.transaction() as connection:
            lock_publishing(connection)
            state = next((one for one in _read(connection) if one.source_id == source_id), None)
            if state is not None and _is_due(state):
                _merge(connection, state, full=state.needs_full)
                done += 1
    return done


def drop_dead_postings(database: Database, source_id: int) -> None:
    """Merge all postings of a source, so that nothing is left of what is dead."""
    with database.transaction() as connection:
        lock_publishing(connection)
        for state in _read(connection):
            if state.source_id == source_id and state.dead:
                _merge(connection, state, full=True)


def _is_due(state: _State) -> bool:
    return state.needs_full or state.has_many


def _states(database: Database) -> list[_State]:
    with database.transaction() as connection:
        return _read(connection)


def _read(connection: psycopg.Connection[Any]) -> list[_State]:
    return [_State(*row) for row in connection.execute(_statements("lexical_states"))]


def _merge(connection: psycopg.Connection[Any], state: _State, *, full: bool) -> None:
    after = 0 if full else state.base_generation
    new_ordinals = _renumber(connection, state) if full else None
    generation = state.generation + 1
    named = {"source_id": state.source_id, "after": after, "generation": generation}
    with connection.cursor(name="postings") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(_statements("postings_after"), named)
        rows = merged((Posting(*row) for row in cursor), new_ordinals)
        for batch in _batches(rows):
            copy_postings(connection, state.source_id, generation, batch)
    connection.execute(_statements("delete_merged"), named)
    live = int((new_ordinals >= 0).sum()) if new_ordinals is not None else state.next_ordinal
    connection.execute(
        _statements("note_merge"),
        {
            "source_id": state.source_id,
            "generation": generation,
            "next_ordinal": live,
            "full": full,
        },
    )


def _renumber(connection: psycopg.Connection[Any], state: _State) -> Integers:
    """Give live chunks ordinals without gaps; return the new one of each, -1 for the dead."""
    rows = connection.execute(
        _statements("take_lexical_documents"), {"source_id": state.source_id}
    ).fetchall()
    alive = [row for row in rows if not row[4]]
    alive.sort()
    new_ordinals = numpy.full(state.next_ordinal, -1, dtype=numpy.int64)
    moved = []
    following = 0
    for first, chunks, tokens, revision_id, _ in alive:
        new_ordinals[first : first + chunks] = numpy.arange(following, following + chunks)
        moved.append((state.source_id, following, chunks, tokens, revision_id))
        following += chunks
    copy_documents(connection, moved)
    return new_ordinals


def _batches(rows: Iterator[Posting]) -> Iterator[list[Posting]]:
    batch: list[Posting] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS_AT_ONCE:
            yield batch
            batch = []
    yield batch
