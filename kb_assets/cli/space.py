"""`kb space`: the embedding spaces, and which of them answers."""

import sys
from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli.session import COMMON_OPTIONS, KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.index.space import SpaceReport


@click.group(params=list(COMMON_OPTIONS))
def space() -> None:
    """List, promote and drop embedding spaces, one for each model."""


@space.command(name="list", cls=KbCommand)
@pass_session
def list_spaces(session: Session) -> int:
    """List the spaces, oldest first, and how far they are."""
    from kb_assets.cli.output import console, print_json

    with session.knowledge_base() as kb:
        spaces = kb.spaces()
    if session.as_json:
        print_json({"spaces": spaces})
    elif spaces:
        console().print(spaces_table(spaces))
    else:
        console().print("There are no spaces yet: the first `kb index` makes one.")
    return 0


@space.command(cls=KbCommand)
@click.argument("name")
@click.option("--force", is_flag=True, help="Even if texts are missing; they would not be found.")
@pass_session
def promote(session: Session, name: str, force: bool) -> int:
    """Let the space NAME (or its number) answer from now on."""
    with session.knowledge_base() as kb:
        promoted = kb.promote_space(name, force=force)
    _tell(session, "promoted", promoted, f"{promoted.name} answers from now on.")
    return 0


@space.command(cls=KbCommand)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def drop(session: Session, name: str, yes: bool) -> int:
    """Delete the space NAME (or its number) with all its vectors."""
    with session.knowledge_base() as kb:
        if not yes and not _agreed(name):
            click.echo("Nothing was deleted.", err=True)
            return 0
        dropped = kb.drop_space(name)
    _tell(session, "dropped", dropped, f"{dropped.name} is deleted.")
    return 0


def _agreed(name: str) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is there to be asked: say --yes.")
    return click.confirm(f"Delete the space {name} and all its vectors?", err=True)


def spaces_table(spaces: "tuple[SpaceReport, ...]") -> Any:  # noqa: ANN401
    """Return the spaces as a table."""
    from kb_assets.cli.output import number, table

    rows = [
        (
            report.space.name,
            report.space.state,
            number(report.space.model.dimensions),
            number(report.vectors),
            number(report.missing),
            "yes" if report.indexed else "no",
        )
        for report in spaces
    ]
    columns = ("Space", "State", "Dimensions", "Vectors", "Missing", "Indexed")
    return table(columns, rows, text_columns=2)


def _tell(session: Session, verb: str, space_: Any, words: str) -> None:  # noqa: ANN401
    from kb_assets.cli.output import console, print_json

    if session.as_json:
        print_json({verb: space_})
    else:
        console().print(words)
