"""`kb search`: passages that answer a question."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kb_assets.cli.excerpt import excerpt, question_words, visible
from kb_assets.cli.filters import filter_options
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from rich.text import Text

    from kb_assets.retrieval.hits import Hit, Results

_HASH_WARNING = (
    "Found by words, not by meaning (embedding.provider = hash). "
    "For meaning, set a provider in kb.toml."
)
_NOTHING = "Nothing was found."
_ABOUT = ("mode", "provider", "space", "notes", "seconds", "cached")

Command = TypeVar("Command", bound=Callable[..., Any])


def ranking_options(command: Command) -> Command:
    """Add the options that say how hits are found and ordered."""
    for option in reversed(_RANKING):
        command = option(command)
    return command


_RANKING = (
    click.option(
        "--limit", "-n", default=10, show_default=True, help="The most hits wanted, 1 to 1000."
    ),
    click.option(
        "--mode",
        type=click.Choice(["hybrid", "vector", "lexical"]),
        help="By meaning and words, or one of them; by default what kb.toml says.",
    ),
    click.option(
        "--per-document", default=0, help="The most hits from one document; 0 for any number."
    ),
    click.option("--min-score", type=float, help="Only hits with at least this score."),
)


@click.command(cls=KbCommand)
@click.argument("question")
@ranking_options
@filter_options
@click.option("--full", is_flag=True, help="Print whole passages.")
@pass_session
def search(session: Session, question: str, full: bool, **chosen: Any) -> int:  # noqa: ANN401
    """Print the passages that answer QUESTION, best first."""
    with session.knowledge_base() as kb:
        results = kb.search(question, **chosen)
    if session.as_json:
        from kb_assets.cli.output import plain, print_json

        hits = [plain(hit) for hit in results]
        about = {name: getattr(results, name) for name in _ABOUT}
        print_json({"question": question, **about, "hits": hits})
    else:
        _print(results, question, full)
        print_footer(results)
    return 0


def _print(hits: "Sequence[Hit]", question: str, full: bool) -> None:
    from kb_assets.cli.output import console, indent

    out = console()
    for rank, hit in enumerate(hits, start=1):
        out.print(head(rank, hit), soft_wrap=True)
        if full:
            for line in _marked(hit.text.strip("\n"), question).split("\n"):
                out.print("    ", line, sep="", soft_wrap=True)
        else:
            indent(out, _marked(excerpt(hit.text, question), question), 4)
        out.print()


def head(rank: int, hit: "Hit") -> "Text":
    """Return a hit's rank, score and place."""
    from rich.text import Text

    line = Text.assemble(
        (f"{rank:>2}. ", "bold"),
        (f"{hit.score:.3f}  ", "green"),
        (_in_a_line(f"{hit.source}:{hit.path}"), "bold cyan"),
        (f"  bytes {hit.byte_start:,}-{hit.byte_end:,}", "dim"),
    )
    where = " > ".join(hit.heading_path) or hit.title or ""
    if where:
        line.append("\n    ").append(_in_a_line(where), "yellow")
    return line


def _in_a_line(name: str) -> str:
    """Return a name that cannot pretend to be another hit: names of files may hold line breaks."""
    return visible(name).replace("\n", "\ufffd")


def _marked(passage: str, question: str) -> "Text":
    """Return a passage with the question's words in bold."""
    from rich.text import Text

    marked = Text(visible(passage))
    if words := question_words(question):
        marked.highlight_words(words, "bold", case_sensitive=False)
    return marked


def print_footer(results: "Results") -> None:
    """Say what a person should know of the hits above."""
    from kb_assets.cli.output import console

    out = console()
    if not results:
        out.print(_NOTHING)
    for note in results.notes:
        out.print(visible(note), style="yellow")
    if results.provider == "hash":
        out.print(_HASH_WARNING, style="dim")
