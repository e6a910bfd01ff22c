"""A backup into another database: the same, or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kb_assets.backup.compare import compare
from kb_assets.backup.dump import dump
from kb_assets.backup.listing import needed_extensions, read_listing, without_extensions
from kb_assets.backup.manifest import Manifest, RoleFacts
from kb_assets.backup.part import restore_part
from kb_assets.backup.programs import find_program
from kb_assets.backup.restore import restore
from kb_assets.backup.snapshot import open_snapshot
from kb_assets.backup.target import claimed, find_target
from kb_assets.database import migrate
from kb_assets.database.connect import DatabaseUrls
from kb_assets.database.embedded import Major, leave_embedded
from kb_assets.errors import (
    BackupBusyError,
    BackupCorruptError,
    BackupTargetError,
    NotFoundError,
    SchemaError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.conftest import Server
from tests.integration.test_backup_dump import ODD_TABLES, contents_of, execute, fill, superuser

MORE = """
create table mine (a int, b int);
create function mine(int) returns int language sql as 'select 1';
create type mine_type as (a int, b text);
create type mine_enum as enum ('a');
create type mine_range as range (subtype = int);
create domain mine_domain as int default 3;
create view mine_view as select a from mine;
create materialized view mine_views as select a from mine;
create sequence mine_sequence;
create procedure mine_procedure() language sql as 'select 1';
"""
"""What else somebody may have made, in a schema that is not dropped as a whole."""

STEPS = ("Making", "Loading", "Comparing", "Building", "Erasing")
"""How what is said of each step begins."""


@dataclass(frozen=True)
class Backup:
    """A backup that was fetched, and where it is from."""

    manifest: Manifest
    folder: Path
    urls: DatabaseUrls

    def restore(self, url: str, **more: Any) -> Any:
        return restore(self.manifest, self.folder, url, **more)

    def differences(self, url: str, *, is_copy: bool = True) -> tuple[str, ...]:
        return compare(self.manifest, self.folder, url, is_copy=is_copy).failures


def backup_of(urls: DatabaseUrls, folder: Path, settings: Settings) -> Backup:
    folder.mkdir()
    with open_snapshot(urls.backup) as snapshot:
        dumped = dump(snapshot, folder, settings)
    facts = {one.name: getattr(dumped.contents, one.name) for one in fields(dumped.contents)}
    moment = snapshot.taken_at.isoformat()
    manifest = Manifest(
        id="a-backup",
        number=1,
        started_at=moment,
        snapshot_at=moment,
        finished_at=moment,
        kb_version="1",
        is_encrypted=False,
        files=(),
        **facts,
    )
    return Backup(manifest, folder, urls)


@pytest.fixture
def plain(
    knowledge_base: KnowledgeBase,
    folder: Path,
    database_urls: DatabaseUrls,
    tmp_path: Path,
    make_settings: Callable[..., Settings],
) -> Backup:
    """A backup of what a knowledge base makes by itself."""
    fill(knowledge_base, folder)
    return backup_of(database_urls, tmp_path / "backup", make_settings())


@pytest.fixture
def odd(
    knowledge_base: KnowledgeBase,
    folder: Path,
    database_urls: DatabaseUrls,
    tmp_path: Path,
    make_settings: Callable[..., Settings],
) -> Backup:
    """A backup of that and of tables of every kind, whose owner is a superuser."""
    fill(knowledge_base, folder)
    execute(superuser(database_urls), ODD_TABLES, MORE)
    return backup_of(database_urls, tmp_path / "backup", make_settings())


@pytest.fixture
def target(servers: Callable[[Major], Server]) -> Iterator[DatabaseUrls]:
    """An empty database of the same server."""
    server = servers(16)
    with server.new_database(None) as name:
        yield server.urls(name)


def revision_of(url: str) -> str | None:
    with psycopg.connect(url) as connection:
        return migrate.current(connection)


def answers(settings: Settings) -> list[tuple[str, float]]:
    with KnowledgeBase(settings) as kb:
        return [(hit.path, round(hit.score, 5)) for hit in kb.search("a lighthouse").hits]


# The same again.


@pytest.mark.parametrize(("of", "into"), [(16, 16), (16, 18), (18, 18)])
def test_a_restored_database_is_the_same(
    of: Major,
    into: Major,
    servers: Callable[[Major], Server],
    tmp_path: Path,
    folder: Path,
) -> None:
    with servers(of).new_database() as one, servers(into).new_database(None) as other:
        urls, others = servers(of).urls(one), servers(into).urls(other)
        config = tmp_path / "kb.toml"
        config.write_text(f'[[sources]]\nname = "notes"\nuri = "{folder}"\n')
        settings = Settings.load(config, database_url=urls.writer)
        with KnowledgeBase(settings) as kb:
            fill(kb, folder)
        execute(superuser(urls), ODD_TABLES)
        before = contents_of(urls.backup)
        backup = backup_of(urls, tmp_path / "backup", settings)

        report = backup.restore(superuser(others))

        assert backup.differences(superuser(others)) == ()
        assert backup.differences(superuser(others), is_copy=False) == ()
        again = contents_of(others.backup)
        assert again.tables == before.tables
        assert again.sequences == before.sequences
        assert contents_of(urls.backup).tables == before.tables
        assert (report.rows, report.tables) == (backup.manifest.rows, len(before.tables))
        assert report.notes == ()
        assert answers(Settings.load(config, database_url=others.writer)) == answers(settings)
        # What is needed next time: rights, and sequences that go on.
        with KnowledgeBase(Settings.load(config, database_url=others.writer)) as kb:
            (folder / "new.md").write_text("A new note.")
            kb.index()


def test_an_owner_that_is_no_superuser_restores(plain: Backup, target: DatabaseUrls) -> None:
    plain.restore(target.migrator)
    assert plain.differences(target.backup) == ()


def test_the_embedded_server_is_restored_into(
    plain: Backup, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    home = tmp_path / "home"
    settings = Settings.load(tmp_path / "kb.toml", home=home)
    try:
        plain.restore(find_target(settings))
        assert answers(settings) == answers(make_settings())
        with KnowledgeBase(settings) as kb, psycopg.connect(kb.urls.migrator) as connection:
            owner = connection.execute("select tableowner from pg_tables where tablename = 'chunk'")
            assert owner.fetchone() == ("kb_migrator",)
    finally:
        leave_embedded(home)


def test_a_target_is_named_or_ones_own(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    assert find_target(settings) == settings.migration_database_url
    other = settings.read_database_url
    assert find_target(settings, other) == other


# Where there is something.


@pytest.mark.parametrize(
    "statement",
    [
        "create table t (a int)",
        "create view v as select 1",
        "create sequence s",
        "create function f() returns int language sql as 'select 1'",
        "create type mood as enum ('well')",
        "create domain d as int",
        "create schema other create table t (a int)",
    ],
)
def test_what_is_there_stays_there(
    statement: str, target: DatabaseUrls, tmp_path: Path, plain: Backup
) -> None:
    execute(target.migrator, statement)
    with pytest.raises(BackupTargetError, match="is not empty: nothing was restored"):
        plain.restore(target.migrator)
    assert execute(target.migrator, "select to_regnamespace('kb')::text") == [(None,)]
    with pytest.raises(psycopg.errors.Error, match="already exists"):
        execute(target.migrator, statement)


def test_a_knowledge_base_that_has_anything_is_not_empty(plain: Backup) -> None:
    with pytest.raises(BackupTargetError, match="is not empty"):
        plain.restore(plain.urls.migrator)
    assert plain.differences(plain.urls.backup) == ()


def test_a_knowledge_base_without_anything_is_empty(
    plain: Backup, servers: Callable[[Major], Server]
) -> None:
    with servers(16).new_database() as name:
        urls = servers(16).urls(name)
        plain.restore(urls.migrator)
        assert plain.differences(urls.backup) == ()


def test_two_at_once_are_one(plain: Backup, target: DatabaseUrls) -> None:
    with claimed(target.migrator, plain.manifest, ()), pytest.raises(BackupBusyError):
        plain.restore(target.migrator)


# What ends early.


class Ended(BaseException):
    """The process ends here."""


@contextmanager
def ended_at(step: str) -> Iterator[Callable[[str], None]]:
    def say(text: str) -> None:
        if text.startswith(step):
            raise Ended

    with pytest.raises(Ended):
        yield say


@pytest.mark.parametrize("step", STEPS)
def test_what_ended_early_is_closed_and_started_over(
    step: str, odd: Backup, target: DatabaseUrls
) -> None:
    with ended_at(step) as say:
        odd.restore(superuser(target), replay=tuple, say=say)
    with psycopg.connect(target.writer) as connection, pytest.raises(SchemaError, match="broke"):
        migrate.require_current_schema(connection)
    with pytest.raises(SchemaError, match="broke off"):
        migrate.upgrade(target.migrator)
    odd.restore(superuser(target), replay=tuple)
    assert odd.differences(superuser(target)) == ()


def test_a_failing_step_ends_the_others(plain: Backup, target: DatabaseUrls) -> None:
    (vectors,) = (plain.folder / "tables").iterdir()
    vectors.write_bytes(vectors.read_bytes()[:-100])
    with pytest.raises(BackupCorruptError, match=r"tables/kb_space\.embedding_1\.zst"):
        plain.restore(target.migrator)
    assert revision_of(target.migrator) is None


@pytest.mark.parametrize("change", [{"rows": 1}, {"row_hash_sum": "0" * 32}])
def test_other_rows_than_were_backed_up_are_refused(
    change: dict[str, Any], plain: Backup, target: DatabaseUrls
) -> None:
    tables = tuple(
        replace(table, **change) if table.name == "chunk" else table
        for table in plain.manifest.tables
    )
    wrong = replace(plain, manifest=replace(plain.manifest, tables=tables))
    with pytest.raises(BackupCorruptError, match=r"kb\.chunk has 40 rows"):
        wrong.restore(target.migrator)
    assert revision_of(target.migrator) is None


# What a server must have.


@pytest.mark.parametrize(
    ("extensions", "words"),
    [({"postgis": "3.4"}, "lacks the extension postgis"), ({"vector": "9.1.0"}, "of 9.1.0")],
)
def test_an_extension_that_is_missing_is_told(
    extensions: dict[str, str],
    words: str,
    plain: Backup,
    target: DatabaseUrls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = frozenset(extensions)
    monkeypatch.setattr("kb_assets.backup.restore.needed_extensions", lambda _: needed)
    other = replace(plain, manifest=replace(plain.manifest, extensions=extensions))
    with pytest.raises(BackupTargetError, match=words):
        other.restore(target.migrator)
    assert execute(target.migrator, "select to_regnamespace('kb_restore')::text") == [(None,)]


def test_an_extension_that_nothing_needs_may_be_missing(
    plain: Backup, target: DatabaseUrls
) -> None:
    extensions = {**plain.manifest.extensions, "pg_stat_statements": "1.10"}
    toc = plain.folder / "schema.sql"
    extension = """--
