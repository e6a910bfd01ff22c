"""Runs a function over many items in another process, with a cap on time and on memory.

Parsers written in C read what strangers wrote. One that hangs, eats memory or crashes must
cost one document and not the run. This is protection from accidents, and no sandbox: the
worker has the rights of its parent, though not its environment, where secrets are.

Parent and worker exchange pickles, each after its length, over two pipes. The worker is a
fresh interpreter and no fork, so that it does not matter how many threads the parent has or
what its `__main__` is. Two threads of the parent keep both pipes moving, so neither side can
wait for the other for ever.

The worker caps itself. Before each item it sets a timer whose signal nobody handles: the
kernel ends the process on time, wherever it hangs. It ends by itself when its parent is
gone, since its pipe is then at its end.
"""

import contextlib
import importlib
import io
import logging
import os
import pickle
import queue
import resource
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, TypeVar

from kb_assets.errors import DocumentError, PermanentError

T = TypeVar("T")
R = TypeVar("R")

MAX_ITEMS_IN_FLIGHT = 256
MAX_BYTES_IN_FLIGHT = 16 * 1024 * 1024

_LENGTH_BYTES = 8
_OUT_OF_MEMORY = 71
_START_SECONDS = 120.0
_KEPT_ENVIRONMENT = frozenset(
    (
        *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT"),
    )
)


@dataclass(frozen=True, slots=True)
class _Asked(Generic[T]):
    item: T
    frame: bytes


class IsolatedWorker(Generic[T, R]):
    """Calls one pure function in another process; a context manager, used by one thread.

    The process starts with the first item, and again after an item that ended it.
    """

    def __init__(self, function: str, *, seconds: float, memory_bytes: int) -> None:
        """Say what is to be called, and within which bounds.

        Args:
            function: `package.module:name`; takes one item, and both it and what it returns
                can be pickled.
            seconds: The longest one item may take.
            memory_bytes: The most address space it may take beyond that of the idle worker.
        """
        self._function = function
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._process: _Process | None = None
        self._mapping = False

    def __enter__(self) -> "IsolatedWorker[T, R]":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def map(self, items: Iterable[T]) -> Iterator[tuple[T, R | DocumentError]]:
        """Yield each item with its result, in order, while later ones are being worked on.

        Items are taken from the iterable as there is room: at most 256 or 16 MB are in
        flight. An item the function fails on, or does not survive, comes with an error
        whose reason is the function's own, or `parser_failed`, `too_slow`,
        `too_much_memory` or `parser_died`.

        Raises:
            PermanentError: The worker cannot be started, or the function not be imported.
        """
        if self._mapping:
            raise RuntimeError("An IsolatedWorker maps one iterable at a time.")
        self._mapping = True
        asked: deque[_Asked[T]] = deque()
        try:
            coming = iter(items)
            while self._ask(coming, asked) or asked:
                result = self._answer([one.frame for one in asked])
                yield asked.popleft().item, result
        finally:
            self._mapping = False
            if asked:
                self._stop()

    def _ask(self, coming: Iterator[T], asked: "deque[_Asked[T]]") -> bool:
        """Send items while there is room; say whether any was sent."""
        sent = False
        size = sum(len(one.frame) for one in asked)
        while len(asked) < MAX_ITEMS_IN_FLIGHT and (size < MAX_BYTES_IN_FLIGHT or not asked):
            try:
                item = next(coming)
            except StopIteration:
                break
            one = _Asked(item, pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL))
            if self._process is None and not asked:
                self._start()
            asked.append(one)
            size += len(one.frame)
            self._process.send(one.frame)
            sent = True
        return sent
