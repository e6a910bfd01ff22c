"""Up, down, refusals and rights, with data in the tables."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from kb_assets.database import migrate
from kb_assets.database.connect import Database
from kb_assets.errors import DatabaseRefusedError, DatabaseUnavailableError, SchemaError


@pytest.fixture
def migrated(unmigrated):
    migrate.upgrade(unmigrated.urls.migrator)
    return unmigrated


def add_rows(urls):
    """One document with a chunk, and its vector in a table made at run time."""
    with Database(urls.writer) as database, database.transaction() as connection:
        connection.execute(
            "with s as (insert into kb.source (name, kind, uri) values ('wiki', 'files', '.')"
            "  returning id), r as (insert into kb.processing_recipe (fingerprint, settings)"
            "  values ('\\x01', '{}') returning id), d as (insert into kb.document"
            "  (source_id, path, slot) select id, 'a.md', 7 from s returning id, source_id),"
            " v as (insert into kb.document_revision (document_id, content_hash, recipe_id, text,"
            "  media_type) select d.id, '\\x02', r.id, 'text', 'text/markdown' from d, r"
            "  returning id)"
            " insert into kb.chunk (revision_id, ordinal, source_id, input_hash, byte_start,"
            "  byte_end, token_count, heading_path, text)"
            " select v.id, 0, d.source_id, '\\x03', 0, 4, 1, '{}', 'text' from v, d"
        )
        connection.execute(
            "create table kb_space.embedding_1 (input_hash bytea primary key, vector halfvec(2))"
        )
        connection.execute("insert into kb_space.embedding_1 values ('\\x03', '[1,2]')")


FOUND = (
    "select c.text, e.vector::text from kb.chunk c join kb_space.embedding_1 e using (input_hash)"
)


def test_data_survives_an_upgrade_that_has_nothing_to_do(migrated):
    add_rows(migrated.urls)
    migrate.upgrade(migrated.urls.migrator)
    with psycopg.connect(migrated.urls.reader) as connection:
        assert connection.execute(FOUND).fetchall() == [("text", "[1,2]")]


def test_data_survives_every_later_step_up_and_down(unmigrated):
    first, *later = migrate.revisions()
    migrate.upgrade(unmigrated.urls.migrator, first)
    add_rows(unmigrated.urls)
    for target in [*later, *reversed([first, *later])]:
        move = migrate.upgrade if target in later else migrate.downgrade
        with psycopg.connect(unmigrated.urls.migrator) as connection:
            if migrate.current(connection) == target:
                continue
        move(unmigrated.urls.migrator, target)
    with psycopg.connect(unmigrated.urls.reader) as connection:
        assert connection.execute(FOUND).fetchall() == [("text", "[1,2]")]


def test_down_to_the_base_removes_everything_and_up_again_works(migrated):
    add_rows(migrated.urls)
    migrate.downgrade(migrated.urls.migrator, "base")
    left = (
        "select relname from pg_class where relnamespace::regnamespace::text like 'kb%'"
        " and relkind = 'r' union all select nspname from pg_namespace where nspname = 'kb_space'"
        " union all select defaclnamespace::regnamespace::text from pg_default_acl"
    )
    with psycopg.connect(migrated.urls.migrator) as connection:
        assert connection.execute(left).fetchall() == [("alembic_version",)]
        with pytest.raises(SchemaError, match="no tables yet"):
            migrate.require_current_schema(connection)
    migrate.upgrade(migrated.urls.migrator)
    add_rows(migrated.urls)


def test_the_current_schema_is_accepted_by_every_role(migrated):
    for url in (migrated.urls.writer, migrated.urls.reader, migrated.urls.migrator):
        with psycopg.connect(url) as connection:
            migrate.require_current_schema(connection)


def set_revision(migrated, revision):
    with psycopg.connect(migrated.urls.migrator) as connection:
        connection.execute("update kb.alembic_version set version_num = %s", (revision,))


def test_a_database_ahead_of_the_code_is_refused(migrated):
    set_revision(migrated, "9999")
    told = r"revision 9999.*Upgrade kb_assets"
    with (
        psycopg.connect(migrated.urls.writer) as connection,
        pytest.raises(SchemaError, match=told),
    ):
        migrate.require_current_schema(connection)
    with pytest.raises(SchemaError, match=told):
        migrate.upgrade(migrated.urls.migrator)
    with pytest.raises(SchemaError, match=told):
        migrate.downgrade(migrated.urls.migrator, "base")


def test_a_database_behind_the_code_is_refused(migrated, monkeypatch):
    later = (*migrate.revisions(), "9999")
    monkeypatch.setattr(migrate, "revisions", lambda: later)
    with (
        psycopg.connect(migrated.urls.writer) as connection,
        pytest.raises(SchemaError, match=r"this code needs 9999.*Run `kb upgrade`"),
    ):
        migrate.require_current_schema(connection)


def test_a_database_without_tables_is_refused(unmigrated):
    with psycopg.connect(unmigrated.urls.writer) as connection:
        assert migrate.current(connection) is None
        with pytest.raises(SchemaError, match="Run `kb upgrade`"):
            migrate.require_current_schema(connection)


def test_upgrades_at_the_same_time_wait_for_each_other(unmigrated):
    program = (
        "import sys; from kb_assets.database.migrate import upgrade; sys.stdin.readline();"
        "upgrade(sys.argv[1])"
    )
    command = [sys.executable, "-c", program, unmigrated.urls.migrator]
    upgrades = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(3)]
    for process in upgrades:
        process.stdin.write("go\n")
        process.stdin.close()
    assert [process.wait(60) for process in upgrades] == [0, 0, 0]
    with psycopg.connect(unmigrated.urls.writer) as connection:
        migrate.require_current_schema(connection)


def test_upgrades_in_threads_wait_for_each_other(unmigrated):
    with ThreadPoolExecutor(3) as pool:
        urls = [unmigrated.urls.migrator] * 3
        assert list(pool.map(migrate.upgrade, urls)) == [None, None, None]


def test_a_role_that_may_not_change_the_schema_is_told_so(unmigrated):
    with pytest.raises(DatabaseRefusedError, match="KB_MIGRATION_DATABASE_URL"):
        migrate.upgrade(unmigrated.urls.writer)


def test_an_unreachable_server_is_unavailable():
    with pytest.raises(DatabaseUnavailableError):
        migrate.upgrade("postgresql://kb@127.0.0.1:1/kb")


def test_a_superuser_alone_is_enough_and_gets_pgvector(unmigrated):
    """A server of one's own with one URL for everything."""
    with psycopg.connect(unmigrated.postgres) as connection:
        connection.execute("drop extension vector")
    migrate.upgrade(unmigrated.postgres)
    with Database(unmigrated.postgres) as database, database.transaction() as connection:
        migrate.require_current_schema(connection)


