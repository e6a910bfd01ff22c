"""Fewer garbage collections while documents are processed.

Batches are thousands of small values, which Python's collector takes for a reason to look through
all that the process has loaded: a sixth of a first load's time, to find nothing, since none of
them refers to itself. What does is still collected, less often.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (100_000, 20, 100)

_lock = threading.Lock()
_before: list[tuple[int, int, int]] = []


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Let the collector run seldom while the context lasts, in any thread that is in one."""
    with _lock:
        _before.append(gc.get_threshold())
        gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        with _lock:
            before = _before.pop()
            if not _before:
                gc.set_threshold(*before)
