"""Row-level security: what a caller may see, decided by the database and not by a query.

A caller is whoever connects as `kb_caller`. Each transaction says for whom it is, with
`kb.source_ids` and `kb.tags`; one that says nothing sees nothing. Everything hangs on the
policy of `kb.document`: revisions, chunks and vectors can be seen if a document can that has
them live. Runs and the command line connect as other roles, whose policies admit every row.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kb_assets.errors import DatabaseRefusedError, SettingsError

CALLER = "kb_caller"
"""The role that sees what its caller may see, and owns nothing."""

WRITER = "kb_writer"
_LIMIT = "caller"
_UNLIMITED = ("kb_migrator", WRITER, "kb_reader")

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
    """Let callers see their rows only; safe to run again. Without their role, nothing is done.

    Args:
        execute: Runs a statement as the owner of the tables.

    Raises:
        DatabaseRefusedError: Indexing would not work any more.
    """
    roles = _bypassing(execute)
    if CALLER not in roles:
        return
    if roles.get(WRITER) is False:
        raise DatabaseRefusedError(
            f"Role {WRITER} may not write where rows are protected from callers.",
            why="Row-level security binds it, and PostgreSQL then refuses COPY.",
            fix=f"Run `alter role {WRITER} bypassrls` as an administrator, then `kb upgrade`. "
            "Where that cannot be granted: docs/deploy.md.",
        )
    for schema in ("kb", "kb_space"):
        if _one(execute, f"select to_regnamespace('{schema}') is not null"):
            execute(f"grant usage on schema {schema} to {CALLER}")
    for table, condition in _POLICIES.items():
        _protect(execute, f"kb.{table}", condition, roles)
    for table in _READABLE:
        if _one(execute, f"select to_regclass('kb.{table}') is not null"):
            execute(f"grant select on kb.{table} to {CALLER}")


def protect_vectors(execute: Execute, table: str) -> None:
    """Let callers see the vectors of texts that they see; safe to run again.

    Args:
        execute: Runs a statement as the owner of the table.
        table: Its schema and name, as an identifier.
    """
    roles = _bypassing(execute)
    if CALLER not in roles:
        return
    name = table.rpartition(".")[2]
    seen = f"c.input_hash = {name}.input_hash"
    condition = f"(select true from kb.chunk c where {seen} limit 1)"  # noqa: S608 (names of ours)
    _protect(execute, table, condition, roles)
    execute(f"grant select on {table} to {CALLER}")


def is_protected(execute: Execute) -> bool:
    """Say whether callers see their rows only; without their role, nobody needs to be kept out."""
    known = f"exists (select from pg_roles where rolname = '{CALLER}')"
    protected = (
        f"exists (select from pg_policies where schemaname = 'kb' and policyname = '{_LIMIT}')"
    )
    return bool(_one(execute, f"select not {known} or {protected}"))


def require_bound(execute: Execute) -> None:
    """Make sure that row-level security binds whoever is connected.

    Raises:
        SettingsError: They could see what callers must not.
    """
    role = _one(execute, "select current_user")
    bound = _one(
        execute,
        "select bool_and(has_schema_privilege(n.oid, 'usage') and row_security_active(c.oid))"
        " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'kb' and c.relname = 'document'",
    )
    if role != CALLER or not bound:
        raise SettingsError(
            f"Callers cannot search as role {role}.",
            why="Nothing keeps it from what they may not see, or it may see nothing at all.",
            fix=f"Let KB_CALLER_DATABASE_URL name role {CALLER}, and run `kb upgrade`.",
        )


def _one(execute: Execute, statement: str) -> Any:  # noqa: ANN401
    return next(iter(execute(statement)))[0]


def _bypassing(execute: Execute) -> dict[str, bool]:
    """Return every role, and whether row-level security leaves it alone."""
    return dict(
        tuple(row) for row in execute("select rolname, rolbypassrls or rolsuper from pg_roles")
    )


def _protect(execute: Execute, table: str, condition: str, roles: Mapping[str, bool]) -> None:
    owner = _one(execute, "select quote_ident(current_user)")
    unlimited = dict.fromkeys([*(name for name in _UNLIMITED if name in roles), owner])
    execute(f"alter table {table} enable row level security")
    # A role that owns everything and indexes as well must not be bound: COPY would be refused.
    if owner in _UNLIMITED and WRITER in roles:
        execute(f"alter table {table} force row level security")
    execute(f"drop policy if exists everything on {table}")
    execute(
        f"create policy everything on {table} to {', '.join(unlimited)}"
        " using (true) with check (true)"
    )
    execute(f"drop policy if exists {_LIMIT} on {table}")
    execute(f"create policy {_LIMIT} on {table} for select to {CALLER} using ({condition})")