-- Name: pg_stat_statements; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS pg_stat_statements WITH SCHEMA public;


"""
    text = toc.read_text()
    at = text.index("--\n-- Name: vector; Type: EXTENSION")
    toc.write_text(text[:at] + extension + text[at:])
    other = replace(plain, manifest=replace(plain.manifest, extensions=extensions))
    report = other.restore(target.migrator)
    assert "pg_stat_statements cannot be had here" in report.notes[0]
    assert other.differences(target.backup) == ()


def test_what_an_extension_is_needed_for_is_known(plain: Backup, target: DatabaseUrls) -> None:
    program = find_program("pg_restore", 16)
    listed = read_listing(program, plain.folder, target.migrator)
    assert needed_extensions(listed) == {"vector"}
    left = without_extensions(listed, ["vector"])
    assert len(left) == len(listed) - 1
    assert needed_extensions(left) == frozenset()


def test_an_older_server_is_refused(plain: Backup, target: DatabaseUrls) -> None:
    newer = replace(plain, manifest=replace(plain.manifest, server="18.1"))
    with pytest.raises(BackupTargetError, match="PostgreSQL 16, the backup is of 18"):
        newer.restore(target.migrator)


def test_roles_that_we_may_not_make_are_printed(plain: Backup, target: DatabaseUrls) -> None:
    role = RoleFacts("a b", ("login", "bypassrls"), ("pg_monitor",), ("connect",))
    roles = (*plain.manifest.roles, role)
    other = replace(plain, manifest=replace(plain.manifest, roles=roles))
    with pytest.raises(BackupTargetError, match="lacks roles") as refused:
        other.restore(target.migrator)
    for statement in (
        'create role "a b" login bypassrls noinherit;',
        'grant "pg_monitor" to "a b"',
    ):
        assert statement in refused.value.fix


def test_an_owner_that_we_may_not_give_is_told(odd: Backup, target: DatabaseUrls) -> None:
    with pytest.raises(BackupTargetError, match="may not make postgres the owner"):
        odd.restore(target.migrator)


# What was erased, and what was changed since.


def test_it_is_closed_until_erasures_are_done_again(plain: Backup, target: DatabaseUrls) -> None:
    seen: list[str | None] = []

    def replay() -> tuple[str, ...]:
        seen.append(revision_of(target.migrator))
        execute(target.migrator, "delete from kb.message")
        return ("Something was erased.",)

    report = plain.restore(target.migrator, replay=replay)
    assert seen == [None]
    assert report.notes == ("Something was erased.",)
    assert revision_of(target.migrator) == migrate.head()

    def fails() -> tuple[str, ...]:
        raise Ended

    with pytest.raises(BackupTargetError):
        plain.restore(target.migrator, replay=replay)


def test_it_stays_closed_if_erasing_fails(plain: Backup, target: DatabaseUrls) -> None:
    def fails() -> tuple[str, ...]:
        raise Ended

    with pytest.raises(Ended):
        plain.restore(target.migrator, replay=fails)
    assert revision_of(target.migrator) is None


@pytest.mark.parametrize("role", ["migrator", "superuser"])
def test_an_older_schema_is_brought_forward_before_it_is_opened(
    role: str,
    servers: Callable[[Major], Server],
    target: DatabaseUrls,
    tmp_path: Path,
    make_settings: Callable[..., Settings],
) -> None:
    older = migrate.revisions()[-2]
    with servers(16).new_database(None) as name:
        urls = servers(16).urls(name)
        migrate.upgrade(urls.migrator, older)
        backup = backup_of(urls, tmp_path / "backup", make_settings())
    seen: list[Any] = []

    def replay() -> tuple[str, ...]:
        seen.extend([revision_of(target.migrator), *execute(target.writer, "table kb.erasure")])
        return ()

    url = target.migrator if role == "migrator" else superuser(target)
    report = backup.restore(url, replay=replay)
    assert seen == [None]
    assert report.upgraded_from == older
    assert revision_of(target.migrator) == migrate.head()
    owner = execute(target.migrator, "select tableowner from pg_tables where tablename = 'erasure'")
    assert owner == [("kb_migrator",)]
    left = "select count(*) from pg_trigger where tgrelid = 'kb.alembic_version'::regclass"
    assert execute(target.migrator, left) == [(0,)]


def test_a_later_schema_is_refused_before_anything_is_done(
    plain: Backup, target: DatabaseUrls
) -> None:
    later = replace(plain, manifest=replace(plain.manifest, revision="9999"))
    with pytest.raises(SchemaError, match="9999"):
        later.restore(target.migrator, replay=tuple)
    assert execute(target.migrator, "select to_regnamespace('kb_restore')::text") == [(None,)]


# Some tables.


def test_a_table_comes_with_its_partitions(plain: Backup, target: DatabaseUrls) -> None:
    report = restore_part(plain.manifest, plain.folder, target.migrator, tables=["kb.message"])
    assert report.rows == 300
    assert execute(target.migrator, "select count(*) from kb.message") == [(300,)]
    tables = execute(target.migrator, "select tablename from pg_tables where schemaname = 'kb'")
    assert {name for (name,) in tables} == {
        *("message", "message_2025_01", "message_2025_02", "message_2025_03")
    }
    indexes = "select count(*) from pg_indexes where tablename = 'message'"
    assert execute(target.migrator, indexes) == execute(plain.urls.migrator, indexes)
    assert "is in these tables again" in report.notes[0]


def test_a_table_that_was_lost_comes_back_beside_the_others(plain: Backup) -> None:
    execute(superuser(plain.urls), "drop table kb.chunk cascade")
    report = restore_part(plain.manifest, plain.folder, superuser(plain.urls), tables=["kb.chunk"])
    assert execute(plain.urls.writer, "select count(*) from kb.chunk") == [(40,)]
    # It needs tables that were not asked for.
    assert "chunk_revision_id_fkey" in report.notes[1]


def test_a_schema_of_vectors_comes_with_its_indexes(plain: Backup, target: DatabaseUrls) -> None:
    report = restore_part(plain.manifest, plain.folder, target.migrator, schemas=["kb_space"])
    assert report.tables == 1
    before = "select indexdef from pg_indexes where schemaname = 'kb_space' order by 1"
    assert execute(target.migrator, before) == execute(plain.urls.migrator, before)
    assert len(execute(target.migrator, before)) == 2


def test_a_part_is_not_put_over_what_is_there(plain: Backup) -> None:
    with pytest.raises(BackupTargetError, match=r"Table kb\.chunk is there already"):
        restore_part(plain.manifest, plain.folder, plain.urls.migrator, tables=["kb.chunk"])
    assert plain.differences(plain.urls.backup) == ()


@pytest.mark.parametrize("asked", [{"tables": ["kb.nothing"]}, {"schemas": ["nowhere"]}])
def test_what_is_not_in_a_backup_is_not_restored(
    asked: dict[str, Any], plain: Backup, target: DatabaseUrls
) -> None:
    with pytest.raises(NotFoundError, match="The backup has no"):
        restore_part(plain.manifest, plain.folder, target.migrator, **asked)


def test_a_part_that_fails_leaves_nothing(plain: Backup, target: DatabaseUrls) -> None:
    with ended_at("Building") as say:
        restore_part(plain.manifest, plain.folder, target.migrator, tables=["kb.message"], say=say)
    assert execute(target.migrator, "select to_regclass('kb.message')::text") == [(None,)]
