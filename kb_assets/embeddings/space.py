"""Embedding spaces: one for each model, with a table of vectors of its own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from kb_assets.database.connect import Database
from kb_assets.database.names import SPACE_SCHEMA
from kb_assets.database.row_security import protect_vectors
from kb_assets.database.statements import Statements
from kb_assets.embeddings.embedder import Model
from kb_assets.errors import SettingsError
from kb_assets.fingerprints import Shard, settings_fingerprint

Precision = Literal["halfvec", "vector"]

_statements = Statements.beside(__file__)

_MOST_DIMENSIONS: Mapping[Precision, int] = {"halfvec": 4000, "vector": 2000}
"""What an HNSW index takes (pgvector's limits)."""

_BYTES: Mapping[Precision, int] = {"halfvec": 2, "vector": 4}

_INLINE_BYTES = 7900
"""A row beside which a page of 8 kB has no room for another still fits into the page."""


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space as the database has it.

    Attributes:
        id: Names its table.
        name: For people.
        model: What decides its vectors.
        precision: How its numbers are stored.
        state: `building` is filled and not read, `live` answers, `retired` is kept for a while.
    """

    id: int
    name: str
    model: Model
    precision: Precision
    state: Literal["building", "live", "retired"]

    @property
    def table(self) -> tuple[str, str]:
        """Schema and name of its table of vectors."""
        return SPACE_SCHEMA, f"embedding_{self.id}"

    @property
    def vector_type(self) -> sql.Composable:
        """The type of its vectors, with their dimension, for a statement."""
        return sql.SQL("{}({})").format(
            sql.Identifier(self.precision), sql.Literal(self.model.dimensions)
        )


@dataclass(frozen=True, slots=True)
class ShardSpace:
    """A space as one shard finds it.

    Attributes:
        space: The space.
        is_configured: Whether it is that of the settings' model.
        has_work: Whether documents or refused texts wait, or an earlier run left claims behind.
    """

    space: Space
    is_configured: bool
    has_work: bool


def space_fingerprint(model: Model, precision: Precision) -> bytes:
    """Return what a space is known by; where the model is served does not matter."""
    return settings_fingerprint(
        {
            "provider": model.provider,
            "model": model.name,
            "dimensions": model.dimensions,
            "precision": precision,
            "query_prefix": model.query_prefix,
            "document_prefix": model.document_prefix,
        }
    )


def space_name(model: Model, precision: Precision) -> str:
    """Return a name for people, which tells spaces apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{model.provider} {model.name}".lower()).strip("-")
    mark = space_fingerprint(model, precision).hex()[:6]
    return f"{slug}-{model.dimensions}-{mark}"


def find_space(database: Database, model: Model, precision: Precision) -> Space | None:
    """Return the space of a model, or None if there is none yet."""
    with database.transaction() as connection:
        row = connection.execute(
            _statements("find_space"), {"fingerprint": space_fingerprint(model, precision)}
        ).fetchone()
    return None if row is None else _space(row)


def spaces_for(
    database: Database, shard: Shard, model: Model, precision: Precision, conditions: bytes
) -> list[ShardSpace]:
    """Return the space that answers, and that of a model, if there are such.

    Args:
        database: Where to look.
        shard: Whose documents may wait.
        model: The one of the settings.
        precision: How its numbers are stored.
        conditions: Texts refused under others wait as well.
    """
    named = {
        "fingerprint": space_fingerprint(model, precision),
        "conditions": conditions,
        "source": shard.source,
        "slot_low": shard.slot_low,
        "slot_high": shard.slot_high,
    }
    with database.transaction() as connection:
        rows = connection.execute(_statements("find_work"), named).fetchall()
    return [ShardSpace(_space(row), row[10], row[11]) for row in rows]


def spaces_in(connection: psycopg.Connection[Any]) -> tuple[Space, ...]:
    """Return all spaces, oldest first, as a transaction sees them."""
    return tuple(_space(row) for row in connection.execute(_statements("list_spaces")))


def list_spaces(database: Database) -> tuple[Space, ...]:
    """Return all spaces, oldest first."""
    with database.transaction() as connection:
        return spaces_in(connection)


def live_space_in(connection: psycopg.Connection[Any]) -> Space | None:
    """Return the space that answers, as a transaction sees it; None before the first run."""
    return next((space for space in spaces_in(connection) if space.state == "live"), None)


def live_space(database: Database) -> Space | None:
    """Return the space that answers, or None before the first run."""
    with database.transaction() as connection:
        return live_space_in(connection)


def ensure_space(database: Database, model: Model, precision: Precision) -> Space:
    """Return the space of a model, made now if there is none.

    The first space of a knowledge base is live at once; a later one is building until it is
    promoted. A retired one is taken up again where it was left.

    Raises:
        SettingsError: No index could be built over vectors of that length.
    """
    if model.dimensions > _MOST_DIMENSIONS[precision]:
        raise SettingsError(
            f"{model.dimensions} dimensions are too many for {precision}.",
            why=f"pgvector indexes at most {_MOST_DIMENSIONS[precision]}.",
            fix="Set embedding.precision = 'halfvec', or ask the model for fewer dimensions.",
        )
    known = find_space(database, model, precision)
    if known is not None and known.state != "retired":
        return known
    with database.transaction() as connection:
        connection.execute(_statements("lock_spaces"))
        row = connection.execute(
            _statements("find_space"), {"fingerprint": space_fingerprint(model, precision)}
        ).fetchone()
        if row is not None:
            space = _space(row)
            connection.execute(_statements("revive_space"), {"space_id": space.id})
        else:
            _add_space(connection, model, precision)
    found = find_space(database, model, precision)
    assert found is not None
    return found


def _add_space(connection: psycopg.Connection[Any], model: Model, precision: Precision) -> None:
    row = connection.execute(
        _statements("add_space"),
        {
            "name": space_name(model, precision),
            "fingerprint": space_fingerprint(model, precision),
            "provider": model.provider,
            "model": model.name,
            "dimensions": model.dimensions,
            "precision": precision,
            "query_prefix": model.query_prefix,
            "document_prefix": model.document_prefix,
            "settings": Jsonb(model.settings),
        },
    ).fetchone()
    assert row is not None
    space = Space(row[0], space_name(model, precision), model, precision, row[1])
    connection.execute(
        _statements("create_vectors", embeddings=space.table, vector_type=space.vector_type)
    )
    if model.dimensions * _BYTES[precision] <= _INLINE_BYTES:
        connection.execute(_statements("keep_vectors_inline", embeddings=space.table))
    protect_vectors(connection.execute, ".".join(space.table))


def _space(row: tuple[Any, ...]) -> Space:
    model = Model(
        provider=row[2],
        name=row[3],
        dimensions=row[4],
        query_prefix=row[6],
        document_prefix=row[7],
        settings=row[8],
    )
    return Space(id=row[0], name=row[1], model=model, precision=row[5], state=row[9])
