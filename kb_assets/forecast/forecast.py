"""What a run would do: read, split and counted as a run would, with nothing stored or asked for."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg

from kb_assets.chunks.plan import SplitJob, chunk_revision, recipe_of, split_settings
from kb_assets.chunks.tokens import count_tokens
from kb_assets.database.bulk import copy_rows
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.documents.batch import Batch
from kb_assets.documents.listing import Listed, Listing
from kb_assets.documents.open import open_source
from kb_assets.documents.reading import Reader
from kb_assets.documents.stage import read_conditions
from kb_assets.documents.store import find_recipe, find_source, find_state
from kb_assets.embeddings.open import model_of, price_of
from kb_assets.embeddings.space import Space, find_space
from kb_assets.errors import DocumentError
from kb_assets.fingerprints import Shard, input_text
from kb_assets.isolated import attempt

_statements = Statements.beside(__file__)


@dataclass(frozen=True, slots=True)
class ShardForecast:
    """What a run would do to one shard.

    Attributes:
        shard: The shard's key.
        found: Documents in the listing.
        added: New documents.
        changed: Documents that would get a new revision.
        unchanged: Documents that would stay as they are.
        quarantined: Documents that could not be read or parsed.
        gone: Documents that would leave search.
        withheld: Those among them that the mass-delete guard would keep until confirmed.
        bytes_read: Bytes of content that may have changed.
        chunks: Chunks of the new revisions.
    """

    shard: str
    found: int
    added: int
    changed: int
    unchanged: int
    quarantined: int
    gone: int
    withheld: int
    bytes_read: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do, and cost.

    Attributes:
        shards: What it would do to each shard.
        space: The space that would be filled.
        new_space: Whether it is a new one, so that everything would be embedded.
        texts: Distinct texts without a vector: what the provider would be sent.
        tokens: Exact tokens in them, by the encoding of the settings.
        cost_usd: What that would cost.
    """

    shards: tuple[ShardForecast, ...]
    space: str
    new_space: bool
    texts: int
    tokens: int
    cost_usd: float


def forecast(run: Run, shards: tuple[Shard, ...]) -> Forecast:
    """Say what a run over these shards would read, split and embed. No provider is asked.

    Raises:
        SourceError: A source is missing, or not ours to read.
        SourceUnavailableError: A source could not be listed or read to the end.
    """
    settings = run.settings
    model = model_of(settings.embedding)
    space = find_space(run.database, model, settings.embedding.precision)
    with run.database.session() as connection:
        connection.execute(_statements("create_texts"))
        made = tuple(_shard(run, connection, shard) for shard in shards)
        if space is not None:
            _add_waiting(connection, space, shards)
        texts, tokens = _count(connection, space)
    return Forecast(
        shards=made,
        space=f"{model.provider} {model.name}",
        new_space=space is None,
        texts=texts,
        tokens=tokens,
        cost_usd=tokens * price_of(settings.embedding) / 1_000_000,
    )


def _shard(run: Run, connection: psycopg.Connection[Any], shard: Shard) -> ShardForecast:
    settings = run.settings.source(shard.source)
    recipe = recipe_of(run.settings.splitting)
    recipe_id = find_recipe(run.database, recipe) or -1
    conditions = read_conditions(run.settings, settings, recipe)
    source = open_source(settings, run.settings.root)
    source_id = find_source(run.database, settings.name) or -1
    added = changed = quarantined = chunks = 0
    moved: set[int] = set()
    with ExitStack() as stack:
        listing_connection = stack.enter_context(run.database.session())
        listing = Listing(listing_connection, shard, source_id=source_id)
        entries = find_state(run.database, shard).leave_out_erased(source.entries())
        listed = stack.enter_context(Listed(entries, shard))
        listing.fill(listed)
        moves = listing.moves(recipe_id)
        reader = stack.enter_context(
            Reader(source, settings, run.settings.limits, recipe_id, moves)
        )
        candidates = listing.to_read(recipe_id, conditions, everything=run.verify)
        for batch in reader.read(candidates):
            new = sum(one.read.candidate.document_id is None for one in batch.parsed)
            added += new
            changed += len(batch.parsed) - new
            quarantined += len(batch.refused)
            moved |= {id_ for _, id_ in batch.moved}
            chunks += _note_texts(run, connection, batch)
        absence = listing.absence().without(moved)
    return ShardForecast(
        shard=shard.key,
        found=listed.found,
        added=added,
        changed=changed,
        unchanged=listed.found - added - changed - quarantined,
        quarantined=quarantined,
        gone=len(absence.moved) + len(absence.unseen) + len(absence.lost),
        withheld=len(absence.withheld(run.settings.limits.max_deleted_share)),
        bytes_read=reader.bytes_read,
        chunks=chunks,
    )


def _note_texts(run: Run, connection: psycopg.Connection[Any], batch: Batch) -> int:
    connection.execute(_statements("empty_incoming"))
    copied = copy_rows(
        connection, "incoming_text", ["input_hash", "tokens"], ["bytea", "int4"], _texts(run, batch)
    )
    connection.execute(_statements("add_incoming"))
    return copied


def _texts(run: Run, batch: Batch) -> Iterator[tuple[bytes, int]]:
    settings = split_settings(run.settings.splitting)
    for one in batch.parsed:
        document = one.document
        job = SplitJob(0, 0, document.title, document.media_type, document.text, settings)
        chunks = attempt(chunk_revision, job)
        for keyed in () if isinstance(chunks, DocumentError) else chunks:
            text = input_text(document.title, keyed.chunk.heading_path, keyed.chunk.text)
            yield keyed.input_hash, count_tokens(text, settings.encoding)


def _add_waiting(
    connection: psycopg.Connection[Any], space: Space, shards: tuple[Shard, ...]
) -> None:
    """Add texts that earlier runs left without a vector."""
    for shard in shards:
        connection.execute(
            _statements("add_waiting", embeddings=space.table),
            {
                "source": shard.source,
                "slot_low": shard.slot_low,
                "slot_high": shard.slot_high,
                "everything": space.state != "live",
            },
        )


def _count(connection: psycopg.Connection[Any], space: Space | None) -> tuple[int, int]:
    if space is None:
        row = connection.execute(_statements("count_texts")).fetchone()
    else:
        row = connection.execute(
            _statements("count_new_texts", embeddings=space.table), {"space_id": space.id}
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
