"""A database in files: all of it, of one moment, and the same again in another database."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from kb_assets.archive.workplace import workplace
from kb_assets.backup import questions as asking
from kb_assets.backup.contents import Contents, read_contents
from kb_assets.backup.dump import DUMP_FOLDER, SCHEMA_FILE, Dumped, dump
from kb_assets.backup.programs import find_program, run_program
from kb_assets.backup.questions import ask_again, differences, read_questions
from kb_assets.backup.snapshot import Snapshot, only_backup, open_snapshot
from kb_assets.database.cluster import ADMINISTRATOR
from kb_assets.database.connect import DatabaseUrls
from kb_assets.database.embedded import Major
from kb_assets.errors import (
    BackupBusyError,
    BackupCorruptError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    DiskError,
    KbError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.message import Message
from kb_assets.settings import Settings
from tests.conftest import Server

ODD = '"o.dd"."Ta ""b*le"'
"""What a table may be called, and have: it must not be confused with others."""

ODD_TABLES = f"""
create schema "o.dd";
create type "o.dd".mood as enum ('well', 'ill');
create domain "o.dd".positive as int check (value > 0);
create type "o.dd".pair as (a int, b text);
create table {ODD} (
    id int generated always as identity,
    gone int,
    v vector(3),
    twice int generated always as (id * 2) stored,
    s sparsevec(5),
    vs vector[],
    mood "o.dd".mood,
    p "o.dd".positive,
    r "o.dd".pair,
    seen timestamptz default '2026-01-01 00:00:00.000001+00',
    f float8 default 0.1
);
alter table {ODD} drop column gone;
insert into {ODD} (v, s, vs, mood, p, r) values
    ('[1,2,3]', '{{1:1}}/5', array['[1,2]'::vector], 'ill', 3, row(1, 'x')),
    (null, null, null, null, null, null);
