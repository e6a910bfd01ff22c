"""How long each part of a search takes."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """How long each part of a search takes."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._parts: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the context to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self._parts[name] = self._parts.get(name, 0.0) + took

    def seconds(self) -> Mapping[str, float]:
        """Return the seconds of each part so far, and of all."""
        parts = {**self._parts, "total": time.perf_counter() - self._started}
        return {name: round(value, 6) for name, value in parts.items()}
