"""What each role may do, by doing it, and what a caller can see."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from kb_assets.chunks.plan import recipe_of
from kb_assets.chunks.stage import chunk_documents
from kb_assets.database.connect import DatabaseUrls
from kb_assets.documents.stage import read_documents
from kb_assets.embeddings.stage import embed_chunks
from kb_assets.errors import SettingsError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.query import Caller
from kb_assets.settings import Settings

ROLES = ("migrator", "writer", "reader", "caller", "archiver", "backup")
PROTECTED = (
    *("kb.source", "kb.document", "kb.document_revision", "kb.chunk"),
    *("kb.lexical_source", "kb.lexical_document", "kb.lexical_posting"),
    "kb_space.embedding_1",
)
SEEN_BY_CALLERS = {*PROTECTED, "kb.embedding_space", "kb.index_state", "kb.alembic_version"}

# What the archiver may, and what of it nobody else but the owner may.
ARCHIVING = {
    "kb.alembic_version": {"select"},
    "kb.message": {"select", "insert", "delete"},
    "kb.message_2025_03": {"select", "insert", "delete"},
    "kb.message_2025_04": {"select", "insert", "delete"},
    "kb.message_late": {"select", "insert", "delete"},
    "kb.conversation": {"select", "insert", "update"},
    "kb.archive_month": {"select", "insert", "update"},
    "kb.archive_segment": {"select", "insert", "update"},
    "kb.erasure": {"select", "insert", "update"},
    "kb.erased_conversation": {"select", "insert"},
}
CHANGES = frozenset({"insert", "update", "delete"})
NOT_THE_WRITERS = {
    "kb.alembic_version": CHANGES,
    "kb.message": {"delete"},
    "kb.message_2025_03": {"delete"},
    "kb.message_2025_04": {"delete"},
    "kb.message_late": {"delete"},
    "kb.archive_month": CHANGES,
    "kb.archive_segment": CHANGES,
    "kb.erased_conversation": CHANGES,
}


def urls_of(urls: DatabaseUrls) -> dict[str, str]:
    return {role: getattr(urls, role) for role in ROLES}


@pytest.fixture
def indexed(knowledge_base: KnowledgeBase, folder: Path) -> KnowledgeBase:
    """Three documents: red, blue, and without tags; and two months of messages."""
    with knowledge_base.database.transaction() as connection:
        for month in ("2025-03-01", "2025-04-01"):
            connection.execute("select kb.add_month('message', %s)", (month,))
    for name, tags in (("red", "[red]"), ("blue", "[blue, api]"), ("plain", "[]")):
        (folder / f"{name}.md").write_text(f"---\ntags: {tags}\n---\nThe {name} lighthouse.\n")
    knowledge_base.index()
    return knowledge_base


def may(url: str, *statements: str) -> bool:
    """Say whether a role may run statements; whatever else goes wrong is the test's fault."""
    alone = statements[0].startswith(("create database", "alter system"))
    with psycopg.connect(url, autocommit=alone) as connection:
        try:
            for statement in statements:
                connection.execute(statement)
        except errors.InsufficientPrivilege:
            return False
        except (psycopg.IntegrityError, errors.RaiseException):
            return True  # it got as far as the row
        finally:
            connection.rollback()
    return True


# Rows of each table.


def tables_and_columns(url: str) -> dict[str, str]:
    """Every table of a knowledge base, with a column that can be set."""
    with psycopg.connect(url) as connection:
        return dict(
            connection.execute(
                "select table_schema || '.' || table_name, max(quote_ident(column_name))"
                " from information_schema.columns join information_schema.tables"
                " using (table_schema, table_name) where table_schema in ('kb', 'kb_space')"
                " and table_type = 'BASE TABLE' and is_identity = 'NO' group by 1"
            ).fetchall()
        )


