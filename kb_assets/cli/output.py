"""What is printed: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kb_assets.cli.excerpt import visible


class _Console(Console):
    """A console that leaves it to `main` what becomes of a reader that is gone."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Return the console for what a command finds."""
    return _Console(highlight=False, markup=False, emoji=False)


def error_console() -> Console:
    """Return the console for progress and errors."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


@contextmanager
def watching(words: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how much of how much is done, and how long the rest will take."""
    out = error_console()
    if not out.is_terminal:
        yield lambda done, of: None
        return
    from rich.progress import Progress

    with Progress(console=out, transient=True) as progress:
        task = progress.add_task(words, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value as JSON has it: dataclasses by their fields, dates in ISO, bytes in hex."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    return value


def print_json(value: Any) -> None:  # noqa: ANN401
    """Print one JSON document."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def indent(out: Console, text: Text, columns: int) -> None:
    """Print a text wrapped between words, some columns in, without blanks at the ends of lines."""
    for line in text.wrap(out, max(20, out.width - columns)):
        line.rstrip()
        out.print(Text(" " * columns) + line, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> Table:
    """Return a table: text on the left, numbers right-aligned after it.

    Args:
        columns: The headings.
        rows: What stands below them.
        text_columns: How many columns are text; they fold, the numbers never do.
    """
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        if place < text_columns:
            made.add_column(name, overflow="fold")
        else:
            made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(visible(cell)) for cell in row))
    return made


def number(value: float | None) -> str:
    """Return a count with its thousands apart; a dot for nothing, so that the rest stands out."""
    if value is None:
        return "?"
    return f"{value:,}" if value else "·"


def dollars(amount: float) -> str:
    """Return an amount, with as many digits as it takes to see that it is not zero."""
    if amount == 0:
        return "0 USD"
    return f"{amount:.2f} USD" if amount >= 0.01 else f"{amount:.6f} USD"


def size(count: float) -> str:
    """Return a number of bytes in the unit a person would use."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def ago(moment: datetime | None) -> str:
    """Return how long ago something was."""
    if moment is None:
        return "never"
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for limit, length, unit in ((60, 1, "s"), (3600, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds // 86_400)} days ago"


def count_of(number_: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: `1 document`, `2 documents`."""
    return f"{number_:,} {singular if number_ == 1 else plural or singular + 's'}"