create table "o.dd".empty ();
insert into "o.dd".empty default values;
create table "o.dd".parts (n int, e halfvec(2)) partition by list (n);
create table "o.dd".part_1 partition of "o.dd".parts for values in (1);
create table "o.dd".part_2 partition of "o.dd".parts for values in (2);
insert into "o.dd".parts values (1, '[1,1]'), (2, '[2,2]'), (2, '[2,2]');
create sequence "o.dd".untouched start 7;
grant select on {ODD} to kb_reader;
create table kb.zero_dimension (h halfvec[] default array['[1]'::halfvec]);
insert into kb.zero_dimension default values;
"""


def superuser(urls: DatabaseUrls) -> str:
    return urls.writer.replace("kb_writer@", f"{ADMINISTRATOR}@")


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def fill(kb: KnowledgeBase, folder: Path) -> None:
    """Index some documents, and take in messages of three months."""
    for number in range(40):
        animal = ("fish", "fowl", "lighthouse")[number % 3]
        text = (
            f"# Note {number}\n\n" + f"The {animal} of number {number} was seen at {number}.\n" * 9
        )
        (folder / f"{number}.md").write_text(text)
    kb.index()
    kb.messages.append(
        Message(f"m{number}", f"c{number % 5}", datetime(2025, 1 + number % 3, 2, tzinfo=UTC),
                role="user", content=f"hello {number} \N{SNOWMAN}", metadata={"n": number})
        for number in range(300)
    )  # fmt: skip


@pytest.fixture
def filled(
    knowledge_base: KnowledgeBase, folder: Path, database_urls: DatabaseUrls
) -> DatabaseUrls:
    fill(knowledge_base, folder)
    execute(superuser(database_urls), ODD_TABLES)
    return database_urls


def contents_of(url: str, sessions: int = 2) -> Contents:
    with open_snapshot(url) as snapshot:
        return read_contents(snapshot, sessions=sessions)


def dump_of(url: str, folder: Path, settings: Settings) -> Dumped:
    folder.mkdir()
    with open_snapshot(url) as snapshot:
        return dump(snapshot, folder, settings)


def load(folder: Path, dumped: Dumped, url: str, major: int) -> None:
    """Put a dump into an empty database, as plainly as that can be done."""
    restore = find_program("pg_restore", major)
    source = str(folder / DUMP_FOLDER)
    left_out = folder.parent / "list"
    lines = run_program(restore, ["--list", source], url).splitlines()
    left_out.write_text("\n".join(line for line in lines if " EXTENSION " not in line))
    for section in ("pre-data", "data", "post-data"):
        arguments = [f"--section={section}", f"--use-list={left_out}", "--exit-on-error", source]
        run_program(restore, arguments, url)
        if section == "data":
            load_vectors(folder, dumped, url)


def load_vectors(folder: Path, dumped: Dumped, url: str) -> None:
    with psycopg.connect(url) as connection:
        for table in dumped.contents.tables:
            if table.file is None:
                continue
            columns = SQL(", ").join(map(Identifier, table.columns))
            statement = SQL("copy {} ({}) from stdin (format binary)").format(
                Identifier(table.schema, table.name), columns
            )
            with (
                pa.CompressedInputStream(str(folder / table.file), "zstd") as rows,
                connection.cursor().copy(statement) as copy,
            ):
                while piece := rows.read(100_000):
                    copy.write(piece)


def schema_lines(folder: Path) -> list[str]:
    lines = (folder / SCHEMA_FILE).read_text().splitlines()
    return [line for line in lines if not line.startswith(("\\", "--"))]


# All of it, and the same again.


@pytest.mark.parametrize("major", [16, 18])
def test_a_dump_is_the_same_database_again(
    major: Major,
    servers: Callable[[Major], Server],
    tmp_path: Path,
    folder: Path,
) -> None:
    server = servers(major)
    with server.new_database() as one, server.new_database(None) as other:
        urls = server.urls(one)
        config = tmp_path / "kb.toml"
        config.write_text(f'[[sources]]\nname = "notes"\nuri = "{folder}"\n')
        settings = Settings.load(config, database_url=urls.writer)
        with KnowledgeBase(settings) as kb:
            fill(kb, folder)
        execute(superuser(urls), ODD_TABLES)

        dumped = dump_of(urls.backup, tmp_path / "work", settings)
        before = dumped.contents
        # In another database, types have other numbers.
        execute(server.url(other, ADMINISTRATOR), "create type apart as enum ('a')")
        execute(server.url(other, ADMINISTRATOR), "drop type apart")
        load(tmp_path / "work", dumped, server.url(other, ADMINISTRATOR), major)

        again = dump_of(server.url(other, "kb_backup"), tmp_path / "again", settings)
        assert again.contents.tables == before.tables
        assert again.contents.sequences == before.sequences
        assert again.contents.extensions == before.extensions
        assert again.contents.revision == before.revision != ""
        assert before.server.startswith(f"{major}.")
        assert schema_lines(tmp_path / "again") == schema_lines(tmp_path / "work")
        asked = read_questions(tmp_path / "work")
        assert len(asked.asked) == 20
        assert all(one.nearest and one.worded for one in asked.asked)
        with open_snapshot(server.url(other, "kb_backup")) as snapshot:
            assert differences(asked, ask_again(snapshot.connection, asked)) == ()


def test_what_is_said_of_it_is_so(filled: DatabaseUrls) -> None:
    contents = contents_of(filled.backup)
    tables = {(table.schema, table.name): table for table in contents.tables}
    odd = tables["o.dd", 'Ta "b*le']
    assert odd.columns == ("id", "v", "s", "vs", "mood", "p", "r", "seen", "f")
    assert (odd.rows, odd.file) == (2, "tables/o%2Edd.Ta%20%22b%2Ale.zst")
    assert tables["o.dd", "empty"].rows == 1
    assert ("o.dd", "parts") not in tables
    assert [tables["o.dd", f"part_{n}"].rows for n in (1, 2)] == [1, 2]
    assert {table.schema for table in contents.tables} >= {"kb", "kb_space", "o.dd"}
    assert tables["kb", "document"].file is None
    messages = sum(table.rows for name, table in tables.items() if name[1].startswith("message_2"))
    assert messages == 300
    sequences = {(one.schema, one.name): one for one in contents.sequences}
    assert (sequences["o.dd", "untouched"].last_value, sequences["o.dd", "untouched"].is_called) \
        == (7, False)  # fmt: skip
    assert sequences["o.dd", 'Ta "b*le_id_seq'].last_value == 2
    roles = {role.name: role for role in contents.roles}
    assert set(roles) >= {"kb_migrator", "kb_writer", "kb_reader", "kb_caller"}
    assert ADMINISTRATOR not in roles
    assert roles["kb_migrator"].member_of == ("kb_writer",)
    assert roles["kb_writer"].attributes == ("bypassrls", "inherit", "login")
    assert set(roles["kb_migrator"].database_rights) == set()
    assert contents.extensions["vector"]


def test_rights_in_the_database_are_told(filled: DatabaseUrls) -> None:
    name = conninfo_to_dict(filled.writer)["dbname"]
    execute(superuser(filled), f"grant connect, create on database {name} to kb_backup")
    roles = {role.name: role for role in contents_of(filled.backup).roles}
    assert roles["kb_backup"].database_rights == ("connect", "create")
    assert roles["kb_backup"].member_of == ("pg_read_all_data",)
    assert not any(name.startswith("pg_") for name in roles)


CHANGES = {
    "a value": f"update {ODD} set f = 0.10000000000000002 where id = 1",
    "a vector": f"update {ODD} set v = '[1,2,4]' where id = 1",
    "a vector in an array": f"update {ODD} set vs = array['[1,3]'::vector] where id = 1",
    "nothing for something": f"update {ODD} set v = null where id = 1",
    "a row twice": "insert into \"o.dd\".parts values (1, '[1,1]')",
    "a row to another partition": 'update "o.dd".parts set n = 2 where n = 1',
    "an embedding": "delete from kb_space.embedding_1 where input_hash in (select input_hash"
    " from kb_space.embedding_1 limit 1)",
    "two values that change places": "update kb.source set kind = uri, uri = kind",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checksum_sees(change: str, filled: DatabaseUrls) -> None:
    before = contents_of(filled.backup)
    assert contents_of(filled.backup).tables == before.tables
    execute(superuser(filled), CHANGES[change])
    assert contents_of(filled.backup).tables != before.tables


def test_how_rows_are_stored_or_cut_into_parts_does_not_matter(
    filled: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents_of(filled.backup)
    execute(superuser(filled), "update kb.chunk set text = text", "vacuum full kb.chunk")
    execute(superuser(filled), "update kb.chunk set text = text")
    monkeypatch.setattr("kb_assets.backup.tables._PART_HEAP_BYTES", 8192)
    with open_snapshot(filled.backup) as snapshot:
        chunks = next(table for table in snapshot.tables if table.name == "chunk")
        assert len(list(chunks.ranges())) > 3
        assert read_contents(snapshot, sessions=3).tables == before.tables


# Of one moment.


def test_what_happens_meanwhile_is_not_in_it(filled: DatabaseUrls) -> None:
    before = contents_of(filled.backup)
    with open_snapshot(filled.backup) as snapshot:
        execute(superuser(filled), "delete from kb.chunk", f"update {ODD} set f = 3")
        assert read_contents(snapshot).tables == before.tables
        with snapshot.session() as session:
            assert session.execute("select count(*) from kb.chunk").fetchone() != (0,)
    assert contents_of(filled.backup).tables != before.tables


def test_nobody_empties_or_drops_a_table_meanwhile(filled: DatabaseUrls) -> None:
    with open_snapshot(filled.backup):
        for statement in ("truncate kb_space.embedding_1", 'drop table "o.dd".part_2'):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                execute(superuser(filled), "set lock_timeout = '100ms'", statement)


def test_a_table_that_goes_while_it_is_looked_for_is_no_fault(
    filled: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kb_assets.backup import snapshot as taking

    find, dropped = taking.find_tables, []

    def find_and_drop(connection: psycopg.Connection[Any]) -> Any:
        found = find(connection)
        if not dropped:
            dropped.append(execute(superuser(filled), 'drop table "o.dd".part_2'))
        return found

    monkeypatch.setattr(taking, "find_tables", find_and_drop)
    with open_snapshot(filled.backup) as snapshot:
        assert "part_2" not in [table.name for table in snapshot.tables]


def test_a_server_that_is_impatient_waits_for_a_backup(filled: DatabaseUrls) -> None:
    name = conninfo_to_dict(filled.writer)["dbname"]
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        execute(
            superuser(filled), f"alter role kb_backup in database {name} set {setting} = '200ms'"
        )
    with open_snapshot(filled.backup) as snapshot, snapshot.session() as session:
        session.execute("select pg_sleep(0.5)")
        assert snapshot.connection.execute("select 1").fetchone() == (1,)


# Who makes it.


@pytest.mark.parametrize("role", ["migrator", "caller"])
def test_a_role_that_row_level_security_binds_makes_none(role: str, filled: DatabaseUrls) -> None:
    with (
        pytest.raises(DatabaseRefusedError, match=r"kb\.document") as refused,
        open_snapshot(getattr(filled, role)),
    ):
        pass
    assert "KB_BACKUP_DATABASE_URL" in refused.value.fix


def test_a_role_that_may_not_read_a_table_makes_none(filled: DatabaseUrls) -> None:
    with (
        pytest.raises(DatabaseRefusedError, match="It may not read") as refused,
        open_snapshot(filled.dagster),
    ):
        pass
    assert '"o.dd".empty' in refused.value.why


def test_two_at_once_are_one(filled: DatabaseUrls) -> None:
    with (
        only_backup(filled.backup, "run-one"),
        pytest.raises(BackupBusyError, match=r"Run run-one is at work, since 20\d\d"),
        only_backup(filled.backup, "run-two"),
    ):
        pass
    with only_backup(filled.backup, "run-two"):
        pass


# Programs.


def test_programs_are_as_new_as_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pginstall/" in str(find_program("pg_dump", 16))
    assert "pginstall18/" in str(find_program("pg_dump", 17))
    with pytest.raises(DatabaseRefusedError, match=r"version 19 or later.*The PATH has none"):
        find_program("pg_dump", 19)
    own = tmp_path / "pg_dump"
    own.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 19beta1'\n")
    own.chmod(0o755)
    assert find_program("pg_dump", 19) == own
    with pytest.raises(DatabaseRefusedError, match="The PATH has version 19"):
        find_program("pg_dump", 20)


def test_a_password_is_in_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pg_dump"
    program.write_text('#!/bin/sh\necho "$@"; echo "it is $PGPASSWORD; $KB_BACKUP_KEY."\n')
    program.chmod(0o755)
    monkeypatch.setenv("KB_BACKUP_KEY", "a key that is nobody's")
    url = "postgresql://anna:canary@db.example.com/kb?sslmode=verify-full"
    command, told = run_program(program, ["--list"], url, options="-c work_mem=1MB").splitlines()
    assert told == "it is canary; ."
    assert "canary" not in command
    for part in ("user=anna", "host=db.example.com", "sslmode=verify-full", "work_mem=1MB"):
        assert part in command


FAILURES = [
    ("pg_dump: error: could not write to file: No space left on device", DiskError),
    ("pg_dump: error: connection to server at x failed: refused", DatabaseUnavailableError),
    ("pg_dump: error: permission denied for table t", DatabaseRefusedError),
    ("pg_dump: error: something else", DatabaseRefusedError),
]


@pytest.mark.parametrize(("words", "kind"), FAILURES)
def test_a_program_that_fails_says_why(words: str, kind: type[KbError], tmp_path: Path) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(f"#!/bin/sh\necho output; echo '{words}' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(kind) as failed:
        run_program(program, [], "postgresql://localhost/kb")
    assert type(failed.value) is kind
    assert words in failed.value.why


def test_a_program_that_is_killed_breaks_off(tmp_path: Path) -> None:
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    with pytest.raises(DatabaseUnavailableError, match="signal 9"):
        run_program(program, [], "postgresql://localhost/kb")


# What goes wrong while it is made.


@contextmanager
def snapshot_of(url: str, folder: Path) -> Iterator[Snapshot]:
    folder.mkdir()
    with open_snapshot(url) as snapshot:
        yield snapshot


def test_a_failing_part_ends_the_others(
    filled: DatabaseUrls,
    tmp_path: Path,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`pg_dump` would never end by itself here."""
    program = tmp_path / "pg_dump"
    program.write_text('#!/bin/sh\ncase "$*" in *--schema-only*) exit 0;; esac\nexec sleep 600\n')
    program.chmod(0o755)
    monkeypatch.setattr("kb_assets.backup.dump.find_program", lambda *_: program)
    work = tmp_path / "work"
    with snapshot_of(filled.backup, work) as snapshot:
        (work / "tables").write_text("a file where a folder should be")
        with pytest.raises(DiskError):
            dump(snapshot, work, make_settings())


