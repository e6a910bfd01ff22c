"""Where cached values are kept: Redis, or a table of the knowledge base."""

import hashlib
from collections.abc import Callable
from typing import Protocol

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.errors import SettingsError

WAIT_SECONDS = 0.2
"""How long a cache may take: longer, and searching again is as fast."""

_statements = Statements.beside(__file__)


class Cache(Protocol):
    """Values by key, for a while."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if there is none any more."""

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value until its time is over."""

    def close(self) -> None:
        """Close its connections; they are opened again when needed."""


class RedisCache:
    """Redis 7 or what speaks its protocol; keys that expire make room for others there."""

    def __init__(self, url: str, *, ttl_seconds: int, namespace: bytes) -> None:
        """Remember where it is; nothing is connected yet.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            ttl_seconds: How long values are kept.
            namespace: What tells this knowledge base from others that use the same server.

        Raises:
            SettingsError: The client is not installed, or the URL is not one of Redis.
        """
        try:
            import redis
        except ImportError:
            raise SettingsError(
                "The cache cannot be used.",
                why="The client of Redis is not installed.",
                fix="Run `pip install 'kb-assets[redis]'`, or set cache.url = 'postgres'.",
            ) from None
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=WAIT_SECONDS,
                socket_connect_timeout=WAIT_SECONDS,
                # In the newer protocol, a server may ask for longer waits while it is moved.
                protocol=2,
            )
        except ValueError:
            # What the client says of it may quote the password.
            raise SettingsError(
                "The URL of the cache cannot be read.",
                why="It is not of the form redis://user:password@host:port/number.",
                fix="Correct cache.url in kb.toml, or KB_CACHE__URL.",
            ) from None
        self._ttl_seconds = ttl_seconds
        self._namespace = namespace

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if there is none any more."""
        value = self._redis.get(self._name(key))
        return value if isinstance(value, bytes) else None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value until its time is over, whatever had its key before."""
        self._redis.set(self._name(key), value, ex=self._ttl_seconds)

    def close(self) -> None:
        """Close its connections; they are opened again when needed."""
        self._redis.close()

    def _name(self, key: bytes) -> str:
        return f"kb:cache:{hashlib.sha256(self._namespace + key).hexdigest()}"


class PostgresCache:
    """The table `kb.search_cache`: no other server is needed, and a crash empties it."""

    def __init__(self, writer: Callable[[], Database], *, ttl_seconds: int) -> None:
        """Remember where it is; nothing is connected yet.

        Args:
            writer: Gives the writer's database when there is something to look up or keep.
            ttl_seconds: How long values are kept.
        """
        self._writer = writer
        self._ttl_seconds = ttl_seconds

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if there is none any more."""
        with self._writer().transaction(wait_seconds=WAIT_SECONDS) as connection:
            connection.execute(_statements("limit_wait"), {"wait": _WAIT})
            row = connection.execute(_statements("find_cached"), {"key": key}).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value until its time is over; a few whose time is over are taken away."""
        named = {"key": key, "value": value, "ttl_seconds": self._ttl_seconds}
        with self._writer().transaction(wait_seconds=WAIT_SECONDS) as connection:
            connection.execute(_statements("limit_wait"), {"wait": _WAIT})
            connection.execute(_statements("keep_cached"), named)

    def close(self) -> None:
        """Leave the database to whoever opened it."""


_WAIT = f"{WAIT_SECONDS * 1000:.0f}ms"