def test_rows_of_every_table_by_every_role(
    indexed: KnowledgeBase, database_urls: DatabaseUrls
) -> None:
    tables = tables_and_columns(database_urls.migrator)
    assert set(SEEN_BY_CALLERS) < set(tables)
    for table, column in tables.items():
        statements = {
            "select": f"select * from {table} limit 1",
            "insert": f"insert into {table} default values",
            "update": f"update {table} set {column} = {column} where false",
            "delete": f"delete from {table} where false",
        }
        found = {
            (role, action)
            for role, url in urls_of(database_urls).items()
            for action, statement in statements.items()
            if may(url, statement)
        }
        expected = {(role, "select") for role in ("migrator", "writer", "reader", "backup")}
        expected |= {("migrator", action) for action in statements}
        expected |= {("writer", a) for a in statements.keys() - NOT_THE_WRITERS.get(table, set())}
        expected |= {("archiver", action) for action in ARCHIVING.get(table, ())}
        if table in SEEN_BY_CALLERS:
            expected |= {("caller", "select")}
        assert found == expected, table


# Everything else.

NOBODY: set[str] = set()
MIGRATOR, MAKERS = {"migrator"}, {"migrator", "writer"}
MOVERS = {"migrator", "archiver"}
OFF = "set row_security = off"

ACTIONS = {
    "create table kb.mine (n int)": MIGRATOR,
    "create table kb_space.mine (n int)": MAKERS,
    "create table public.mine (n int)": MIGRATOR,
    "create schema mine": MIGRATOR,
    "drop table kb.query_log": MIGRATOR,
    "drop table kb_space.embedding_1": MAKERS,
    "truncate kb.query_log": MIGRATOR,
    "truncate kb_space.embedding_1": MAKERS,
    "alter table kb.document add column mine int": MIGRATOR,
    "alter table kb.document disable row level security": MIGRATOR,
    "alter table kb.document no force row level security": MIGRATOR,
    "alter table kb_space.embedding_1 disable row level security": MAKERS,
    "drop policy caller on kb.document": MIGRATOR,
    "drop policy caller on kb_space.embedding_1": MAKERS,
    "create policy mine on kb.document to kb_caller using (true)": MIGRATOR,
    "create index on kb.document (created_at)": MIGRATOR,
    "create trigger mine before insert on kb.document execute function suppress_redundant_updates"
    "_trigger()": MIGRATOR,
    "create function kb.mine() returns int language sql as 'select 1'": MIGRATOR,
    "create function kb_space.mine() returns int language sql as 'select 1'": MAKERS,
    "create function public.mine() returns int language sql as 'select 1'": MIGRATOR,
    "create function pg_temp.mine() returns int language c as 'libc', 'system'": NOBODY,
    "select kb.add_month('message', '2025-05-01')": MAKERS | MOVERS,
    "select kb.freeze_month('message', '2025-03-01')": MOVERS,
    "select kb.thaw_month('message', '2025-03-01')": MOVERS,
    "select kb.drop_month('message', '2025-06-01')": MOVERS,
    "select from kb.archive_month for share": MAKERS | MOVERS,
    "update kb.archive_month set closed_at = now()": MOVERS,
    "set role kb_archiver": {"archiver"},
    "set role kb_writer": MAKERS,
    "set role kb_migrator": MIGRATOR,
    "set role kb_reader": {"reader"},
    "set role kb_caller": {"caller"},
    "set role kb_backup": {"backup"},
    "set role pg_read_all_data": {"backup"},
    "set role dagster": NOBODY,
    "set role postgres": NOBODY,
    "set session authorization postgres": NOBODY,
    "alter role current_user superuser": NOBODY,
    "alter role current_user bypassrls": NOBODY,
    "alter role kb_caller bypassrls": NOBODY,
    "grant kb_reader to kb_caller": NOBODY,
    "create role mine": NOBODY,
    "create database mine": NOBODY,
    "alter system set work_mem = '1GB'": NOBODY,
    "copy kb.embedding_space to program 'true'": NOBODY,
    "copy kb.query_log from program 'true'": NOBODY,
    "copy kb.embedding_space to '/tmp/mine'": NOBODY,
    "copy kb.query_log from '/etc/passwd'": NOBODY,
    # Who reads everything reads the hashes of passwords, too: docs/deploy.md says so.
    "select * from pg_authid": {"backup"},
    "select * from pg_statistic": {"backup"},
    "select pg_read_file('/etc/passwd')": NOBODY,
    "select pg_ls_dir('/')": NOBODY,
    "select lo_import('/etc/passwd')": NOBODY,
    "load 'auto_explain'": NOBODY,
}


