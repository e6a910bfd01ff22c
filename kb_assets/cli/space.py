"""`kb space`: the embedding spaces, and which of them answers."""

import sys
from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli.session import COMMON_OPTIONS, KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.index.space import SpaceReport
    from kb_assets.retrieval.compare_spaces import Comparison


@click.group(params=list(COMMON_OPTIONS))
def space() -> None:
    """List, compare, promote and drop spaces, one for each model."""


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
@pass_session
def compare(session: Session, name: str) -> int:
    """Ask the space NAME (or its number) the golden questions, beside the one that answers."""
    from kb_assets.cli.evaluate import watching
    from kb_assets.cli.output import console, count_of, print_json

    with session.knowledge_base() as kb, watching() as watch:
        comparison = kb.compare_space(name, watch=watch)
    if session.as_json:
        print_json(comparison)
        return 0
    out = console()
    asked = count_of(comparison.questions, "golden question")
    out.print(f"{asked}, asked of {comparison.live.space.name} (live)")
    out.print(f"and {comparison.other.space.name} (compared)\n")
    out.print(comparison_table(comparison))
    out.print()
    for note in comparison.notes:
        out.print(note, style="dim", soft_wrap=True)
    for reason in comparison.reasons:
        out.print(reason, style="red", soft_wrap=True)
    other = comparison.other.space.name
    worse = "answers worse" if comparison.reasons else "does not answer worse"
    out.print(f"{other} {worse} than {comparison.live.space.name}.")
    return 0


@space.command(cls=KbCommand)
@click.argument("name")
@click.option(
    "--force",
    is_flag=True,
    help="Even if texts are missing, or it answers worse, or kb eval fails.",
)
@pass_session
def promote(session: Session, name: str, force: bool) -> int:
    """Let the space NAME (or its number) answer from now on."""
    with session.knowledge_base() as kb:
        promoted = kb.promote_space(name, force=force)
    _tell(session, "promoted", promoted, f"{promoted.name} answers from now on.")
    return 0


@space.command(cls=KbCommand)
@pass_session
def rollback(session: Session) -> int:
    """Let the space answer again that was live before."""
    with session.knowledge_base() as kb:
        restored = kb.rollback_space()
    _tell(session, "restored", restored, f"{restored.name} answers again.")
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


def comparison_table(comparison: "Comparison") -> Any:  # noqa: ANN401
    """Return two spaces side by side: quality, latency, size and cost."""
    from kb_assets.cli.evaluate import measure_rows
    from kb_assets.cli.output import dollars, number, size, table

    live, other = comparison.live, comparison.other
    rows = [
        (f"{measure} {mode}", mean, theirs, *difference)
        for (measure, mode, mean, _, *_), (_, _, theirs, _, *difference) in zip(
            measure_rows(live.metrics, {}),
            measure_rows(other.metrics, comparison.differences),
            strict=True,
        )
    ]
    for mode, mine in live.seconds.items():
        for share, seconds in mine.items():
            theirs = other.seconds[mode][share]
            rows.append((f"{share} {mode}", f"{seconds * 1000:.1f} ms", f"{theirs * 1000:.1f} ms"))
    for name, tell in (
        *(("vectors", number), ("table_bytes", size), ("index_bytes", size)),
        *(("tokens", number), ("cost_usd", dollars)),
    ):
        both = (tell(getattr(side.figures, name)) for side in (live, other))
        rows.append((name.partition("_")[0], *both))
    heads = ("", "Live", "Compared", "Difference", "95%")
    return table(heads, [(*row, *[""] * (5 - len(row))) for row in rows])


def _tell(session: Session, verb: str, space_: Any, words: str) -> None:  # noqa: ANN401
    from kb_assets.cli.output import console, print_json

    if session.as_json:
        print_json({verb: space_})
    else:
        console().print(words)
