"""From stored revisions to their chunks: only revisions that have none are split."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from kb_assets.chunks.plan import ChunkRows, SplitJob, chunk_rows, recipe_of, split_settings
from kb_assets.chunks.store import ChunkStore, Unsplit, measure_unsplit, unsplit_groups
from kb_assets.database.run import Run
from kb_assets.documents.stage import read_conditions
from kb_assets.errors import DocumentError
from kb_assets.fingerprints import Shard
from kb_assets.isolated import attempt
from kb_assets.isolation import IsolatedWorker, processes_worth_having

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Of texts that are read, and of rows that are written, at once."""

MAX_BATCH_REVISIONS = 500

_WORTH_A_WORKER_BYTES = 512 * 1024
_WORTH_A_WORKER_REVISIONS = 300
"""Below both, starting a worker takes longer than splitting does."""

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


@dataclass(slots=True)
class _Batch:
    """What one transaction stores."""

    split: list[tuple[Unsplit, ChunkRows]] = field(default_factory=list)
    refused: list[tuple[Unsplit, DocumentError]] = field(default_factory=list)
    held_bytes: int = 0

    def add(self, unsplit: Unsplit, made: ChunkRows | DocumentError) -> None:
        if isinstance(made, DocumentError):
            self.refused.append((unsplit, made))
        else:
            self.split.append((unsplit, made))
            self.held_bytes += len(made.rows)

    @property
    def is_full(self) -> bool:
        revisions = len(self.split) + len(self.refused)
        return revisions >= MAX_BATCH_REVISIONS or self.held_bytes >= MAX_BATCH_BYTES


def chunk_documents(run: Run, shard: Shard) -> ChunkReport:
    """Split the revisions of a shard that wait and have no chunks yet.

    Raises:
        ShardBusyError: Another run holds the shard.
        LeaseLostError: Another run took the shard over.
    """
    started = time.monotonic()
    settings = run.settings
    recipe = recipe_of(settings.splitting)
    revisions = empty = chunks = tokens = quarantined = 0
    most = _WORTH_A_WORKER_REVISIONS
    waiting, size_bytes = measure_unsplit(run.database, shard, recipe, most=most)
    few = waiting < most and size_bytes < _WORTH_A_WORKER_BYTES
    for batch in _batches(run, shard, few=few) if waiting else ():
        revisions += len(batch.split)
        quarantined += len(batch.refused)
        empty += sum(not made.chunks for _, made in batch.split)
        chunks += sum(made.chunks for _, made in batch.split)
        tokens += sum(made.tokens for _, made in batch.split)
    seconds = time.monotonic() - started
    return ChunkReport(revisions, empty, chunks, tokens, quarantined, seconds)


def _batches(run: Run, shard: Shard, *, few: bool) -> Iterator[_Batch]:
    """Split what waits, and yield what was stored; texts are split while others are stored."""
    settings = run.settings
    recipe = recipe_of(settings.splitting)
    conditions = read_conditions(settings, settings.source(shard.source), recipe)
    with (
        run.lease(shard) as lease,
        run.database.session() as connection,
        IsolatedWorker[SplitJob, ChunkRows](
            "kb_assets.chunks.plan:chunk_rows",
            seconds=settings.limits.parse_seconds,
            memory_bytes=settings.limits.parse_memory_bytes,
            processes=processes_worth_having(),
        ) as worker,
    ):
        store = ChunkStore(run.database, lease, conditions)
        how = split_settings(settings.splitting)
        groups = unsplit_groups(connection, lease, recipe, how, max_bytes=MAX_BATCH_BYTES)
        batch = _Batch()
        for unsplit, made in _split(chain.from_iterable(groups), worker, few=few):
            batch.add(unsplit, made)
            if batch.is_full:
                store.save(batch.split, batch.refused)
                yield batch
                batch = _Batch()
        store.save(batch.split, batch.refused)
        yield batch


def _split(
    revisions: Iterable[Unsplit], worker: IsolatedWorker[SplitJob, ChunkRows], *, few: bool
) -> Iterator[tuple[Unsplit, ChunkRows | DocumentError]]:
    """Split revisions; those that take long, and many, in other processes."""
    if few:
        for unsplit in revisions:
            if len(unsplit.job.text) <= _SMALL_CHARACTERS:
                yield unsplit, attempt(chunk_rows, unsplit.job)
            else:
                ((_, made),) = worker.map([unsplit.job])
                yield unsplit, made
        return
    asked: deque[Unsplit] = deque()

    def jobs() -> Iterator[SplitJob]:
        for unsplit in revisions:
            asked.append(unsplit)
            yield unsplit.job

    for _, made in worker.map(jobs()):
        yield asked.popleft(), made
