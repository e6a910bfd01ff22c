"""`kb upgrade`: a knowledge base brought up to this code, after a backup."""

from typing import TYPE_CHECKING

import click

from kb_assets.cli import exits
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.knowledge_base.upgrading import UpgradeReport


@click.command(cls=KbCommand)
@click.option("--no-backup", is_flag=True, help="Make no backup first.")
@click.option(
    "--postgres",
    type=click.Choice(["16", "18"]),
    help="Let this version of PostgreSQL serve: the embedded server only.",
)
@pass_session
def upgrade(session: Session, no_backup: bool, postgres: str | None) -> int:
    """Bring the database up to this version of kb-assets.

    Makes a backup if there is something to do, updates pgvector, changes the schema, and builds
    vector indexes anew where pgvector's release notes ask for it. Interrupted, run it again.
    """
    from kb_assets.cli.output import error_console, print_json
    from kb_assets.knowledge_base import KnowledgeBase

    out = error_console()
    with KnowledgeBase(session.settings()) as kb:
        report = kb.upgrade_all(
            backs_up=not no_backup,
            postgres={"16": 16, "18": 18}[postgres] if postgres else None,  # type: ignore[arg-type]
            say=lambda words: out.print(words, style="dim", soft_wrap=True),
        )
    if session.as_json:
        print_json(report)
    else:
        _tell(report)
    return exits.DONE


def _tell(report: "UpgradeReport") -> None:
    from kb_assets.cli.output import console, count_of

    out = console()

    def say(words: str, style: str = "") -> None:
        out.print(words, style=style, soft_wrap=True)

    if report.backup:
        say(f"Backup {report.backup} has the state before.")
    say(f"The database is at revision {report.revision}, pgvector at {report.pgvector}.", "green")
    for space in report.rebuilt:
        say(f"The vector index of space {space} was built anew.")
    if (server := report.server) is not None:
        rows = count_of(server.rows, "row")
        say(f"PostgreSQL {server.after} serves the database now; {rows} were copied and compared.")
        say(f"The data folder of PostgreSQL {server.before} is kept. When all is well:")
        say(f"  rm -r {server.kept}", "cyan")
    for note in report.notes:
        say(note, "yellow")