def test_actions(indexed: KnowledgeBase, database_urls: DatabaseUrls) -> None:
    found = {
        statement: {role for role, url in urls_of(database_urls).items() if may(url, statement)}
        for statement in ACTIONS
    }
    assert found == ACTIONS


def test_row_level_security_is_not_switched_off_by_who_is_bound(
    indexed: KnowledgeBase, database_urls: DatabaseUrls
) -> None:
    for table in PROTECTED:
        select = f"select * from {table}"
        found = {r for r, url in urls_of(database_urls).items() if may(url, OFF, select)}
        assert found == {"writer", "backup"}, table


def test_no_role_is_a_superuser_and_only_two_are_not_bound(
    database_urls: DatabaseUrls,
) -> None:
    with psycopg.connect(database_urls.reader) as connection:
        roles = connection.execute(
            "select rolname, rolsuper or rolcreaterole or rolcreatedb or rolreplication,"
            " rolbypassrls from pg_roles where rolname like 'kb\\_%' or rolname = 'dagster'"
            " order by rolname"
        ).fetchall()
    assert roles == [
        ("dagster", False, False),
        ("kb_archiver", False, False),
        ("kb_backup", False, True),
        ("kb_caller", False, False),
        ("kb_migrator", False, False),
        ("kb_reader", False, False),
        ("kb_writer", False, True),
    ]


def test_row_level_security_is_forced(indexed: KnowledgeBase, database_urls: DatabaseUrls) -> None:
    with psycopg.connect(database_urls.reader) as connection:
        found = connection.execute(
            "select relnamespace::regnamespace || '.' || relname, relrowsecurity,"
            " relforcerowsecurity from pg_class where relrowsecurity"
        ).fetchall()
    assert sorted(found) == sorted((table, True, True) for table in PROTECTED)


# What a caller sees.


@pytest.fixture
def as_caller(database_urls: DatabaseUrls) -> Iterator[Callable[..., list[Any]]]:
    """Ask as a caller who may see these sources and tags; None is not set at all."""
    with psycopg.connect(database_urls.caller) as connection:

        def ask(statement: str, sources: str | None = "{1}", tags: str | None = "*") -> list[Any]:
            with connection.transaction():
                if sources is not None:
                    connection.execute("select set_config('kb.source_ids', %s, true)", (sources,))
                if tags is not None:
                    connection.execute("select set_config('kb.tags', %s, true)", (tags,))
                rows = connection.execute(statement).fetchall()
            return [row[0] if len(row) == 1 else row for row in rows]

        yield ask


def test_who_does_not_say_for_whom_sees_nothing(
    indexed: KnowledgeBase, as_caller: Callable[..., list[Any]]
) -> None:
    for table in PROTECTED:
        count = f"select count(*) from {table}"
        assert as_caller(count) > [0], f"there is something to see in {table}"
        for sources, tags in ((None, None), ("", ""), ("{}", "*"), ("{2}", "*"), ("", "{red}")):
            assert as_caller(count, sources, tags) == [0], (table, sources, tags)


def test_who_names_no_tags_sees_no_documents(
    indexed: KnowledgeBase, as_caller: Callable[..., list[Any]]
) -> None:
    for table in ("kb.document", "kb.document_revision", "kb.chunk", "kb_space.embedding_1"):
        for tags in (None, "", "{}", "{green}", "{*}"):
            assert as_caller(f"select count(*) from {table}", "{1}", tags) == [0], (table, tags)


def test_settings_end_with_their_transaction(
    indexed: KnowledgeBase, as_caller: Callable[..., list[Any]]
) -> None:
    count = "select count(*) from kb.document"
    assert as_caller(count) == [3]
    assert as_caller(count, None, None) == [0]