def can(url, statement):
    try:
        with psycopg.connect(url) as connection:
            connection.execute(statement)
            connection.rollback()
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def test_rights_also_cover_tables_made_later(migrated):
    urls = migrated.urls
    with psycopg.connect(urls.migrator) as connection:
        connection.execute("create table kb.later (id int generated always as identity, n int)")
    with psycopg.connect(urls.writer) as connection:
        connection.execute("create table kb_space.embedding_9 (n int)")
    matrix = {
        "select * from kb.later": (True, True),
        "insert into kb.later (n) values (1)": (True, False),
        "update kb.later set n = 2": (True, False),
        "delete from kb.later": (True, False),
        "truncate kb.later": (False, False),
        "drop table kb.later": (False, False),
        "create table kb.mine (n int)": (False, False),
        "select * from kb.source": (True, True),
        "insert into kb.source (name, kind, uri) values ('a', 'b', 'c')": (True, False),
        "update kb.alembic_version set version_num = '0'": (False, False),
        "select * from kb_space.embedding_9": (True, True),
        "insert into kb_space.embedding_9 values (1)": (True, False),
        "create table kb_space.mine (n int)": (True, False),
        "drop table kb_space.embedding_9": (True, False),
        "create schema other": (False, False),
        "create role other": (False, False),
    }
    found = {s: (can(urls.writer, s), can(urls.reader, s)) for s in matrix}
    assert found == matrix
