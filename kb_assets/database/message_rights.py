"""Who may make messages vanish: the archiver, and not who indexes or takes messages in.

Messages are deleted once they are in the archive, or when they are erased. Where there is a role
for that, the writer loses the right to: neither a mistake nor an intruder there deletes one. On a
server without that role, all is as it was.
"""

from collections.abc import Callable
from typing import Any

from kb_assets.database.row_security import WRITER
from kb_assets.errors import SettingsError

ARCHIVER = "kb_archiver"
"""The role that archives and erases messages, and can do nothing else."""

_RIGHTS = {
    "alembic_version": "select",
    "message": "select, insert, delete",
    "message_late": "select, insert, delete",
    "conversation": "select, insert, update",
    "archive_month": "select, insert, update",
    "archive_segment": "select, insert, update",
    "erasure": "select, insert, update",
    "erased_conversation": "select, insert",
}

# What says that a message is archived or erased deletes it as well, a step later.
_TAKEN_FROM_WRITER = {
    "message": "delete",
    "message_late": "delete",
    "archive_month": "insert, update, delete",
    "archive_segment": "insert, update, delete",
    "erased_conversation": "insert, update, delete",
}

_FUNCTIONS = ("freeze_month", "thaw_month", "drop_month")

Execute = Callable[[str], Any]


def separate_archiver(execute: Execute) -> None:
    """Leave deleting messages to the archiver; safe to run again.

    Without its role, nothing is done.

    Args:
        execute: Runs a statement as the owner of the tables.
    """
    if not _has_role(execute, ARCHIVER):
        return
    months = _months(execute)
    execute(f"grant usage on schema kb to {ARCHIVER}")
    execute(f"grant usage on sequence kb.archive_segment_id_seq to {ARCHIVER}")
    execute(f"grant execute on function kb.add_month(text, date) to {ARCHIVER}")
    for table, rights in _RIGHTS.items():
        execute(f"grant {rights} on kb.{table} to {ARCHIVER}")
    for month in months:
        execute(f"grant {_RIGHTS['message']} on {month} to {ARCHIVER}")
    for name in _FUNCTIONS:
        execute(f"grant execute on function kb.{name}(text, date) to {ARCHIVER}")
    if _has_role(execute, WRITER):
        _limit_writer(execute, months)


def unite_archiver(execute: Execute) -> None:
    """Take back what `separate_archiver` did.

    Args:
        execute: Runs a statement as the owner of the tables.
    """
    if _has_role(execute, ARCHIVER):
        execute(f"revoke all on all tables in schema kb from {ARCHIVER}")
        execute(f"revoke all on all sequences in schema kb from {ARCHIVER}")
        execute(f"revoke all on all functions in schema kb from {ARCHIVER}")
        execute(f"revoke all on schema kb from {ARCHIVER}")
    if _has_role(execute, WRITER):
        for table in (*(f"kb.{name}" for name in _TAKEN_FROM_WRITER), *_months(execute)):
            execute(f"grant insert, update, delete on {table} to {WRITER}")
        for name in _FUNCTIONS:
            execute(f"grant execute on function kb.{name}(text, date) to {WRITER}")


def is_separated(execute: Execute) -> bool:
    """Say whether a server that has an archiver leaves deleting messages to it."""
    deletes = f"has_table_privilege('{ARCHIVER}', 'kb.message', 'delete')"
    return not _has_role(execute, ARCHIVER) or bool(_one(execute, f"select {deletes}"))


def require_archiver(execute: Execute) -> None:
    """Make sure that whoever is connected may delete messages.

    Raises:
        SettingsError: They may not.
    """
    if not _one(execute, "select has_table_privilege('kb.message', 'delete')"):
        role = _one(execute, "select current_user")
        raise SettingsError(
            f"Messages cannot be archived or erased as role {role}.",
            why=f"On this server, deleting them is left to {ARCHIVER}.",
            fix=f"Let KB_ARCHIVE_DATABASE_URL name role {ARCHIVER}, and run `kb upgrade`.",
        )


def _limit_writer(execute: Execute, months: list[str]) -> None:
    for table, rights in _TAKEN_FROM_WRITER.items():
        execute(f"revoke {rights} on kb.{table} from {WRITER}")
    for month in months:
        execute(f"revoke delete on {month} from {WRITER}")
    # Intake holds months by `for share`, which asks for the right to update something of them.
    execute(f"grant update (leased_at) on kb.archive_month to {WRITER}")
    for name in _FUNCTIONS:
        execute(f"revoke execute on function kb.{name}(text, date) from {WRITER}")


def _months(execute: Execute) -> list[str]:
    """Return the partitions of the messages."""
    select = "select inhrelid::regclass::text from pg_inherits"
    return [name for (name,) in execute(f"{select} where inhparent = 'kb.message'::regclass")]


def _has_role(execute: Execute, role: str) -> bool:
    return bool(_one(execute, f"select to_regrole('{role}') is not null"))


def _one(execute: Execute, statement: str) -> Any:  # noqa: ANN401
    return next(iter(execute(statement)))[0]
