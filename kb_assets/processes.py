"""Worker processes, and how they are kept from one use to the next.

Each is a fresh interpreter and no fork, so that it does not matter how many threads the parent
has or what its `__main__` is. Two threads of the parent for each keep both pipes moving, so that
neither side can wait for the other for ever. To start one takes a tenth of a second of a core.
"""

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO, cast

from kb_assets.isolated import read_frame, write_frame

MAX_BYTES_IN_FLIGHT = 16 * 1024 * 1024
"""What may wait to be received from one process."""

_KEPT_ENVIRONMENT = (
    *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a process may use.

    Attributes:
        seconds: The longest one item may take.
        memory_bytes: The most address space one may take beyond that of the idle process.
    """

    seconds: float
    memory_bytes: int


class Process:
    """A worker process, and the two threads that move frames to and from it."""

    def __init__(self, bounds: Bounds) -> None:
        """Start it."""
        self.bounds = bounds
        kept = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
        path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kb_assets.isolated", *map(str, astuple(bounds))],
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

    @property
    def has_ended(self) -> bool:
        """Whether it is gone, and nothing more will be received."""
        return self._inbox.at_end

    def send(self, frame: bytes) -> None:
        """Send a frame as soon as it takes it."""
        self._outbox.put(frame)

    def receive(self, seconds: float) -> bytes | None:
        """Return the next frame; None if the process has ended.

        Raises:
            TimeoutError: None came in time.
        """
        return self._inbox.get(seconds)

    def end(self) -> int:
        """See the process off, and return its exit status; below 0 the signal that ended it."""
        if self.has_ended:
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


class _Spares:
    """Idle processes that wait for their next use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keepers = 0
        self._processes: list[Process] = []

    def take(self, bounds: Bounds) -> Process | None:
        with self._lock:
            fit = [one for one in self._processes if one.bounds == bounds and not one.has_ended]
            if not fit:
                return None
            self._processes.remove(fit[0])
            return fit[0]

    def keep(self, process: Process) -> bool:
        with self._lock:
            if self._keepers:
                self._processes.append(process)
            return self._keepers > 0

    def open(self) -> None:
        with self._lock:
            self._keepers += 1

    def close(self) -> None:
        with self._lock:
            self._keepers -= 1
            left = [] if self._keepers else self._processes
            if left:
                self._processes = []
        for process in left:
            process.end()


_spares = _Spares()


@contextlib.contextmanager
def kept_processes() -> Iterator[None]:
    """Keep processes that are no longer used for the next use, until the context ends."""
    _spares.open()
    try:
        yield
    finally:
        _spares.close()


def idle_process(bounds: Bounds) -> Process:
    """Return a process that has nothing to do: one that was kept, or a new one."""
    return _spares.take(bounds) or Process(bounds)


def release(process: Process) -> None:
    """Give back a process that has nothing to do."""
    if not _spares.keep(process):
        process.end()
