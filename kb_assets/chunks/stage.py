"""From stored revisions to their chunks: only revisions that have none are split."""

import time
from dataclasses import dataclass
from itertools import chain

from kb_assets.chunks.plan import KeyedChunk, SplitJob, chunk_revision, recipe_of, split_settings
from kb_assets.chunks.store import ChunkStore, Unsplit, unsplit_groups
from kb_assets.database.run import Run
from kb_assets.documents.stage import read_conditions
from kb_assets.errors import DocumentError
from kb_assets.fingerprints import Shard
from kb_assets.isolated import attempt
from kb_assets.isolation import IsolatedWorker

MAX_BATCH_BYTES = 8 * 1024 * 1024

_WORTH_A_WORKER = 100
"""Below so many revisions, starting a worker takes longer than splitting does."""

_SMALL_CHARACTERS = 64 * 1024
"""A text this small is split in a moment, whatever it holds."""


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """What came of splitting one shard's revisions.

    Attributes:
        revisions: Revisions that have chunks now.
        empty: Those among them whose text is blank.
        chunks: Chunks stored.
        tokens: Tokens in them.
        quarantined: Documents that could not be split.
        seconds: How long it took.
    """

    revisions: int
    empty: int
    chunks: int
    tokens: int
    quarantined: int
    seconds: float


def chunk_documents(run: Run, shard: Shard) -> ChunkReport:
    """Split the revisions of a shard that wait and have no chunks yet.

    Raises:
        ShardBusyError: Another run holds the shard.
        LeaseLostError: Another run took the shard over.
    """
    started = time.monotonic()
    settings = run.settings
    recipe = recipe_of(settings.splitting)
    conditions = read_conditions(settings, settings.source(shard.source), recipe)
    revisions = empty = chunks = tokens = quarantined = 0
    with (
        run.lease(shard) as lease,
        run.database.session() as connection,
        IsolatedWorker[SplitJob, list[KeyedChunk]](
            "kb_assets.chunks.plan:chunk_revision",
            seconds=settings.limits.parse_seconds,
            memory_bytes=settings.limits.parse_memory_bytes,
        ) as worker,
    ):
        store = ChunkStore(run.database, lease, conditions)
        for group in unsplit_groups(
            connection,
            lease,
            recipe,
            split_settings(settings.splitting),
            max_bytes=MAX_BATCH_BYTES,
        ):
            split, refused = _split(group, worker)
            store.save(split, refused)
            revisions += len(split)
            quarantined += len(refused)
            empty += sum(not made for _, made in split)
            chunks += sum(len(made) for _, made in split)
            tokens += sum(keyed.chunk.token_count for _, made in split for keyed in made)
    seconds = time.monotonic() - started
    return ChunkReport(revisions, empty, chunks, tokens, quarantined, seconds)


def _split(
    group: list[Unsplit], worker: IsolatedWorker[SplitJob, list[KeyedChunk]]
) -> tuple[list[tuple[Unsplit, list[KeyedChunk]]], list[tuple[Unsplit, DocumentError]]]:
    few = len(group) < _WORTH_A_WORKER
    here = [one for one in group if few and len(one.job.text) <= _SMALL_CHARACTERS]
    away = [one for one in group if not few or len(one.job.text) > _SMALL_CHARACTERS]
    results = worker.map(one.job for one in away)
    split, refused = [], []
    for one, made in chain(
        ((one, attempt(chunk_revision, one.job)) for one in here),
        ((one, made) for one, (_, made) in zip(away, results, strict=True)),
    ):
        if isinstance(made, DocumentError):
            refused.append((one, made))
        else:
            split.append((one, made))
    return split, refused
