"""What `test_isolation.py` has its worker call: functions that do what broken parsers do."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from kb_assets.errors import DocumentError


def behave(item: tuple[str, object]) -> object:
    what, argument = item
    return globals()[f"_{what}"](argument)


def _echo(argument: object) -> object:
    return argument


def _sleep(_: object) -> None:
    time.sleep(3600)


def _hang_in_c(_: object) -> None:
    ctypes.PyDLL(None).sleep(3600)


def _ignore_signals(_: object) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM, signal.SIGINT})
    time.sleep(3600)


def _kill(number: object) -> None:
    os.kill(os.getpid(), int(str(number)))


def _segfault(_: object) -> None:
    ctypes.string_at(0)


def _leave(_: object) -> None:
    sys.exit(3)


def _allocate(size: object) -> int:
    return len(bytes(int(str(size))))


def _big(size: object) -> bytes:
    return bytes(int(str(size)))


def _print(argument: object) -> object:
    print("noise on standard output")
    sys.stdout.flush()
    os.write(1, b"\xff" * 1000)
    return argument


def _read_standard_input(_: object) -> str:
    return sys.stdin.read()


def _refuse(_: object) -> None:
    raise DocumentError("binary", "It is not text.", why="Because.", fix="Do.")


def _fail(_: object) -> None:
    raise ZeroDivisionError("a bug")


def _recurse(argument: object) -> object:
    return _recurse(argument)


def _unpicklable(_: object) -> object:
    return lambda: None


def _process(_: object) -> int:
    return os.getpid()


def _variable(name: object) -> str | None:
    return os.environ.get(str(name))


def _mark(folder: object) -> None:
    Path(str(folder), str(os.getpid())).touch()
    time.sleep(3600)


NOT_A_FUNCTION = 1
