"""`kb backup`: the database, backed up, proven by a restore, and brought back."""

from typing import TYPE_CHECKING

import click

from kb_assets.cli import exits
from kb_assets.cli.session import COMMON_OPTIONS, KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.knowledge_base import KnowledgeBase

_BACKUP = click.argument("backup", metavar="[ID]", default="latest")


@click.group(params=list(COMMON_OPTIONS))
def backup() -> None:
    """Back the database up, prove it by a drill, bring it back.

    ID is one that `kb backup list` shows; by default the newest. The section [backup] of kb.toml
    says where backups go and how many are kept; KB_BACKUP_KEY signs them, and KB_BACKUP_IDENTITY,
    a secret key of age, encrypts them.
    """


@backup.command(cls=KbCommand)
@pass_session
def run(session: Session) -> int:
    """Back the database up as it is now."""
    from kb_assets.cli.backup_told import facts_of, print_run
    from kb_assets.cli.output import print_json

    with _opened(session) as kb:
        report = kb.back_up()
        entry = kb.backup_place.find(report.manifest.id)
        url = kb.backup_store.url(report.manifest.id)
    if session.as_json:
        told = {"url": url, "seconds": report.seconds, "notes": report.notes}
        print_json({**facts_of(report.manifest), "is_signed": entry.is_signed, **told})
    else:
        print_run(report, url, is_signed=entry.is_signed)
    return exits.DONE


@backup.command(name="list", cls=KbCommand)
@pass_session
def list_backups(session: Session) -> int:
    """List all backups, newest first: their state, and what drills said of them."""
    from kb_assets.cli.backup_told import entry_document, print_entries
    from kb_assets.cli.output import print_json

    with _opened(session) as kb:
        entries, uri = kb.backups(), kb.backup_store.uri
    if session.as_json:
        print_json({"uri": uri, "backups": [entry_document(one) for one in entries]})
    else:
        print_entries(entries, uri)
    return exits.DONE


@backup.command(cls=KbCommand)
@_BACKUP
@click.option(
    "--from-url",
    metavar="URL",
    default="",
    help="Compare this database, which was restored by other means; it is not changed.",
)
@pass_session
def drill(session: Session, backup: str, from_url: str) -> int:
    """Restore a backup into a server of the drill's own, and compare everything.

    Exits 13 if it failed. What was found is kept beside the backup.
    """
    from kb_assets.cli.backup_told import drill_document, print_drill
    from kb_assets.cli.output import print_json

    with _opened(session) as kb:
        found = kb.drill(backup, from_url=from_url)
    if session.as_json:
        print_json(drill_document(found))
    else:
        print_drill(found)
    return exits.DONE if found.passed else exits.CHECK_FAILED


@backup.command(cls=KbCommand)
@_BACKUP
@click.option("--to-url", metavar="URL", default="", help="Into this empty database.")
@click.option("--table", "tables", metavar="SCHEMA.NAME", multiple=True, help="Only this table.")
@click.option("--schema", "schemas", metavar="NAME", multiple=True, help="Only this schema.")
@click.option("--unsigned", is_flag=True, help="Although anybody may have made the backup.")
@pass_session
def restore(
    session: Session,
    backup: str,
    to_url: str,
    tables: tuple[str, ...],
    schemas: tuple[str, ...],
    unsigned: bool,
) -> int:
    """Bring a backup back into an empty database.

    Every byte is verified first. What was erased since the backup is erased again before anybody
    can read. A restore that broke off can be started again.
    """
    from kb_assets.cli.backup_told import print_restored
    from kb_assets.cli.output import error_console, print_json

    out = error_console()
    with _opened(session) as kb:
        report = kb.restore_backup(
            backup,
            to_url=to_url,
            tables=tables,
            schemas=schemas,
            unsigned=unsigned,
            say=lambda words: out.print(words, style="dim", soft_wrap=True),
        )
    if session.as_json:
        print_json(report)
    else:
        print_restored(report, is_whole=not (tables or schemas))
    return exits.DONE


@backup.command(cls=KbCommand)
@click.option("--dry-run", is_flag=True, help="Say what would go; delete nothing.")
@pass_session
def prune(session: Session, dry_run: bool) -> int:
    """Delete the backups that [backup] does not keep; never the last good one."""
    from kb_assets.cli.backup_told import print_plan
    from kb_assets.cli.output import print_json

    with _opened(session) as kb:
        plan = kb.plan_pruning() if dry_run else kb.prune_backups()
    if session.as_json:
        print_json({"keep": plan.keep, "delete": plan.delete, "dry_run": dry_run})
    else:
        print_plan(plan, "would be deleted" if dry_run else "deleted")
    return exits.DONE


@backup.command(cls=KbCommand)
@_BACKUP
@pass_session
def verify(session: Session, backup: str) -> int:
    """Read every byte of a backup, and compare it with its manifest.

    Exits 17 if one is wrong, 18 if the manifest is not signed with KB_BACKUP_KEY.
    """
    from kb_assets.cli.backup_told import entry_document, print_verdict
    from kb_assets.cli.output import print_json, watching
    from kb_assets.errors import BackupCorruptError, BackupUntrustedError

    with _opened(session) as kb, watching("Reading") as watch:
        entry, problems = kb.verify_backup(backup, watch=watch)
    if session.as_json:
        print_json({**entry_document(entry), "problems": problems})
    else:
        print_verdict(entry, problems)
    if entry.state == "forged":
        return BackupUntrustedError.exit_code
    return BackupCorruptError.exit_code if problems else exits.DONE


def _opened(session: Session) -> "KnowledgeBase":
    """Return the knowledge base as it is: what is to be backed up or filled is not upgraded."""
    from kb_assets.knowledge_base import KnowledgeBase

    return KnowledgeBase(session.settings())
