"""Which embedding space answers: promoting one that was built, dropping one that is retired."""

from dataclasses import dataclass
from typing import Any

import psycopg

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import Space, list_spaces, spaces_in
from kb_assets.errors import NotFoundError, SpaceError
from kb_assets.index.publish import lock_publishing
from kb_assets.index.quality import failure_in
from kb_assets.index.vectors import index_name, index_states, is_fit

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class SpaceReport:
    """A space and how far it is.

    Attributes:
        space: The space.
        vectors: How many vectors it has.
        missing: How many texts that readers see now it could not answer with.
        indexed: Whether its index can be used.
    """

    space: Space
    vectors: int
    missing: int
    indexed: bool


@dataclass(frozen=True, slots=True)
class SpaceFigures:
    """What a space takes, and what filling it took.

    Attributes:
        vectors: How many it has.
        table_bytes: Their size.
        index_bytes: The size of its index.
        tokens: What its provider counted.
        cost_usd: What that cost.
    """

    vectors: int
    table_bytes: int
    index_bytes: int
    tokens: int
    cost_usd: float


def describe_spaces(database: Database) -> tuple[SpaceReport, ...]:
    """Return every space, oldest first, and how far it is."""
    reports = []
    for space in list_spaces(database):
        with database.transaction() as connection:
            vectors = connection.execute(
                _statements("count_vectors", embeddings=space.table)
            ).fetchone()
            missing = connection.execute(
                _statements("count_texts_without_vectors", embeddings=space.table),
                {"space_id": space.id},
            ).fetchone()
            indexed = is_fit(space, index_states(connection, space))
        assert vectors is not None
        assert missing is not None
        reports.append(SpaceReport(space, vectors[0], missing[0], indexed))
    return tuple(reports)


def find_space(database: Database, name: str) -> Space:
    """Return a space by its name or its number.

    Raises:
        NotFoundError: There is none.
    """
    spaces = list_spaces(database)
    for space in spaces:
        if name in (space.name, str(space.id)):
            return space
    known = ", ".join(space.name for space in spaces) or "none"
    raise NotFoundError(f"There is no space {name!r}.", why=f"There are: {known}.")


def space_figures(database: Database, space: Space) -> SpaceFigures:
    """Return what a space takes, and what filling it took."""
    named = {
        "table": ".".join(space.table),
        "index": f"{space.table[0]}.{index_name(space)}",
        "space_id": space.id,
    }
    with database.transaction() as connection:
        vectors = connection.execute(_statements("count_vectors", embeddings=space.table))
        size = connection.execute(_statements("space_bytes"), named)
        cost = connection.execute(_statements("space_cost"), named)
        (count,), sizes, costs = vectors.fetchone() or (0,), size.fetchone(), cost.fetchone()
    assert sizes is not None
    assert costs is not None
    return SpaceFigures(count, *sizes, *costs)


def require_promotable(database: Database, name: str) -> Space:
    """Return a space that may be promoted as far as it can be said without asking it anything.

    Raises:
        NotFoundError: There is no such space.
        SpaceError: It is not complete, has no index, or the last evaluation failed.
    """
    space = find_space(database, name)
    if space.state != "live":
        with database.transaction() as connection:
            _require_complete(connection, space)
            _require_quality(connection, space)
    return space


def promote_space(database: Database, name: str, *, force: bool = False) -> Space:
    """Let a space answer from now on; the one that answered is retired.

    Under the publish lock, so that no document is published into the old space meanwhile.

    Args:
        database: Where the spaces are.
        name: The space's name or number.
        force: Promote it whatever is said against it; documents that miss texts in it would
            not be found.

    Raises:
        NotFoundError: There is no such space.
        SpaceError: Texts that readers see now have no vectors in it, or it has no index; or the
            last evaluation failed.
    """
    space = find_space(database, name)
    if space.state == "live":
        return space
    with database.transaction() as connection:
        lock_publishing(connection)
        if not force:
            _require_complete(connection, space)
            _require_quality(connection, space)
        _promote(connection, space)
    return find_space(database, str(space.id))


def rollback_space(database: Database) -> Space:
    """Let the space answer again that was live before; whatever the last evaluation says.

    Raises:
        NotFoundError: No other space was ever live.
        SpaceError: It is not complete any more, or has no index.
    """
    with database.transaction() as connection:
        lock_publishing(connection)
        row = connection.execute(_statements("find_former_space")).fetchone()
        if row is None:
            raise NotFoundError(
                "There is no space to go back to.", why="No retired space ever answered."
            )
        space = next(one for one in spaces_in(connection) if one.id == row[0])
        _require_complete(connection, space)
        _promote(connection, space)
    return find_space(database, str(space.id))


def _require_complete(connection: psycopg.Connection[Any], space: Space) -> None:
    missing = connection.execute(
        _statements("count_texts_without_vectors", embeddings=space.table),
        {"space_id": space.id},
    ).fetchone()
    if missing and missing[0]:
        raise SpaceError(
            f"The space {space.name} is not complete.",
            why=f"{missing[0]} texts that readers see now have no vector in it.",
            fix="Run `kb index` with its model in kb.toml until it has them, or promote it with "
            "--force.",
        )
    if not is_fit(space, index_states(connection, space)):
        raise SpaceError(
            f"The space {space.name} has no usable vector index.",
            why="Searches would be exact, and slow.",
            fix="Run `kb index`, which builds it, or promote it with --force.",
        )


def _require_quality(connection: psycopg.Connection[Any], space: Space) -> None:
    failure = failure_in(connection)
    if failure:
        raise SpaceError(
            f"The space {space.name} is not promoted while retrieval fails.",
            why=failure,
            fix="Mend that and run `kb eval` until it holds; or, if this space is what mends it, "
            "promote it with --force.",
        )


def _promote(connection: psycopg.Connection[Any], space: Space) -> None:
    connection.execute(_statements("retire_live_space"), {"space_id": space.id})
    connection.execute(_statements("promote_space"), {"space_id": space.id})


def drop_space(database: Database, name: str) -> Space:
    """Delete a space that does not answer, with all its vectors.

    Raises:
        NotFoundError: There is no such space.
        SpaceError: It is the one that answers.
    """
    space = find_space(database, name)
    with database.transaction() as connection:
        lock_publishing(connection)
        deleted = connection.execute(_statements("delete_space"), {"space_id": space.id})
        if not deleted.rowcount:
            raise SpaceError(
                f"The space {space.name} is live.",
                why="Searches are answered from it.",
                fix="Promote another one first.",
            )
        connection.execute(_statements("drop_vectors", embeddings=space.table))
    return space
