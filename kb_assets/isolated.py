"""The worker's side of `isolation.py`: `python -m kb_assets.isolated seconds bytes`.

It is told what to call, and then what to call it with; later, perhaps, to call something else.

It caps itself. Before each item it sets a timer whose signal nobody handles: the kernel ends
the process on time, in whatever code it hangs. When its parent is gone its pipe is at its
end, and so is it.
"""

import importlib
import logging
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from kb_assets.errors import DocumentError

OUT_OF_MEMORY = 71
"""Exit status of a worker whose item needed more memory than it may have."""

_LENGTH_BYTES = 8
_CALL, _ITEM = b"c", b"i"

T = TypeVar("T")
R = TypeVar("R")


def attempt(function: Callable[[T], R], item: T) -> R | DocumentError:
    """Return what a function makes of an item, or why it fails on it.

    A worker answers with this, and so does whoever works on an item without one.

    Raises:
        MemoryError: There was not enough memory, which says little about the item.
    """
    try:
        return function(item)
    except MemoryError:
        raise
    except DocumentError as error:
        return error
    except Exception as error:
        return DocumentError(
            "parser_failed",
            "The parser failed on it.",
            why=f"{type(error).__name__}: {error}"[:500],
            fix="Save the document again in another program, or exclude it.",
        )


def write_frame(pipe: IO[bytes], frame: bytes) -> None:
    """Write bytes after their length, and flush."""
    pipe.write(len(frame).to_bytes(_LENGTH_BYTES, "big"))
    pipe.write(frame)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes | None:
    """Return the next frame; None at the end, also in the middle of a frame."""
    head = pipe.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "big")
    frame = pipe.read(length)
    return frame if len(frame) == length else None


def call_frame(function: str) -> bytes:
    """Return the request to call `package.module:name` from now on."""
    return _CALL + function.encode()


def item_frame(item: object) -> bytes:
    """Return the request to call the function with an item."""
    return _ITEM + pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)


def serve(seconds: float, memory_bytes: int) -> None:
    """Answer requests until there are no more.

    The answer to what shall be called says why that cannot be; it is empty if it can.
    """
    requests, replies = _take_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    logging.getLogger().addHandler(logging.NullHandler())
    call: Callable[[Any], Any] = _nothing
    while (request := read_frame(requests)) is not None:
        if request.startswith(_ITEM):
            write_frame(replies, _reply(call, memoryview(request)[1:], seconds))
            continue
        try:
            _uncap()
            call = _find(request[1:].decode())
            _cap(memory_bytes)
        except Exception as error:
            write_frame(replies, f"{type(error).__name__}: {error}".encode())
            return
        write_frame(replies, b"")


def _nothing(item: object) -> None:
    raise RuntimeError("An item came before what shall be called.")


def _reply(call: Callable[[Any], Any], request: memoryview, seconds: float) -> bytes:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        reply = attempt(lambda frame: _pickled(call(pickle.loads(frame))), request)
        return _pickled(reply) if isinstance(reply, DocumentError) else reply
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _pickled(value: object) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Keep the pipes to ourselves: what a library prints goes to standard error."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, replies


def _find(function: str) -> Callable[[Any], Any]:
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not callable(found):
        raise TypeError(f"{function} cannot be called")
    return found  # type: ignore[no-any-return]


def _uncap() -> None:
    """Let an import take what it needs: what it loads is not an item's doing."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _cap(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    idle = Path("/proc/self/statm")
    if idle.exists():
        pages = int(idle.read_text().split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


if __name__ == "__main__":
    serve(float(sys.argv[1]), int(sys.argv[2]))
