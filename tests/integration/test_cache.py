"""The cache, on real servers: what is kept, for how long, and that losing it only slows."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from kb_assets.database.connect import Database, DatabaseUrls
from kb_assets.errors import DatabaseUnavailableError, SettingsError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.cache.forgiving import (
    MAX_VALUE_BYTES,
    QUIET_SECONDS,
    REST_SECONDS,
    ForgivingCache,
)
from kb_assets.retrieval.cache.keys import cache_key
from kb_assets.retrieval.cache.open import open_cache
from kb_assets.retrieval.cache.stores import WAIT_SECONDS, RedisCache
from kb_assets.retrieval.cache.values import bytes_of_results, results_of_bytes
from kb_assets.retrieval.hits import Results
from kb_assets.retrieval.query import Caller, Query
from kb_assets.settings import CacheSettings, RerankSettings, SearchSettings, Settings
from tests.servers.redis_server import RedisServer

KEY, OTHER = b"\x00" * 32, b"\xff" * 32


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


Opener = Callable[..., ForgivingCache]


@pytest.fixture
def open_(database: Database, database_urls: DatabaseUrls) -> Iterator[Opener]:
    """Open a cache as settings name it, for the test's own knowledge base."""
    opened = []

    def open_it(
        url: str, ttl_seconds: int = 3600, reader: str = database_urls.reader
    ) -> ForgivingCache:
        cache = open_cache(
            CacheSettings(url=url, ttl_seconds=ttl_seconds), lambda: database, reader
        )
        assert isinstance(cache, ForgivingCache)
        opened.append(cache)
        return cache

    yield open_it
    for cache in opened:
        cache.close()


