"""From settings to a cache."""

from collections.abc import Callable

from psycopg.conninfo import conninfo_to_dict

from kb_assets.database.connect import Database
from kb_assets.errors import SettingsError
from kb_assets.retrieval.cache.forgiving import ForgivingCache
from kb_assets.retrieval.cache.stores import Cache, PostgresCache, RedisCache
from kb_assets.settings import CacheSettings

_REDIS = ("redis://", "rediss://", "unix://")


def open_cache(
    settings: CacheSettings, writer: Callable[[], Database], reader_url: str
) -> Cache | None:
    """Return the cache that the settings name, or None. It never raises; see `ForgivingCache`.

    Args:
        settings: Where it is.
        writer: Gives the writer's database, when a cache in PostgreSQL is asked.
        reader_url: Where searches read: knowledge bases may share one Redis.

    Raises:
        SettingsError: It is none that can be used.
    """
    if not settings.url:
        return None
    if settings.url == "postgres":
        return ForgivingCache(PostgresCache(writer, ttl_seconds=settings.ttl_seconds))
    if settings.url.startswith(_REDIS):
        cache = RedisCache(
            settings.url, ttl_seconds=settings.ttl_seconds, namespace=_namespace(reader_url)
        )
        from redis.exceptions import ResponseError

        return ForgivingCache(cache, refusals=(ResponseError,))
    raise SettingsError(
        "The URL of the cache cannot be read.",
        why="It begins with none of redis://, rediss:// and unix://, and is not `postgres`.",
        fix="Correct cache.url in kb.toml, or KB_CACHE__URL.",
    )


def _namespace(reader_url: str) -> bytes:
    """Return which database it is, without the password."""
    parts = conninfo_to_dict(reader_url)
    return repr([str(parts.get(name)) for name in ("host", "port", "dbname")]).encode()
