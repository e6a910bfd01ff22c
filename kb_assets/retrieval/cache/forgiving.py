"""A cache that may fail: searches go on, and do not wait for it again and again."""

import logging
import threading
import time
from collections.abc import Callable

from kb_assets.retrieval.cache.stores import Cache

MAX_VALUE_BYTES = 1_000_000
"""Larger values are not kept: what they would push out is worth more."""

REST_SECONDS = 5.0
"""How long a cache that failed is left alone."""

QUIET_SECONDS = 60.0
"""The least time between two warnings."""

_log = logging.getLogger(__name__)


class ForgivingCache:
    """A cache whose failures look like misses, are counted, and are told now and then.

    Attributes:
        failures: How often it failed.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        refusals: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap a cache.

        Args:
            cache: The one that may fail.
            refusals: How it refuses a single key or value; after any other error it is left
                alone for a while.
            clock: Tells the time, in seconds.
        """
        self.failures = 0
        self._cache = cache
        self._refusals = refusals
        self._clock = clock
        self._lock = threading.Lock()
        self._rests_until = self._quiet_until = float("-inf")

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if there is none, or none can be had."""
        if self._rests():
            return None
        try:
            return self._cache.get(key)
        except Exception as error:  # whatever it is, the search does not need the cache
            self._failed(error)
            return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value until its time is over, if it is not too large and that is possible."""
        if len(value) > MAX_VALUE_BYTES or self._rests():
            return
        try:
            self._cache.put(key, value)
        except Exception as error:  # as above
            self._failed(error)

    def close(self) -> None:
        """Close its connections; they are opened again when needed."""
        self._cache.close()

    def _rests(self) -> bool:
        return self._clock() < self._rests_until

    def _failed(self, error: Exception) -> None:
        now = self._clock()
        with self._lock:
            self.failures += 1
            if not isinstance(error, self._refusals):
                self._rests_until = now + REST_SECONDS
            if now < self._quiet_until:
                return
            self._quiet_until = now + QUIET_SECONDS
        _log.warning(
            "The cache failed (%s: %s), %d times so far; searches go on without it.",
            type(error).__name__,
            error,
            self.failures,
        )
