"""Which embedding space answers: promoting one that was built, dropping one that is retired."""

from dataclasses import dataclass

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.embeddings.space import Space, list_spaces
from kb_assets.errors import NotFoundError, SpaceError
from kb_assets.index.publish import lock_publishing
from kb_assets.index.vectors import index_states, is_fit

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


def promote_space(database: Database, name: str, *, force: bool = False) -> Space:
    """Let a space answer from now on; the one that answered is retired.

    Under the publish lock, so that no document is published into the old space meanwhile.

    Args:
        database: Where the spaces are.
        name: The space's name or number.
        force: Promote it even though texts are missing; their documents would not be found.

    Raises:
        NotFoundError: There is no such space.
        SpaceError: Texts that readers see now have no vectors in it, or it has no index.
    """
    space = find_space(database, name)
    if space.state == "live":
        return space
    with database.transaction() as connection:
        lock_publishing(connection)
        missing = connection.execute(
            _statements("count_texts_without_vectors", embeddings=space.table),
            {"space_id": space.id},
        ).fetchone()
        if not force and missing and missing[0]:
            raise SpaceError(
                f"The space {space.name} is not complete.",
                why=f"{missing[0]} texts that readers see now have no vector in it.",
                fix="Run `kb index` until it has them, or promote it with --force.",
            )
        if not force and not is_fit(space, index_states(connection, space)):
            raise SpaceError(
                f"The space {space.name} has no usable vector index.",
                why="Searches would be exact, and slow.",
                fix="Run `kb index`, which builds it, or promote it with --force.",
            )
        connection.execute(_statements("retire_live_space"), {"space_id": space.id})
        connection.execute(_statements("promote_space"), {"space_id": space.id})
    return find_space(database, str(space.id))


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
