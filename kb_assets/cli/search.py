"""`kb search`: passages that answer a question."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli.excerpt import excerpt, question_words, visible
from kb_assets.cli.filters import filter_options
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from rich.text import Text

    from kb_assets.retrieval.hits import Hit

_HASH_WARNING = (
    "Found by shared words, not by meaning (embedding.provider = hash). "
    "For meaning, set a provider in kb.toml."
)
_NOTHING = "Nothing was found."


@click.command(cls=KbCommand)
@click.argument("question")
@click.option("--limit", "-n", default=10, show_default=True, help="The most hits wanted.")
@filter_options
@click.option("--full", is_flag=True, help="Print whole passages.")
@pass_session
def search(session: Session, question: str, full: bool, **filters: Any) -> int:  # noqa: ANN401
    """Print the passages nearest to QUESTION, best first."""
    from kb_assets.embeddings.space import live_space

    with session.knowledge_base() as kb:
        hits = kb.search(question, **filters)
        space = live_space(kb.reader)
    provider = space.model.provider if space else ""
    if session.as_json:
        from kb_assets.cli.output import print_json

        print_json({"question": question, "provider": provider, "hits": hits.hits})
    else:
        _print(hits, question, full)
        _print_footer(hits, provider)
    return 0


def _print(hits: "Sequence[Hit]", question: str, full: bool) -> None:
    from kb_assets.cli.output import console, indent

    out = console()
    for rank, hit in enumerate(hits, start=1):
        out.print(_head(rank, hit), soft_wrap=True)
        if full:
            for line in _marked(hit.text.strip("\n"), question).split("\n"):
                out.print("    ", line, sep="", soft_wrap=True)
        else:
            indent(out, _marked(excerpt(hit.text, question), question), 4)
        out.print()


def _head(rank: int, hit: "Hit") -> "Text":
    from rich.text import Text

    head = Text.assemble(
        (f"{rank:>2}. ", "bold"),
        (f"{hit.score:.3f}  ", "green"),
        (visible(f"{hit.source}:{hit.path}"), "bold cyan"),
        (f"  bytes {hit.byte_start:,}-{hit.byte_end:,}", "dim"),
    )
    where = " > ".join(hit.heading_path) or hit.title or ""
    if where:
        head.append("\n    ").append(visible(where), "yellow")
    return head


def _marked(passage: str, question: str) -> "Text":
    """Return a passage with the question's words in bold."""
    from rich.text import Text

    marked = Text(visible(passage))
    if words := question_words(question):
        marked.highlight_words(words, "bold", case_sensitive=False)
    return marked


def _print_footer(hits: "Sequence[Hit]", provider: str) -> None:
    from kb_assets.cli.output import console

    out = console()
    if not hits:
        out.print(_NOTHING)
    if provider == "hash":
        out.print(_HASH_WARNING, style="dim")
