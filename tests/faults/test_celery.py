"""Runs over Celery's workers: a real Redis, Dagster's daemon, and workers that are killed.

However it goes, the index ends as one process would have made it, and next to nothing is paid for
twice.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.storage.tags import BACKFILL_ID_TAG

from kb_assets.database.cluster import ADMINISTRATOR
from kb_assets.database.connect import DatabaseUrls
from kb_assets.defs.instance import dagster_instance
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.acceptance.command_line import variables_of
from tests.conftest import Server
from tests.faults import corpus
from tests.faults.conftest import ServerProcess, openai_settings, openai_vector
from tests.oracle import assert_same_index, assert_sound, repeated
from tests.servers.celery_cluster import CeleryCluster, Member, wait_until
from tests.servers.redis_server import RedisServer

DOCUMENTS_PER_SHARD = 10
IN_FLIGHT, TEXTS = 2, 8
PROVIDER_SECONDS = 0.2
FEWER_SHARDS = pytest.mark.parametrize("config", [6], indirect=True)
PUBLISHED = dg.AssetKey("published_documents")
GOING = dg.RunsFilter(
    statuses=[
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
)


@pytest.fixture
def server(
    provider_process: Callable[..., ServerProcess], request: pytest.FixtureRequest
) -> ServerProcess:
    return provider_process(delay_seconds=getattr(request, "param", PROVIDER_SECONDS))


@pytest.fixture
def config(
    tmp_path: Path, folder: Path, server: ServerProcess, request: pytest.FixtureRequest
) -> Path:
    """A kb.toml in a folder of its own, with a source of sixteen shards, or as many as asked."""
    shards = getattr(request, "param", 16)
    corpus.write(folder, corpus.first(DOCUMENTS_PER_SHARD * shards))
    home = tmp_path / "home"
    home.mkdir()
    embedding = openai_settings(
        server.base_url, requests_in_flight=IN_FLIGHT, texts_per_request=TEXTS
    )
    sections = {"splitting": corpus.SPLITTING, "embedding": embedding}
    # The test alone starts what is loaded.
    lines = ["[schedule]\nenabled = false\n", "[[sources]]\nname = 'notes'"]
    lines += [f"uri = '{folder}'\nshards = {shards}\n"]
    for name, section in sections.items():
        lines += [f"[{name}]", *(f"{key} = {value!r}" for key, value in section.items())]
    (home / "kb.toml").write_text("\n".join(lines))
    return home / "kb.toml"


@pytest.fixture
def settings(config: Path, database_urls: DatabaseUrls) -> Settings:
    return Settings.load(
        config,
        database_url=database_urls.writer,
        read_database_url=database_urls.reader,
        migration_database_url=database_urls.migrator,
    )


@pytest.fixture
def kb(
    settings: Settings,
    open_settings: Callable[[Settings], KnowledgeBase],
    monkeypatch: pytest.MonkeyPatch,
    database_urls: DatabaseUrls,
) -> KnowledgeBase:
    monkeypatch.setenv("KB_DAGSTER_DATABASE_URL", database_urls.dagster)
    return open_settings(settings)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def cluster(
    kb: KnowledgeBase, database_urls: DatabaseUrls, redis: RedisServer
) -> Iterator[CeleryCluster]:
    """The code server and Redis; whoever needs more starts it."""
    variables = variables_of(database_urls)
    # Dagster's tables, before several processes want to make them.
    with (
        dagster_instance(kb),
        CeleryCluster(kb.settings.root, variables, redis.urls["tcp"]) as cluster,
    ):
        yield cluster


@pytest.fixture
def instance(cluster: CeleryCluster, kb: KnowledgeBase) -> Iterator[dg.DagsterInstance]:
    """What became of the runs; not what they are started with."""
    with ExitStack() as stack:
        yield stack.enter_context(dagster_instance(kb))


@pytest.fixture
def away(servers: Callable[[int], Server], kb: KnowledgeBase) -> Callable[[float], None]:
    """Let the database be out of reach for so many seconds, for everybody."""
    server = servers(16)
    name = psycopg.conninfo.conninfo_to_dict(kb.urls.writer)["dbname"]

    def let(seconds: float) -> None:
        server.execute("alter database {} with allow_connections false", name)
        with psycopg.connect(server.url("postgres", ADMINISTRATOR), autocommit=True) as connection:
            query = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
            connection.execute(query, (name,))
        time.sleep(seconds)
        server.execute("alter database {} with allow_connections true", name)

    return let


def start(cluster: CeleryCluster, *, daemons: int = 1, workers: int = 2) -> list[Member]:
    """Start daemons and workers; returns the workers."""
    started = [cluster.start_worker(f"w{number}") for number in range(workers)]
    for _ in range(daemons):
        cluster.start_daemon()
    cluster.wait_for_code()
    for worker in started:
        worker.wait_for("ready.")
    return started


def load_all(cluster: CeleryCluster, kb: KnowledgeBase) -> None:
    cluster.load_all([shard.key for shard in kb.settings.shards])


def all_is_published(instance: dg.DagsterInstance, kb: KnowledgeBase) -> bool:
    published = instance.get_materialized_partitions(PUBLISHED)
    return published == {shard.key for shard in kb.settings.shards}


def wait_for_all(instance: dg.DagsterInstance, kb: KnowledgeBase) -> None:
    """Wait until every shard is published, and nothing goes on."""

    def done() -> bool:
        return all_is_published(instance, kb) and not instance.get_runs(GOING)

    wait_until(done, 400, "all is published", pause=0.5)


def by_status(instance: dg.DagsterInstance) -> dict[str, int]:
    """Count what was started by hand; the index follows by itself, when it is time."""
    wanted = [run for run in instance.get_runs() if BACKFILL_ID_TAG in run.tags]
    return dict(Counter(run.status.value for run in wanted))


def assert_as_one_process_makes_it(
    kb: KnowledgeBase, fresh: Callable[[Settings], KnowledgeBase]
) -> None:
    assert_sound(kb, openai_vector)
    one = fresh(kb.settings)
    one.index()
    assert_same_index(kb, one, corpus.paragraph("shared", 3), corpus.paragraph("own", 5, 1))


def test_two_workers_end_where_one_process_does(
    cluster: CeleryCluster,
    instance: dg.DagsterInstance,
    kb: KnowledgeBase,
    server: ServerProcess,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    workers = start(cluster)
    load_all(cluster, kb)
    wait_for_all(instance, kb)

    assert repeated(server.sent_texts) == 0
    assert by_status(instance) == {"SUCCESS": 16}
    assert min(worker.said.count("succeeded in") for worker in workers) >= 4
    assert_as_one_process_makes_it(kb, fresh)


def test_a_worker_that_is_killed_is_replaced_by_the_other(
    cluster: CeleryCluster,
    instance: dg.DagsterInstance,
    kb: KnowledgeBase,
    server: ServerProcess,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    one, _ = start(cluster)
    load_all(cluster, kb)
    wait_until(lambda: server.received() >= 12, 120, "some shards are embedded", pause=0.001)
    one.kill()
    wait_for_all(instance, kb)

    # It had one run, which is found out, ended and started again: nobody has to do anything.
    assert by_status(instance) == {"SUCCESS": 16, "FAILURE": 1}
    assert repeated(server.sent_texts) <= IN_FLIGHT * TEXTS
    assert_as_one_process_makes_it(kb, fresh)


@FEWER_SHARDS
def test_two_daemons_and_one_of_them_killed(
    cluster: CeleryCluster,
    instance: dg.DagsterInstance,
    kb: KnowledgeBase,
    server: ServerProcess,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    start(cluster)
    first = cluster.start_daemon()
    load_all(cluster, kb)
    wait_until(lambda: server.received() >= 1, 120, "the first run has begun", pause=0.001)
    first.kill()
    cluster.start_daemon()
    wait_for_all(instance, kb)

    assert repeated(server.sent_texts) <= IN_FLIGHT * TEXTS
    assert_as_one_process_makes_it(kb, fresh)


@FEWER_SHARDS
def test_a_database_that_goes_away_for_a_while(
    cluster: CeleryCluster,
    instance: dg.DagsterInstance,
    kb: KnowledgeBase,
    server: ServerProcess,
    fresh: Callable[[Settings], KnowledgeBase],
    away: Callable[[float], None],
) -> None:
    start(cluster)
    load_all(cluster, kb)
    wait_until(lambda: server.received() >= 6, 120, "some shards are embedded", pause=0.001)
    away(8.0)
    wait_until(lambda: not instance.get_runs(GOING), 400, "all runs have ended", pause=0.5)
    if not all_is_published(instance, kb):
        load_all(cluster, kb)
        wait_for_all(instance, kb)

    assert repeated(server.sent_texts) <= 2 * IN_FLIGHT * TEXTS
    assert_as_one_process_makes_it(kb, fresh)


@FEWER_SHARDS
def test_a_redis_that_comes_back_with_nothing(
    cluster: CeleryCluster,
    instance: dg.DagsterInstance,
    kb: KnowledgeBase,
    redis: RedisServer,
    server: ServerProcess,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    # Sooner than in an hour, what waited in it alone is started again.
    cluster.configure("run_monitoring", start_timeout_seconds=90)
    start(cluster)
    load_all(cluster, kb)
    wait_until(lambda: server.received() >= 1, 120, "the first run has begun", pause=0.001)
    redis.kill()
    time.sleep(5)
    redis.start()
    wait_for_all(instance, kb)

    assert repeated(server.sent_texts) == 0, "what was going on has gone on"
    assert_as_one_process_makes_it(kb, fresh)


@FEWER_SHARDS
@pytest.mark.parametrize("server", [60.0], indirect=True)
def test_a_run_that_is_stopped_is_not_started_again(
    cluster: CeleryCluster,
    instance: dg.DagsterInstance,
    kb: KnowledgeBase,
    server: ServerProcess,
) -> None:
    (worker,) = start(cluster, workers=1)
    cluster.load_all([kb.settings.shards[0].key])
    wait_until(lambda: server.received() >= 1, 120, "it waits for the provider", pause=0.1)
    (run,) = instance.get_runs()
    cluster.stop(run.run_id)
    wait_until(lambda: not instance.get_runs(GOING), 50, "it has ended", pause=0.1)
    worker.wait_for("succeeded in", 20)

    # Longer than the daemon takes to start a run again.
    time.sleep(8)
    assert by_status(instance) == {"CANCELED": 1}
