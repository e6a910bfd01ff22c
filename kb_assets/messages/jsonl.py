"""Messages from lines of JSON, however many: no more of them is in memory than a transaction."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import BinaryIO

from kb_assets.errors import MessageRefusedError
from kb_assets.messages.intake import Appended, Messages
from kb_assets.messages.message import Message
from kb_assets.messages.plan import MAX_BYTES, MAX_MESSAGES
from kb_assets.messages.rejects import Rejects

MAX_LINE_BYTES = 64 * 1024**2
"""The most bytes of a line that is read as a message."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Imported:
    """What became of the lines of a file.

    Attributes:
        lines: How many there were; empty ones do not count.
        appended: What became of those that are messages.
        rejected: How many could not be taken in.
        rejected_file: Where those are, unchanged, if there are any.
        reasons_file: Why each of them was not, in the same order.
    """

    lines: int = 0
    appended: Appended = field(default_factory=Appended)
    rejected: int = 0
    rejected_file: Path | None = None
    reasons_file: Path | None = None


Watch = Callable[[Imported], None]
"""Told how far an import is, after each transaction."""


def import_lines(
    messages: Messages,
    stream: BinaryIO,
    beside: Path,
    *,
    watch: Watch = lambda so_far: None,
) -> Imported:
    """Take in a message from each line; see `Message.from_json`.

    A line that is no message, or that cannot be taken in, stops no other. What was stored stays
    stored: after an error or an interruption, import the same file again.

    Args:
        messages: Where they go.
        stream: The lines.
        beside: What the files of rejected lines are named after; see `Rejects`.
        watch: Told how far it is.

    Raises:
        SourceError: Rejected lines cannot be kept.
        DatabaseUnavailableError: The database was lost.
    """
    with Rejects(beside) as rejects:
        work = _Import(messages, rejects, watch)
        for number in count(1):
            line = stream.readline(MAX_LINE_BYTES)
            if not line:
                break
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                work.skip(number, line, stream)
            elif line.strip():
                work.take(number, line)
        work.flush()
    return work.imported


class _Import:
    """Lines that are read, and those of them that wait for their transaction."""

    def __init__(self, messages: Messages, rejects: Rejects, watch: Watch) -> None:
        self.imported = Imported()
        self._messages = messages
        self._rejects = rejects
        self._watch = watch
        self._waiting: list[tuple[int, bytes, Message]] = []
        self._waiting_bytes = 0

    def take(self, number: int, line: bytes) -> None:
        """Read a line as a message."""
        self.imported.lines += 1
        try:
            message = Message.from_json(line.removeprefix(_BYTE_ORDER_MARK))
        except MessageRefusedError as error:
            self._reject(number, error, iter((line,)))
            return
        self._waiting.append((number, line, message))
        self._waiting_bytes += len(line)
        if self._waiting_bytes >= MAX_BYTES or len(self._waiting) >= MAX_MESSAGES:
            self.flush()

    def skip(self, number: int, start: bytes, stream: BinaryIO) -> None:
        """Put a line aside that is too long to be read."""
        self.imported.lines += 1
        what = f"The line has more than {MAX_LINE_BYTES:,} bytes."
        self._reject(number, MessageRefusedError("line_too_long", what), _pieces(start, stream))

    def flush(self) -> None:
        """Store the messages that wait."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0

        def refused(place: int, error: MessageRefusedError) -> None:
            number, line, _ = waiting[place]
            self._reject(number, error, iter((line,)))

        batch = (message for _, _, message in waiting)
        self.imported.appended += self._messages.append(batch, on_refused=refused)
        self._watch(self.imported)

    def _reject(self, number: int, error: MessageRefusedError, line: Iterator[bytes]) -> None:
        self._rejects.add(number, error, line)
        self.imported.rejected = self._rejects.count
        self.imported.rejected_file = self._rejects.lines_file
        self.imported.reasons_file = self._rejects.reasons_file


def _pieces(start: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a line, from what has been read of it on."""
    piece = start
    while piece:
        yield piece
        if piece.endswith(b"\n"):
            return
        piece = stream.readline(MAX_LINE_BYTES)
