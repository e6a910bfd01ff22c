"""Workers that index shards into one database, with one provider: by arithmetic and by events.

`least_seconds` is the arithmetic: whatever is used most decides. `simulated_seconds` lets every
worker take shards, wait for cores, for answers, for the provider's limit and for the publish lock,
one after the other, and so finds what waiting for each other adds.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass

_PIECES = 20
"""A stage of a shard is so many turns at what is shared."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who works, and with what.

    Attributes:
        workers: Processes that take shards, each on one at a time.
        shards: How many there are, of equal size.
        cores: Of the machine that all share with the database; 0 for as many as are wanted.
        requests_in_flight: Of each worker.
        texts_per_request: As many as fit.
        request_seconds: From a request to its answer.
        tokens_per_minute: What the provider allows all of them; 0 for no limit.
    """

    workers: int
    shards: int
    cores: int = 0
    requests_in_flight: int = 8
    texts_per_request: int = 256
    request_seconds: float = 0.2
    tokens_per_minute: float = 0


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """What a chunk costs a worker that is alone.

    Attributes:
        prepare_seconds: Reading, splitting, and finding out which texts have no vector.
        store_seconds: Taking answers in.
        analyse_seconds: Words, before the publish lock.
        locked_seconds: Under the lock, which all of a knowledge base share.
        busy_cores: How many cores are busy meanwhile, the database's included.
        tokens: The provider's.
    """

    prepare_seconds: float
    store_seconds: float
    analyse_seconds: float
    locked_seconds: float
    busy_cores: float = 1.5
    tokens: int = 300

    @property
    def own_seconds(self) -> float:
        return (
            self.prepare_seconds + self.store_seconds + self.analyse_seconds + self.locked_seconds
        )


def bounds(chunks: int, cost: ChunkCost, fleet: Fleet) -> dict[str, float]:
    """Return what each part would take if it alone decided, by name."""
    at_once = fleet.requests_in_flight * fleet.texts_per_request
    # Answers are taken in while others are waited for.
    alone = max(cost.store_seconds, fleet.request_seconds / at_once) + (
        cost.prepare_seconds + cost.analyse_seconds + cost.locked_seconds
    )
    shards_in_turn = -(-fleet.shards // fleet.workers)
    found = {
        "workers": shards_in_turn * chunks / fleet.shards * alone,
        "publish lock": chunks * cost.locked_seconds,
    }
    if fleet.tokens_per_minute:
        found["provider"] = 60 * chunks * cost.tokens / fleet.tokens_per_minute
    if fleet.cores:
        found["cores"] = chunks * cost.own_seconds * cost.busy_cores / fleet.cores
    return found


def least_seconds(chunks: int, cost: ChunkCost, fleet: Fleet) -> float:
    """Return the largest of the bounds: less it cannot take."""
    return max(bounds(chunks, cost, fleet).values())


class _Line:
    """Serves one after the other, in the order they come."""

    def __init__(self) -> None:
        self.free_at = 0.0

    def serve(self, at: float, seconds: float) -> float:
        """Return when one that comes now has been served."""
        self.free_at = max(at, self.free_at) + seconds
        return self.free_at


Worker = Generator[float, float, None]
"""Yields when it wants to go on; is sent that time when it has come."""


class _Simulation:
    """One load. What workers wait for in common are lines."""

    def __init__(self, chunks: int, cost: ChunkCost, fleet: Fleet) -> None:
        self._cost = cost
        self._fleet = fleet
        self._shards = deque([chunks / fleet.shards] * fleet.shards)
        self._cores, self._lock, self._provider = _Line(), _Line(), _Line()

    def run(self) -> float:
        """Return when the last worker has nothing left to do."""
        events = [(0.0, number, self._worker()) for number in range(self._fleet.workers)]
        for _, _, worker in events:
            next(worker)
        now = 0.0
        while events:
            now, number, worker = heapq.heappop(events)
            with suppress(StopIteration):
                heapq.heappush(events, (worker.send(now), number, worker))
        return now

    def _worker(self) -> Worker:
        now = yield 0.0
        while self._shards:
            chunks = self._shards.popleft()
            piece = chunks / _PIECES
            for _ in range(_PIECES):
                now = yield self._computed(now, piece * self._cost.prepare_seconds)
            now = yield from self._embed(now, chunks)
            for _ in range(_PIECES):
                now = yield self._computed(now, piece * self._cost.analyse_seconds)
            for _ in range(_PIECES):
                while now < self._lock.free_at:
                    now = yield self._lock.free_at
                self._lock.free_at = self._computed(now, piece * self._cost.locked_seconds)
                now = yield self._lock.free_at

    def _computed(self, now: float, seconds: float) -> float:
        """Return when a piece of work is done that starts now, beside those of other workers."""
        if not self._fleet.cores:
            return now + seconds
        shared = seconds * self._cost.busy_cores / self._fleet.cores
        return max(now + seconds, self._cores.serve(now, shared))

    def _embed(self, now: float, chunks: float) -> Generator[float, float, float]:
        """Keep requests in flight, and take answers in meanwhile."""
        fleet, cost = self._fleet, self._cost
        per_token = 60 / fleet.tokens_per_minute if fleet.tokens_per_minute else 0.0
        answers = [now] * fleet.requests_in_flight
        for sent in itertools.count(step=fleet.texts_per_request):
            texts = min(fleet.texts_per_request, chunks - sent)
            if texts <= 0:
                break
            now = yield max(now, answers[0])
            granted = self._provider.serve(now, texts * cost.tokens * per_token)
            heapq.heapreplace(answers, granted + fleet.request_seconds)
            now = yield self._computed(now, texts * cost.store_seconds)
        return (yield max(now, *answers))


def simulated_seconds(chunks: int, cost: ChunkCost, fleet: Fleet) -> float:
    """Return what a load takes when workers wait for one another."""
    return _Simulation(chunks, cost, fleet).run()