def test_a_lost_session_is_told(
    filled: DatabaseUrls, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    with pytest.raises(DatabaseUnavailableError), snapshot_of(filled.backup, tmp_path / "w") as one:
        execute(
            superuser(filled),
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'kb_backup'"
            " and datname = current_database()",
        )
        dump(one, tmp_path / "w", make_settings())


def test_a_snapshot_that_nobody_holds_is_told(filled: DatabaseUrls) -> None:
    with (
        pytest.raises(DatabaseUnavailableError, match="held the snapshot"),
        open_snapshot(filled.backup) as snapshot,
    ):
        snapshot.connection.rollback()
        with snapshot.session():
            pass


def test_a_backups_folder_is_its_own(tmp_path: Path) -> None:
    with workplace(tmp_path, "b", who="backup") as mine, workplace(tmp_path, "a") as archive:
        assert mine.parent == tmp_path / "backup-work"
        assert archive.parent == tmp_path / "archive-work"
        assert stat.S_IMODE(mine.stat().st_mode) == 0o700
    assert not mine.exists()


# Questions.


def test_golden_questions_are_asked_evenly(
    filled: DatabaseUrls, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    lines = [f"- question: where was number {n}\n  documents: [{n}.md]\n" for n in range(50)]
    (tmp_path / "golden.yaml").write_text("".join(lines))
    settings = make_settings(quality={"questions": "golden.yaml"})
    with open_snapshot(filled.backup) as snapshot:
        asked = asking.ask(snapshot.connection, settings)
    assert [one.text[-2:].strip() for one in asked.asked] == [str(n) for n in range(0, 50, 3)]
    assert asked.note == ""


def test_without_a_provider_chunks_are_asked_for(
    filled: DatabaseUrls, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(quality={"questions": "missing.yaml"})
    with open_snapshot(filled.backup) as snapshot:
        asked = asking.ask(snapshot.connection, settings)
    assert len(asked.asked) == 20
    assert "Not the golden questions" in asked.note
    # A chunk is nearest to itself.
    assert all(one.nearest[0].score > 0.99 for one in asked.asked)


def test_another_answer_is_told(
    filled: DatabaseUrls, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with open_snapshot(filled.backup) as snapshot:
        asked = asking.ask(snapshot.connection, make_settings())
    asking.write_questions(asked, tmp_path)
    assert read_questions(tmp_path) == asked
    first = asked.asked[0].nearest[0]
    execute(superuser(filled), f"update kb.document set path = 'moved' where path = '{first.path}'")
    with open_snapshot(filled.backup) as snapshot:
        now = ask_again(snapshot.connection, asked)
    told = differences(asked, now)
    assert told
    assert "'moved'" in repr(told) or "notes:moved#" in told[0]
    execute(superuser(filled), "update kb.embedding_space set name = 'another'")
    with open_snapshot(filled.backup) as snapshot:
        now = ask_again(snapshot.connection, asked)
    assert now.note
    assert len(differences(asked, now)) >= 20


def test_damaged_questions_are_no_questions(tmp_path: Path) -> None:
    (tmp_path / "questions.json").write_text("{}")
    with pytest.raises(BackupCorruptError):
        read_questions(tmp_path)


def test_an_empty_knowledge_base_is_dumped_too(
    database_urls: DatabaseUrls, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    dumped = dump_of(database_urls.backup, tmp_path / "work", make_settings())
    assert "nothing was indexed" in dumped.questions.note
    assert sum(table.rows for table in dumped.contents.tables) > 0