def test_statistics_tell_callers_nothing(
    indexed: KnowledgeBase, as_caller: Callable[..., list[Any]], database_urls: DatabaseUrls
) -> None:
    names = "(" + ", ".join(f"'{table.split('.')[1]}'" for table in PROTECTED) + ")"
    count = f"select count(*) from pg_stats where tablename in {names}"
    with psycopg.connect(database_urls.migrator) as connection:
        connection.execute("analyze kb.document, kb.chunk")
        connection.commit()
    with psycopg.connect(database_urls.writer) as connection:
        assert connection.execute(count).fetchone() > (0,)
    assert as_caller(count) == [0]


@pytest.fixture
def pending(indexed: KnowledgeBase, folder: Path) -> KnowledgeBase:
    """Changes that were read, split and embedded, but not published."""
    (folder / "red.md").write_text("---\ntags: [red]\n---\nThe red draft.\n")
    (folder / "blue.md").write_text("---\ntags: [red]\n---\nThe blue draft, to be red.\n")
    (folder / "new.md").write_text("---\ntags: [red]\n---\nThe new draft.\n")
    run, (shard,) = indexed.run(), indexed.settings.shards
    read_documents(run, shard, recipe_of(run.settings.splitting))
    chunk_documents(run, shard)
    embed_chunks(run, shard)
    return indexed


ALL = {
    "path": "select path from kb.document order by 1",
    "revision": "select text from kb.document_revision order by 1",
    "chunk": "select text from kb.chunk order by 1",
    "vector": (
        "select c.text from kb_space.embedding_1 e join kb.chunk c using (input_hash) order by 1"
    ),
}


def test_tags_limit_documents_revisions_chunks_and_vectors_to_what_is_live(
    pending: KnowledgeBase, as_caller: Callable[..., list[Any]]
) -> None:
    with pending.reader.transaction() as connection:
        everything = {
            name: [value for (value,) in connection.execute(select)] for name, select in ALL.items()
        }
        vectors = connection.execute("select count(*) from kb_space.embedding_1").fetchone()
    assert len(everything["revision"]) == len(everything["vector"]) == 6
    assert vectors == (6,)

    red = {name: as_caller(select, tags="{red,green}") for name, select in ALL.items()}
    assert red["path"] == ["red.md"]
    for name in ("revision", "chunk", "vector"):
        assert [text.strip() for text in red[name]] == ["The red lighthouse."], name
    assert as_caller("select count(*) from kb_space.embedding_1", tags="{red}") == [1]

    blue = {name: as_caller(select, tags="{api}") for name, select in ALL.items()}
    assert blue["path"] == ["blue.md"]
    assert [text.strip() for text in blue["chunk"]] == ["The blue lighthouse."]

    whole = {name: as_caller(select, tags="*") for name, select in ALL.items()}
    assert whole["path"] == ["blue.md", "new.md", "plain.md", "red.md"]
    assert [text.strip() for text in whole["chunk"]] == [
        f"The {name} lighthouse." for name in ("blue", "plain", "red")
    ]


def test_a_search_for_a_caller_finds_what_they_may_see(pending: KnowledgeBase) -> None:
    def found(caller: Caller | None) -> set[str]:
        return {hit.path for hit in pending.search("lighthouse draft", caller=caller)}

    assert found(None) == {"red.md", "blue.md", "plain.md"}
    assert found(Caller(tags=("red",))) == {"red.md"}
    assert found(Caller(sources=("notes",))) == {"red.md", "blue.md", "plain.md"}
    assert found(Caller(sources=("notes",), tags=("green",))) == set()


@pytest.mark.parametrize("role", ["reader", "writer", "migrator"])
def test_callers_do_not_search_as_a_role_that_is_not_bound(
    indexed: KnowledgeBase,
    make_settings: Callable[..., Settings],
    database_urls: DatabaseUrls,
    role: str,
) -> None:
    url = urls_of(database_urls)[role]
    settings = make_settings().model_copy(update={"caller_database_url": url})
    with (
        KnowledgeBase(settings) as wrong,
        pytest.raises(SettingsError, match=f"as role kb_{role}.*kb_caller"),
    ):
        wrong.search("lighthouse", caller=Caller(tags=("red",)))
