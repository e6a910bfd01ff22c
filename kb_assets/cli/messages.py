"""`kb messages`: conversations come in, and are read in windows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from kb_assets.cli import exits
from kb_assets.cli.session import COMMON_OPTIONS, KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.messages.jsonl import Imported, Watch
    from kb_assets.messages.window import Window

_STDIN = "<stdin>"


@click.group(params=list(COMMON_OPTIONS))
def messages() -> None:
    """Take in the messages of conversations, and read windows of them."""


@messages.command(name="import", cls=KbCommand)
@click.argument("file", type=click.File("rb"))
@pass_session
def import_(session: Session, file: BinaryIO) -> int:
    """Take in a message from each line of FILE (`-` for standard input).

    A line is a JSON object with id, conversation, created_at (ISO 8601 with a zone), role and
    content; and, if wanted, user, language, intent, metadata and token_count. What is stored
    already is not stored twice, so a file can be imported again.

    Lines that cannot be taken in stop no others. They are kept in FILE.rejected, and why in
    FILE.reasons; the exit code is 5 then.
    """
    from kb_assets.errors import MessageRefusedError
    from kb_assets.messages.jsonl import import_lines

    beside = Path("stdin.jsonl" if file.name == _STDIN else file.name)
    with session.knowledge_base() as kb, _watching(file) as watch:
        imported = import_lines(kb.messages, file, beside, watch=watch)
    if session.as_json:
        from kb_assets.cli.output import plain, print_json

        document = plain(imported)
        print_json({**document.pop("appended"), **document})
    else:
        _print_imported(imported)
    return MessageRefusedError.exit_code if imported.rejected else exits.DONE


@messages.command(cls=KbCommand)
@click.argument("conversation")
@click.option("--tokens", type=click.IntRange(min=0), help="How many tokens fit; or else")
@click.option("--bytes", "bytes_", type=click.IntRange(min=0), help="how many bytes.")
@pass_session
def window(session: Session, conversation: str, tokens: int | None, bytes_: int | None) -> int:
    """Print the newest messages of CONVERSATION that fit together, oldest first."""
    if (tokens is None) == (bytes_ is None):
        raise click.UsageError("Say how much fits: --tokens or --bytes.")
    with session.knowledge_base() as kb:
        found = kb.messages.window(conversation, max_tokens=tokens, max_bytes=bytes_)
    if session.as_json:
        from kb_assets.cli.output import print_json

        print_json(found)
    else:
        _print_window(found)
    return exits.DONE


@contextmanager
def _watching(file: BinaryIO) -> "Iterator[Watch]":
    """Show on a terminal how many lines were read, and how much of the file is left."""
    from kb_assets.cli.output import error_console

    out = error_console()
    if not out.is_terminal:
        yield lambda so_far: None
        return
    from rich.progress import Progress

    path = Path(file.name)
    size = path.stat().st_size if path.is_file() else None
    with Progress(console=out, transient=True) as progress:
        task = progress.add_task("Importing", total=size)

        def show(so_far: "Imported") -> None:
            done = file.tell() if size else None
            progress.update(task, completed=done, description=f"{so_far.lines:,} lines")

        yield show


def _print_imported(imported: "Imported") -> None:
    from kb_assets.cli.output import console, count_of

    out, appended = console(), imported.appended
    out.print(f"{count_of(appended.added, 'message')} stored.", style="green")
    for number, words in (
        (appended.late, "for months that are closed; the archive takes them in its next run."),
        (appended.repeated, "stored already."),
        (appended.erased, "left out: their conversations were erased."),
    ):
        if number:
            out.print(f"{count_of(number, 'message')} {words}", soft_wrap=True)
    if imported.rejected:
        rejected = count_of(imported.rejected, "line")
        out.print(f"{rejected} rejected: see {imported.rejected_file},", style="red", end=" ")
        out.print(f"and why: {imported.reasons_file}.", style="red", soft_wrap=True)


def _print_window(found: "Window") -> None:
    from rich.text import Text

    from kb_assets.cli.excerpt import visible
    from kb_assets.cli.output import console, count_of, indent

    out = console()
    if found.earlier:
        out.print(f"{count_of(found.earlier, 'earlier message')}\n", style="dim")
    for one in found.messages:
        head: Any = Text.assemble(
            (one.role, "bold cyan"),
            f"  {one.created_at:%Y-%m-%d %H:%M:%S} UTC",
            (f"  {count_of(one.token_count, 'token')}", "dim"),
        )
        out.print(head, soft_wrap=True)
        for line in visible(one.content).strip("\n").split("\n"):
            indent(out, Text(line), 4)
        out.print()