@pytest.fixture(params=["tcp", "unix", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """Where each kind of cache is."""
    if request.param == "postgres":
        return "postgres"
    server = request.getfixturevalue("redis_server")
    assert isinstance(server, RedisServer)
    return server.urls[request.param]


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time as the cache sees it."""
    clock = Clock()
    monkeypatch.setattr(ForgivingCache.__init__, "__kwdefaults__", {"refusals": (), "clock": clock})
    return clock


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        r.getMessage()
        for r in caplog.records
        if r.levelno >= logging.WARNING and r.name.startswith("kb_assets.retrieval.cache")
    ]


# What is kept.


def test_what_was_put_is_got_until_it_is_replaced(open_: Opener, url: str) -> None:
    cache = open_(url)
    assert cache.get(KEY) is None
    cache.put(KEY, b"\x00one\xff")
    assert cache.get(KEY) == open_(url).get(KEY) == b"\x00one\xff"
    assert cache.get(OTHER) is None
    cache.put(KEY, b"")
    assert cache.get(KEY) == b""
    assert cache.failures == 0


def test_a_value_is_gone_when_its_time_is_over(open_: Opener, url: str) -> None:
    cache = open_(url, ttl_seconds=1)
    open_(url).put(OTHER, b"long")
    cache.put(KEY, b"short")
    give_up = time.monotonic() + 60
    while cache.get(KEY) is not None:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert cache.get(OTHER) == b"long"
    cache.put(KEY, b"again")
    assert cache.get(KEY) == b"again"
    assert cache.failures == 0


def test_an_answer_is_kept_by_what_was_asked_of_which_index(open_: Opener, url: str) -> None:
    cache = open_(url)
    query = Query("how to roll back")

    def key(generation: int) -> bytes:
        search, rerank = SearchSettings(), RerankSettings()
        return cache_key(query, generation=generation, space_id=1, search=search, rerank=rerank)

    results = Results((), "hybrid", notes=("Nothing.",), seconds={"total": 0.1}, generation=7)
    cache.put(key(7), bytes_of_results(results))
    found = cache.get(key(7))
    assert found is not None
    assert results_of_bytes(found) == results
    assert cache.get(key(8)) is None


def test_a_value_that_is_too_large_is_not_kept(open_: Opener, url: str) -> None:
    cache = open_(url)
    cache.put(KEY, b"x" * MAX_VALUE_BYTES)
    cache.put(OTHER, b"x" * (MAX_VALUE_BYTES + 1))
    assert cache.get(KEY) == b"x" * MAX_VALUE_BYTES
    assert cache.get(OTHER) is None
    assert cache.failures == 0


def test_new_values_clear_expired_ones_away(open_: Opener, database: Database) -> None:
    cache = open_("postgres")
    cache.put(OTHER, b"young")
    with database.transaction() as connection:
        connection.execute(
            "insert into kb.search_cache select int4send(n), 'old', now() - interval '1 s'"
            " from generate_series(1, 25) n"
        )
        connection.execute(
            "insert into kb.search_cache values (%s, 'old', now() - interval '2 s')", (KEY,)
        )
    for _ in range(3):
        cache.put(KEY, b"new")
    with database.transaction() as connection:
        rows = connection.execute("select key, value from kb.search_cache").fetchall()
    assert sorted(rows) == [(KEY, b"new"), (OTHER, b"young")]
    assert cache.failures == 0


def test_no_question_can_be_read_in_redis(open_: Opener, redis_server: RedisServer) -> None:
    cache = open_(redis_server.urls["tcp"])
    search, rerank = SearchSettings(), RerankSettings()
    query = Query("secretword")
    cache.put(cache_key(query, generation=1, space_id=1, search=search, rerank=rerank), b"value")
    (name,) = redis_server.client().keys("*")
    assert name.startswith(b"kb:cache:")
    assert b"secretword" not in name
    assert len(name) == len("kb:cache:") + 64


def test_two_knowledge_bases_share_a_redis_and_no_answers(
    open_: Opener, redis_server: RedisServer
) -> None:
    url = redis_server.urls["tcp"]
    ours = open_(url, reader="postgresql://kb_reader:one@db/kb")
    ours.put(KEY, b"ours")
    for other in ("postgresql://kb_reader@db/kb2", "postgresql://kb_reader@db2/kb"):
        assert open_(url, reader=other).get(KEY) is None
    assert open_(url, reader="postgresql://kb_reader:two@db/kb").get(KEY) == b"ours"


# What goes wrong.


def test_a_killed_server_is_a_miss_is_left_alone_and_comes_back(
    open_: Opener, redis_server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_(redis_server.urls["tcp"])
    cache.put(KEY, b"value")
    redis_server.kill()
    assert cache.get(KEY) is None
    cache.put(KEY, b"value")
    assert cache.get(OTHER) is None
    assert cache.failures == 1, "after the first failure it was left alone"
    redis_server.start()
    redis_server.client().flushall()
    cache.put(KEY, b"value")
    assert redis_server.client().dbsize() == 0
    clock.now += REST_SECONDS
    cache.put(KEY, b"value")
    assert cache.get(KEY) == b"value"
    assert len(warnings(caplog)) == 1
    assert "searches go on without it" in warnings(caplog)[0]


def test_warnings_come_once_a_minute_and_count(
    open_: Opener, redis_server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_(redis_server.urls["tcp"])
    redis_server.kill()
    for _ in range(3):
        assert cache.get(KEY) is None
        clock.now += REST_SECONDS
    assert cache.failures == 3
    assert len(warnings(caplog)) == 1
    clock.now += QUIET_SECONDS
    assert cache.get(KEY) is None
    assert ["1 times" in warnings(caplog)[0], "4 times" in warnings(caplog)[1]] == [True, True]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_server_that_hangs_is_a_miss(
    open_: Opener, redis_server: RedisServer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_(redis_server.urls[kind])
    cache.put(KEY, b"value")
    redis_server.hang()
    assert cache.get(KEY) is None
    cache.put(KEY, b"value")
    assert cache.failures == 1
    assert "TimeoutError" in warnings(caplog)[0]


def test_it_waits_for_redis_for_moments_only(open_: Opener) -> None:
    stored = open_("redis://127.0.0.1:1/0")._cache
    assert isinstance(stored, RedisCache)
    connection = stored._redis.connection_pool.make_connection()
    assert WAIT_SECONDS == 0.2
    assert connection.socket_timeout == connection.socket_connect_timeout == WAIT_SECONDS
    assert connection.retry._retries == 0
    assert "maint_notifications_config" not in stored._redis.get_connection_kwargs()


def test_a_value_of_another_type_is_a_miss_and_is_replaced(
    open_: Opener, redis_server: RedisServer
) -> None:
    cache, raw = open_(redis_server.urls["tcp"]), redis_server.client()
    cache.put(KEY, b"value")
    (name,) = raw.keys("*")
    raw.delete(name)
    raw.lpush(name, "a list")
    assert cache.get(KEY) is None
    assert cache.failures == 1
    cache.put(KEY, b"value")
    assert cache.get(KEY) == b"value", "one bad key is no reason to leave the others alone"


def test_a_full_server_keeps_nothing_and_stops_nothing(
    open_: Opener, redis_server: RedisServer
) -> None:
    cache = open_(redis_server.urls["tcp"])
    redis_server.client().config_set("maxmemory", "1")
    cache.put(KEY, b"value")
    assert cache.get(KEY) is None
    assert cache.failures == 1


@pytest.mark.parametrize("value", [b"", b"garbage", b"\x80\x04N.", b'{"hits": [{}]}'])
def test_garbage_is_no_answer(open_: Opener, redis_server: RedisServer, value: bytes) -> None:
    cache, raw = open_(redis_server.urls["tcp"]), redis_server.client()
    cache.put(KEY, bytes_of_results(Results((), "hybrid")))
    (name,) = raw.keys("*")
    raw.set(name, value)
    found = cache.get(KEY)
    assert found == value
    assert results_of_bytes(found) is None


def test_a_locked_table_is_a_miss(
    open_: Opener, database: Database, database_urls: DatabaseUrls
) -> None:
    cache = open_("postgres")
    cache.put(KEY, b"value")
    with psycopg.connect(database_urls.migrator) as other:
        other.execute("lock table kb.search_cache")
        assert cache.get(KEY) is None
        assert cache.failures == 1
    with database.transaction() as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("0",)


def test_a_row_that_another_writes_is_not_waited_for(
    open_: Opener, database_urls: DatabaseUrls
) -> None:
    cache = open_("postgres")
    with psycopg.connect(database_urls.writer) as other:
        other.execute("insert into kb.search_cache values (%s, 'theirs', now())", (KEY,))
        cache.put(KEY, b"ours")
        assert cache.failures == 1


def test_no_free_connection_is_a_miss(database_urls: DatabaseUrls) -> None:
    with Database(database_urls.writer, max_size=1) as busy:
        cache = open_cache(CacheSettings(url="postgres"), lambda: busy, database_urls.reader)
        assert isinstance(cache, ForgivingCache)
        with busy.transaction():
            assert cache.get(KEY) is None
            assert cache.failures == 1


def test_a_writer_that_cannot_be_had_is_a_miss(database_urls: DatabaseUrls) -> None:
    def writer() -> Database:
        raise DatabaseUnavailableError("The database could not be reached, or gave up.")

    cache = open_cache(CacheSettings(url="postgres"), writer, database_urls.reader)
    assert isinstance(cache, ForgivingCache)
    cache.put(KEY, b"value")
    assert cache.get(KEY) is None
    assert cache.failures == 1


# What cannot be used.


def test_without_a_url_there_is_no_cache(database_urls: DatabaseUrls) -> None:
    assert open_cache(CacheSettings(), lambda: pytest.fail("asked"), database_urls.reader) is None


@pytest.mark.parametrize(
    "url", ["memcached://s3cret@host", "postgresql://kb:s3cret@host/kb", "redis://:s3cret@host:x/0"]
)
def test_a_wrong_url_is_refused_without_its_password(open_: Opener, url: str) -> None:
    with pytest.raises(SettingsError, match=r"cache\.url") as caught:
        open_(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_without_the_client_it_is_said_what_to_install(
    open_: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SettingsError, match=r"kb-assets\[redis\]"):
        open_("redis://127.0.0.1/0")


# Whole searches.


@pytest.mark.parametrize("end", ["kill", "hang"])
def test_searches_go_on_without_the_server_and_see_what_is_published(
    make_settings: Callable[..., Settings], folder: Path, redis_server: RedisServer, end: str
) -> None:
    (folder / "tides.md").write_text("# Tides\n\nTides rise and fall.\n")
    with KnowledgeBase(make_settings(cache={"url": redis_server.urls["tcp"]})) as kb:
        kb.index()
        first, again = kb.search("tides"), kb.search("tides")
        assert (first.cached, again.cached) == (False, True)
        assert again.hits == first.hits
        assert not kb.search("tides", caller=Caller(sources=("notes",))).cached

        (folder / "moon.md").write_text("# Moon\n\nThe moon makes tides.\n")
        kb.index()
        published = kb.search("tides")
        assert not published.cached
        assert {hit.path for hit in published} == {"tides.md", "moon.md"}

        assert kb.search("tides").cached
        getattr(redis_server, end)()
        alone = kb.search("tides")
        assert not alone.cached
        assert alone.hits == published.hits
