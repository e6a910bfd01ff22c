"""Lines that were not taken in, kept as they were, and why."""

import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from kb_assets.errors import MessageRefusedError, SourceError


class Rejects:
    """Two new files, made with the first line they are for.

    `NAME.rejected` has the lines, unchanged: once mended, it can be imported. `NAME.reasons` has
    a line of JSON for each of them, in the same order. Files that are there are left alone: the
    next ones are called `NAME.rejected.2` and `NAME.reasons.2`.

    Attributes:
        count: How many lines there are.
        lines_file: Where they are, if there are any.
        reasons_file: Where the reasons are.
    """

    def __init__(self, beside: Path) -> None:
        """Remember what the lines come from; nothing is made yet."""
        self._beside = beside
        self._lines: BinaryIO | None = None
        self._reasons: BinaryIO | None = None
        self.count = 0
        self.lines_file: Path | None = None
        self.reasons_file: Path | None = None

    def add(self, number: int, error: MessageRefusedError, line: Iterable[bytes]) -> None:
        """Keep a line.

        Args:
            number: Which line it is, from 1.
            error: Why it was not taken in.
            line: The line, in any number of pieces.

        Raises:
            SourceError: The files cannot be made.
        """
        lines, reasons = self._opened()
        last = b""
        for last in line:
            lines.write(last)
        if not last.endswith(b"\n"):
            lines.write(b"\n")
        told = {"line": number, "reason": error.reason, "what": error.what, "why": error.why}
        reasons.write(json.dumps({**told, "fix": error.fix}).encode() + b"\n")
        self.count += 1

    def __enter__(self) -> "Rejects":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._lines, self._reasons):
            if file is not None:
                file.close()

    def _opened(self) -> tuple[BinaryIO, BinaryIO]:
        if self._lines is None or self._reasons is None:
            try:
                self._open()
            except OSError as error:
                raise SourceError(
                    f"Lines that are rejected cannot be kept beside {self._beside}.",
                    why=str(error.strerror or error),
                    fix="Import it from a folder that can be written to.",
                ) from error
        assert self._lines is not None and self._reasons is not None
        return self._lines, self._reasons

    def _open(self) -> None:
        for number in count(1):
            end = "" if number == 1 else f".{number}"
            lines = self._beside.with_name(f"{self._beside.name}.rejected{end}")
            try:
                self._lines = lines.open("xb")
            except FileExistsError:
                continue
            self.lines_file = lines
            self.reasons_file = lines.with_name(f"{self._beside.name}.reasons{end}")
            self._reasons = self.reasons_file.open("wb")
            return
