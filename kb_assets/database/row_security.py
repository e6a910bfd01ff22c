"""Row-level security: what a caller may see, decided by the database and not by a query.

A caller is whoever connects as `kb_caller`. Each transaction says for whom it is, with
`kb.source_ids` and `kb.tags`; one that says nothing sees nothing. Everything hangs on the
policy of `kb.document`: revisions, chunks and vectors can be seen if a document can that has
them live. Runs and the command line connect as other roles, whose policies admit every row.
"""

from collections.abc import Callable
from typing import Any

CALLER = "kb_caller"
"""The role that sees what its caller may see, and owns nothing."""

_UNLIMITED = ("kb_migrator", "kb_writer", "kb_reader")

_SOURCES = "any (nullif(current_setting('kb.source_ids', true), '')::int[])"

_TAGS = (
    "(current_setting('kb.tags', true) = '*'"
    " or live_tags && nullif(nullif(current_setting('kb.tags', true), ''), '*')::text[])"
)

# Scalar subqueries: PostgreSQL would hash an EXISTS, and look at all documents for each search.
_POLICIES = {
    "source": f"id = {_SOURCES}",
    "document": f"source_id = {_SOURCES} and {_TAGS}",
    "document_revision": (
        "(select true from kb.document d where d.live_revision_id = document_revision.id)"
    ),
    "chunk": "(select true from kb.document d where d.live_revision_id = chunk.revision_id)",
    "lexical_source": f"source_id = {_SOURCES}",
    "lexical_document": f"source_id = {_SOURCES}",
    "lexical_posting": f"source_id = {_SOURCES}",
}

_READABLE = (*_POLICIES, "embedding_space", "index_state", "alembic_version")
"""What a caller may read at all."""

Execute = Callable[[str], Any]


def protect_rows(execute: Execute) -> None:
    """Let callers see their rows only; safe to run again.

    Where one role does everything, tables are protected from others and not from their owner:
    a caller then needs a role of its own, as `deploy/initdb` makes it.

    Args:
        execute: Runs a statement as the owner of the tables.
    """
    roles = {name for (name,) in execute("select rolname from pg_roles")}
    everybody = ", ".join(name for name in _UNLIMITED if name in roles) or "current_user"
    for table, condition in _POLICIES.items():
        _protect(execute, f"kb.{table}", everybody, condition, has_caller=CALLER in roles)
    if CALLER in roles:
        execute(f"grant usage on schema kb to {CALLER}")
        for table in _READABLE:
            if next(iter(execute(f"select to_regclass('kb.{table}') is not null")))[0]:
                execute(f"grant select on kb.{table} to {CALLER}")


def protect_vectors(execute: Execute, table: str) -> None:
    """Let callers see the vectors of texts that they see; safe to run again.

    Args:
        execute: Runs a statement as the owner of the table.
        table: Its schema and name, as an identifier.
    """
    roles = {name for (name,) in execute("select rolname from pg_roles")}
    everybody = ", ".join(name for name in _UNLIMITED if name in roles) or "current_user"
    name = table.rpartition(".")[2]
    seen = f"c.input_hash = {name}.input_hash"
    condition = f"(select true from kb.chunk c where {seen} limit 1)"  # noqa: S608 (names of ours)
    _protect(execute, table, everybody, condition, has_caller=CALLER in roles)
    if CALLER in roles:
        execute(f"grant select on {table} to {CALLER}")


def _protect(
    execute: Execute, table: str, everybody: str, condition: str, *, has_caller: bool
) -> None:
    execute(f"alter table {table} enable row level security")
    execute(f"drop policy if exists everything on {table}")
    execute(f"create policy everything on {table} to {everybody} using (true) with check (true)")
    execute(f"drop policy if exists caller on {table}")
    if has_caller:
        execute(f"alter table {table} force row level security")
        execute(f"create policy caller on {table} for select to {CALLER} using ({condition})")
