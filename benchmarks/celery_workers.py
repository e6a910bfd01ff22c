"""Sixteen shards over one of Celery's workers, and over two.

    python -m benchmarks.celery_workers

A source of sixteen shards, with an embedding provider that takes 200 ms for each request, is loaded
for the first time by "Materialize all", with Dagster's daemon, a Redis and workers of one run each,
as docs/celery.md says. Measured is from the beginning of the first run to the end of the last. Each
round has a new database, and one worker goes before two. All of it shares this machine's cores, so
two workers cannot be twice as fast: what computes stays, and what waits for the provider halves.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import BACKFILL_ID_TAG

from benchmarks.dagster_overhead import write_corpus
from benchmarks.record import Row, record
from benchmarks.slow_provider import DIMENSIONS, running
from kb_assets import KnowledgeBase
from kb_assets.database.embedded import leave_embedded
from kb_assets.defs.instance import dagster_instance
from tests.acceptance.command_line import variables_of
from tests.servers.celery_cluster import CeleryCluster, wait_until
from tests.servers.redis_server import RedisServer

SHARDS, FILES, ROUNDS = 16, 960, 3
REQUEST_SECONDS, IN_FLIGHT, TEXTS = 0.2, 2, 8
WORKERS = (1, 2)
TARGET = 1.5
SETTINGS = """
[schedule]
enabled = false

[[sources]]
name = "docs"
uri = "corpus"
shards = {shards}

[embedding]
provider = "openai"
model = "slow"
base_url = "{base_url}"
dimensions = {dimensions}
requests_in_flight = {in_flight}
texts_per_request = {texts}
"""


@contextmanager
def unindexed(base_url: str) -> Iterator[KnowledgeBase]:
    """A knowledge base of its own on an embedded server, none of it read yet."""
    home = Path(tempfile.mkdtemp(prefix="kb-celery-"))
    # The server has another account where this one is root.
    home.chmod(0o755)
    write_corpus(home / "corpus", FILES)
    named = {"shards": SHARDS, "base_url": base_url, "dimensions": DIMENSIONS}
    named |= {"in_flight": IN_FLIGHT, "texts": TEXTS}
    (home / "kb.toml").write_text(SETTINGS.format(**named))
    try:
        with KnowledgeBase.open(home / "kb.toml") as kb:
            kb.upgrade()
            yield kb
    finally:
        leave_embedded(kb.settings.home_folder)
        shutil.rmtree(home, ignore_errors=True)


def load(kb: KnowledgeBase, workers: int) -> float:
    """Load everything; returns seconds from the first run's beginning to the last one's end."""
    home = kb.settings.root
    variables = variables_of(kb.urls)
    with (
        dagster_instance(kb) as instance,
        RedisServer() as redis,
        CeleryCluster(home, variables, redis.urls["tcp"]) as cluster,
    ):
        started = [cluster.start_worker(f"w{number}") for number in range(workers)]
        cluster.wait_for_code()
        cluster.start_daemon()
        for worker in started:
            worker.wait_for("ready.")
        cluster.load_all([shard.key for shard in kb.settings.shards])
        done = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])

        def loads() -> list[dg.RunRecord]:
            found = instance.get_run_records(done)
            return [record for record in found if BACKFILL_ID_TAG in record.dagster_run.tags]

        wait_until(lambda: len(loads()) == SHARDS, 900, "all is loaded", 0.5)
        runs = loads()
    status = kb.status()
    assert status.is_settled, status
    return max(run.end_time or 0.0 for run in runs) - min(
        run.start_time or float("inf") for run in runs
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    took: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with running(REQUEST_SECONDS) as base_url:
        for _ in range(rounds):
            for workers in WORKERS:
                with unindexed(base_url) as kb:
                    took[workers].append(load(kb, workers))
    one, two = (statistics.median(took[workers]) for workers in WORKERS)
    row = Row(
        name="two of Celery's workers against one",
        measured=f"{one / two:.2f} x as fast",
        target=f"≥ {TARGET} x",
        met=one / two >= TARGET,
        detail=f"{SHARDS} shards, {FILES} files of three texts, 200 ms for each request of "
        f"{TEXTS} texts, {IN_FLIGHT} open at once: {one:.1f} s and {two:.1f} s; median of {rounds}",
    )
    record("celery_workers", "Many machines", [row], seconds=took)


if __name__ == "__main__":
    main()
