"""`kb ask`: an answer from the knowledge base, with its sources."""

from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli import exits
from kb_assets.cli.excerpt import visible
from kb_assets.cli.filters import filter_options
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.retrieval.answer import Citation, Reply


@click.command(cls=KbCommand)
@click.argument("question")
@filter_options
@pass_session
def ask(session: Session, question: str, **filters: Any) -> int:  # noqa: ANN401
    """Answer QUESTION from the passages found for it, and name them.

    Exits 9 if the knowledge base does not hold the answer.
    """
    with session.knowledge_base() as kb:
        reply = kb.ask(question, **filters)
        if session.as_json:
            from kb_assets.cli.output import print_json

            print_json(_document(question, reply))
        else:
            _stream(reply)
            _print_sources(reply)
        return exits.DONE if reply.answered else exits.NOT_FOUND


def _document(question: str, reply: "Reply") -> dict[str, Any]:
    return {
        "question": question,
        "answered": reply.answered,
        "text": reply.text,
        "citations": reply.citations,
        "unknown_citations": reply.unknown_citations,
        "notes": reply.notes,
        "tokens": reply.tokens,
        "hits": reply.hits,
    }


def _stream(reply: "Reply") -> None:
    """Print an answer as it arrives; its line is ended, whatever ends it."""
    try:
        for piece in reply:
            click.echo(visible(piece), nl=False)
    finally:
        click.echo()


def _print_sources(reply: "Reply") -> None:
    from kb_assets.cli.output import console

    out = console()
    if reply.citations:
        out.print()
    for citation in reply.citations:
        out.print(_source(citation), soft_wrap=True)
    for note in reply.notes:
        out.print(visible(note), style="dim", soft_wrap=True)


def _source(citation: "Citation") -> Any:  # noqa: ANN401
    from rich.text import Text

    place = " > ".join((f"{citation.source}:{citation.path}", *citation.heading_path))
    return Text.assemble(
        (f"[{citation.number}] ", "bold"),
        (visible(place), "cyan"),
        (f"  bytes {citation.byte_start}-{citation.byte_end}", "dim"),
    )
