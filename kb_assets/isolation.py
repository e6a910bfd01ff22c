"""Runs a function over many items in other processes, with a cap on time and on memory.

Parsers written in C read what strangers wrote. One that hangs, eats memory or crashes must
cost one document and not the run. This is protection from accidents, and no sandbox: the
worker has the rights of its parent, though not its environment, where secrets are.

Parent and worker (`isolated.py`) exchange pickles, each after its length, over two pipes.
The worker is a fresh interpreter and no fork, so that it does not matter how many threads
the parent has or what its `__main__` is. Two threads of the parent for each worker keep both
pipes moving, so that neither side can wait for the other for ever.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import IO, Generic, TypeVar, cast

from kb_assets.errors import DocumentError, PermanentError
from kb_assets.isolated import OUT_OF_MEMORY, read_frame, write_frame

T = TypeVar("T")
R = TypeVar("R")

MAX_ITEMS_IN_FLIGHT = 256
MAX_BYTES_IN_FLIGHT = 16 * 1024 * 1024

_START_SECONDS = 120.0
_KEPT_ENVIRONMENT = (
    *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
)


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
        bounds = _Bounds(function, seconds, memory_bytes)
        self._lanes = [_Lane[R](bounds) for _ in range(processes)]
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

    def begin(self, items: Iterable[T]) -> Iterator[R | DocumentError]:
        """Send all items now, and return their results, in order, when they are asked for.

        It is for the caller to bound how much that is. Results of earlier items must be taken
        first, and to the end.

        Raises:
            PermanentError: A worker cannot be started, or the function not be imported.
        """
        asked: list[_Lane[R]] = []
        for item, lane in zip(items, cycle(self._lanes), strict=False):
            lane.ask(pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL))
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
            frame = pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
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


@dataclass(frozen=True, slots=True)
class _Bounds:
    function: str
    seconds: float
    memory_bytes: int


class _Lane(Generic[R]):
    """One process after the other, and what was asked of it, answered in order."""

    def __init__(self, bounds: _Bounds) -> None:
        self._bounds = bounds
        self._process: _Process | None = None
        self._greeted = False
        self._asked: deque[bytes] = deque()

    def ask(self, frame: bytes) -> None:
        self._asked.append(frame)
        if self._process is None:
            self._start()
        else:
            self._process.send(frame)

    def answer(self) -> R | DocumentError:
        """Return the result of the first item, or why its process ended."""
        if self._process is None:
            self._start()
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
        self._asked.clear()
        self._stop()

    def _start(self) -> None:
        bounds = self._bounds
        arguments = [bounds.function, str(bounds.seconds), str(bounds.memory_bytes)]
        self._process = _Process([sys.executable, "-P", "-m", "kb_assets.isolated", *arguments])
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
            f"The worker process for {self._bounds.function} cannot be started.",
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


class _Process:
    """A worker process, and the two threads that move frames to and from it."""

    def __init__(self, command: list[str]) -> None:
        kept = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
        path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**kept, "PYTHONPATH": path},
        )
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._inbox = _Inbox()
        self._threads = [
            threading.Thread(target=move, name=f"kb-isolation-{move.__name__}", daemon=True)
            for move in (self._write, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, frame: bytes) -> None:
        self._outbox.put(frame)

    def receive(self, seconds: float) -> bytes | None:
        """Return the next frame; None if the process has ended."""
        return self._inbox.get(seconds)

    def end(self) -> int:
        """See the process off, and return its exit status; below 0 the signal that ended it."""
        ended_by_itself = self._inbox.at_end
        if ended_by_itself:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self._process.kill()
        status = self._process.wait()
        self._outbox.put(None)
        self._inbox.close()
        for thread in self._threads:
            thread.join()
        return status

    def _write(self) -> None:
        pipe = cast("IO[bytes]", self._process.stdin)
        with contextlib.suppress(OSError), pipe:
            while (frame := self._outbox.get()) is not None:
                write_frame(pipe, frame)

    def _read(self) -> None:
        pipe = cast("IO[bytes]", self._process.stdout)
        with contextlib.suppress(OSError), pipe:
            while (frame := read_frame(pipe)) is not None:
                self._inbox.put(frame)
        self._inbox.finish()


class _Inbox:
    """Frames that were received and not yet asked for, bounded by their bytes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self.at_end = False

    def put(self, frame: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < MAX_BYTES_IN_FLIGHT or self._closed)
            self._frames.append(frame)
            self._bytes += len(frame)
            self._changed.notify_all()

    def get(self, seconds: float) -> bytes | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._frames or self.at_end, seconds):
                raise TimeoutError
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._bytes -= len(frame)
            self._changed.notify_all()
            return frame

    def finish(self) -> None:
        with self._changed:
            self.at_end = True
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _signal_name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"
