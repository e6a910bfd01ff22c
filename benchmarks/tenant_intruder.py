"""Tries as role `kb_caller` on the wire to see what is not the caller's: for tenant_leak.py."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from benchmarks.tenants import SOURCES, Model, Truths
from kb_assets import KnowledgeBase
from kb_assets.retrieval.query import Caller

OPEN_TABLES = {"kb.embedding_space", "kb.index_state", "kb.alembic_version"}
"""What a caller may read whole: nothing there is of a tenant."""

BY_SOURCE = ("kb.source", "kb.lexical_source", "kb.lexical_document", "kb.lexical_posting")
"""Where a caller sees all of a source, whatever their tags."""

TRICKS = (
    "set local role kb_writer",
    "set local session authorization kb_reader",
    "reset role",
    "set local row_security = off",
    "alter table kb.document disable row level security",
    "drop policy caller on kb.document",
    "create policy open on kb.document using (true)",
)
TELL = """
create function pg_temp.tell(text) returns boolean language plpgsql cost 0.0000001
    as $$ begin raise notice '%', $1; return true; end $$
"""


class Intruder:
    """A connection of its own as `kb_caller`; what comes of it is counted in `counts`."""

    def __init__(self, kb: KnowledgeBase, model: Model, counts: Counter[str]) -> None:
        self.kb, self.model, self.counts = kb, model, counts
        self.wire = psycopg.connect(kb.urls.caller, autocommit=True)
        self.told: list[str] = []
        self.wire.add_notice_handler(lambda notice: self.told.append(notice.message_primary or ""))
        names = "select schemaname || '.' || tablename from pg_tables where schemaname ~ '^kb'"
        self.tables = [name for (name,) in self.wire.execute(names)]
        assert {"kb.document", "kb_space.embedding_1"} < set(self.tables)

    def intrude(self, caller: Caller) -> None:
        self.look_into_the_pool()
        self.look_unset()
        self.look_as(caller)

    def look_into_the_pool(self) -> None:
        """What a search set must be gone from the connection it was made with."""
        with self.kb.callers.transaction() as connection:
            left = connection.execute(
                "select current_setting('kb.source_ids', true), current_setting('kb.tags', true)"
            ).fetchone()
            self.count_foreign(
                f"settings left in a pooled connection: {left}", int(any(left or ()))
            )
            for table in ("kb.document", "kb.chunk", *BY_SOURCE):
                self.expect(connection, f"select count(*) from {table}", 0)  # noqa: S608

    def look_unset(self) -> None:
        """Without a caller every table is empty or refused, but for the few that are open."""
        for values in ((None, None), ("", ""), (None, "*"), ("{}", "*"), (self.all_sources, "")):
            with self.claiming(*values):
                for table in self.tables:
                    if table not in OPEN_TABLES and (
                        values[0] != self.all_sources or table not in BY_SOURCE
                    ):
                        self.expect(self.wire, f"select count(*) from {table}", 0)  # noqa: S608
        guessed = "select count(*) from pg_stats where schemaname ~ '^kb'"
        self.expect(
            self.wire,
            f"{guessed} and schemaname || '.' || tablename <> all(%s)",
            0,
            list(OPEN_TABLES),
        )

    def look_as(self, caller: Caller) -> None:
        """As a caller, foreign ids lead nowhere, and tables have as many rows as are theirs."""
        model, may_see = self.model, self.model.may_see(caller)
        own = model.chunks_of(may_see)
        hashes = set(model.hashes[own])
        sources = caller.sources or SOURCES
        foreign_sources = [id_ for name, id_ in model.source_ids.items() if name not in sources]
        foreign_hashes = list(set(model.hashes) - hashes)
        ids = [model.source_ids[name] for name in sources]
        tags = "{" + ",".join(caller.tags) + "}" if caller.tags else "*"
        documents, revisions = (
            numbers[~may_see].tolist() for numbers in (model.document_ids, model.revision_ids)
        )
        with self.claiming("{" + ",".join(map(str, ids)) + "}", tags):
            self.attempt("kb.document", "id = any(%s)", documents, int(may_see.sum()))
            self.attempt("kb.document", "live_revision_id = any(%s)", revisions, int(may_see.sum()))
            self.attempt("kb.document_revision", "id = any(%s)", revisions, int(may_see.sum()))
            self.attempt("kb.chunk", "revision_id = any(%s)", revisions, int(own.sum()))
            self.attempt("kb.chunk", "input_hash = any(%s)", foreign_hashes, int(own.sum()))
            self.attempt(
                "kb_space.embedding_1", "input_hash = any(%s)", foreign_hashes, len(hashes)
            )
            for table in BY_SOURCE:
                column = "id" if table == "kb.source" else "source_id"
                self.attempt(table, f"{column} = any(%s)", foreign_sources, None)
            self.play_tricks(int(may_see.sum()))
            self.overhear(may_see)

    def count_foreign(self, what: str, rows: int) -> None:
        if rows:
            self.counts["foreign"] += rows
            print(f"FOREIGN: {rows} rows: {what}", file=sys.stderr, flush=True)

    def attempt(self, table: str, condition: str, foreign: list[Any], own: int | None) -> None:
        self.expect(self.wire, f"select count(*) from {table} where {condition}", 0, foreign)  # noqa: S608
        if own is not None:
            self.expect(self.wire, f"select count(*) from {table}", own)  # noqa: S608

    def play_tricks(self, own: int) -> None:
        for trick in TRICKS:
            try:
                with self.wire.transaction(force_rollback=True):
                    self.wire.execute(trick)
                    self.expect(self.wire, "select count(*) from kb.document", own)
            except psycopg.Error:
                self.counts["tricks_refused"] += 1

    def overhear(self, may_see: Truths) -> None:
        """A function that costs nothing, and tells what it is shown, is shown no foreign row."""
        self.told.clear()
        with self.wire.transaction(force_rollback=True):
            self.wire.execute(TELL)
            self.wire.execute("select count(*) from kb.document where pg_temp.tell(id::text)")
        told = {int(one) for one in self.told}
        self.count_foreign("told by a function", len(told - set(self.model.document_ids[may_see])))
        assert told >= set(self.model.document_ids[may_see]), "the function was not asked"

    def expect(self, connection: psycopg.Connection, query: str, rows: int, *given: Any) -> None:  # noqa: ANN401
        """Count one attempt; refusal is as good as nothing."""
        self.counts["attempts"] += 1
        try:
            with connection.transaction():
                found = connection.execute(query, given).fetchone()[0]
        except psycopg.errors.InsufficientPrivilege:
            self.counts["attempts_refused"] += 1
            return
        if found < rows:
            self.counts["short"] += 1
            print(f"SHORT: {found} of {rows}: {query}", file=sys.stderr, flush=True)
        self.count_foreign(query, max(0, found - rows))

    @property
    def all_sources(self) -> str:
        return "{" + ",".join(map(str, self.model.source_ids.values())) + "}"

    @contextmanager
    def claiming(self, sources: str | None, tags: str | None) -> Iterator[None]:
        with self.wire.transaction(force_rollback=True):
            for name, value in (("kb.source_ids", sources), ("kb.tags", tags)):
                if value is not None:
                    self.wire.execute("select set_config(%s, %s, true)", (name, value))
            yield
