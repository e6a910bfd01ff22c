"""Runs a function over many items in other processes, with a cap on time and on memory.

Parsers written in C read what strangers wrote. One that hangs, eats memory or crashes must
cost one document and not the run. This is protection from accidents, and no sandbox: the
worker has the rights of its parent, though not its environment, where secrets are.

Parent and worker (`isolated.py`) exchange pickles, each after its length, over two pipes
(`processes.py`).
"""

import os
import pickle
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Generic, TypeVar, cast

from kb_assets.errors import DocumentError, PermanentError
from kb_assets.isolated import OUT_OF_MEMORY, call_frame, item_frame
from kb_assets.processes import MAX_BYTES_IN_FLIGHT, Bounds, Process, idle_process, release

T = TypeVar("T")
R = TypeVar("R")

MAX_ITEMS_IN_FLIGHT = 256

_START_SECONDS = 120.0


class IsolatedWorker(Generic[T, R]):
    """Calls one pure function in other processes; a context manager, used by one thread.

    Processes start with the first items, and again after an item that ended one.
    """

    def __init__(
        self, function: str, *, seconds: float, memory_bytes: int, processes: int = 1
    ) -> None:
        """Say what is to be called, and within which bounds.

        Args:
            function: `package.module:name`; it takes one item, and both that and what it
                returns can be pickled.
            seconds: The longest one item may take.
            memory_bytes: The most address space it may take beyond that of the idle worker.
            processes: How many items are worked on at once.
        """
        bounds = Bounds(seconds, memory_bytes)
        self._lanes = [_Lane[R](function, bounds) for _ in range(processes)]
        self._asked: deque[tuple[T, int, _Lane[R]]] = deque()
        self._bytes_asked = 0

    def __enter__(self) -> "IsolatedWorker[T, R]":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def map(self, items: Iterable[T]) -> Iterator[tuple[T, R | DocumentError]]:
        """Yield each item with its result, in order, while later ones are being worked on.

        Items are taken from the iterable as there is room: at most 256 or 16 MB are in
        flight. An item the function fails on, or does not survive, comes with an error
        whose reason is the function's own, or `parser_failed`, `too_slow`,
        `too_much_memory` or `parser_died`. Leaving the loop early ends the processes.

        Raises:
            PermanentError: A worker cannot be started, or the function not be imported.
        """
        if self._asked:
            raise RuntimeError("An IsolatedWorker maps one iterable at a time.")
        coming = iter(items)
        lanes = cycle(self._lanes)
        try:
            self._ask(coming, lanes)
            while self._asked:
                item, size, lane = self._asked[0]
                result = lane.answer()
                self._asked.popleft()
                self._bytes_asked -= size
                self._ask(coming, lanes)
                yield item, result
        finally:
            if self._asked:
                self._asked.clear()
                self._bytes_asked = 0
                self._end()

    def start(self) -> None:
        """Start the processes now, for items that come later."""
        for lane in self._lanes:
            lane.start()

    def begin(self, items: Iterable[T]) -> Iterator[R | DocumentError]:
        """Send all items now, and return their results, in order, when they are asked for.

        It is for the caller to bound how much that is. Results of earlier items must be taken
        first, and to the end.

        Raises:
            PermanentError: A worker cannot be started, or the function not be imported.
        """
        asked: list[_Lane[R]] = []
        for item, lane in zip(items, cycle(self._lanes), strict=False):
            lane.ask(item_frame(item))
            asked.append(lane)
        return (lane.answer() for lane in asked)

    def _ask(self, coming: Iterator[T], lanes: "Iterator[_Lane[R]]") -> None:
        """Send items while there is room; for one there always is."""
        while not self._asked or (
            len(self._asked) < MAX_ITEMS_IN_FLIGHT and self._bytes_asked < MAX_BYTES_IN_FLIGHT
        ):
            try:
                item = next(coming)
            except StopIteration:
                return
            frame = item_frame(item)
            lane = next(lanes)
            lane.ask(frame)
            self._asked.append((item, len(frame), lane))
            self._bytes_asked += len(frame)

    def _end(self) -> None:
        for lane in self._lanes:
            lane.end()


def processes_worth_having() -> int:
    """Return how many processes keep this machine's cores busy, and its memory free."""
    return min(len(os.sched_getaffinity(0)), 8)


class _Lane(Generic[R]):
    """One process after the other, and what was asked of it, answered in order."""

    def __init__(self, function: str, bounds: Bounds) -> None:
        self._function = function
        self._bounds = bounds
        self._process: Process | None = None
        self._greeted = False
        self._asked: deque[bytes] = deque()

    def ask(self, frame: bytes) -> None:
        self._asked.append(frame)
        if self._process is None:
            self.start()
        else:
            self._process.send(frame)

    def answer(self) -> R | DocumentError:
        """Return the result of the first item, or why its process ended."""
        self.start()
        self._greet()
        assert self._process is not None
        try:
            reply = self._process.receive(2 * self._bounds.seconds + 60)
        except TimeoutError:
            # Its own timer should have ended it: the process, or the machine, was stopped.
            self._stop()
            reply, status = None, -signal.SIGALRM
        else:
            status = 0 if reply is not None else self._stop()
        self._asked.popleft()
        if reply is None:
            return self._cause_of_death(status)
        return cast("R | DocumentError", pickle.loads(reply))

    def end(self) -> None:
        if self._process is not None and self._greeted and not self._asked:
            release(self._process)
            self._process = None
        self._asked.clear()
        self._stop()

    def start(self) -> None:
        if self._process is not None:
            return
        self._process = idle_process(self._bounds)
        self._process.send(call_frame(self._function))
        self._greeted = False
        for frame in self._asked:
            self._process.send(frame)

    def _greet(self) -> None:
        """Make sure that the process has come up.

        Raises:
            PermanentError: It has not, or cannot call the function.
        """
        if self._greeted:
            return
        assert self._process is not None
        try:
            problem = self._process.receive(_START_SECONDS)
        except TimeoutError:
            problem = b"It did not come up in time."
        if problem == b"":
            self._greeted = True
            return
        status = self._stop()
        raise PermanentError(
            f"The worker process for {self._function} cannot be started.",
            why=problem.decode() if problem else f"It ended with status {status}.",
            fix="Mend the import; if memory is short, raise limits.parse_memory_bytes.",
        )

    def _stop(self) -> int:
        process, self._process = self._process, None
        return 0 if process is None else process.end()

    def _cause_of_death(self, status: int) -> DocumentError:
        if status == -signal.SIGALRM:
            return DocumentError(
                "too_slow",
                f"It took more than {self._bounds.seconds:g} seconds.",
                why="It is very large, or made to keep a parser busy.",
                fix="Split it, or raise limits.parse_seconds.",
            )
        if status == OUT_OF_MEMORY:
            return DocumentError(
                "too_much_memory",
                f"It needs more than {self._bounds.memory_bytes // 2**20} MB of memory.",
                why="It is very large, or grows when it is unpacked.",
                fix="Split it, or raise limits.parse_memory_bytes.",
            )
        return DocumentError(
            "parser_died",
            "The process that read it ended.",
            why=f"By {_signal_name(status)}: a broken file, or no memory left on the machine.",
            fix="Save the document again in another program.",
        )


def _signal_name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"
