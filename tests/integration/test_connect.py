"""What answers at a URL, and what is said when it cannot serve us."""

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from kb_assets.database.connect import Database, check_server, resolve_urls
from kb_assets.database.lease import shard_lease
from kb_assets.errors import DatabaseRefusedError, DatabaseUnavailableError, SettingsError
from kb_assets.fingerprints import Shard
from kb_assets.settings import Settings


def test_a_transaction_commits_at_its_end_and_rolls_back_on_an_error(database):
    insert = "insert into kb.source (name, kind, uri) values (%s, 'files', '.')"
    with database.transaction() as connection:
        connection.execute(insert, ("kept",))
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        connection.execute(insert, ("lost",))
        raise ZeroDivisionError
    with database.transaction() as connection:
        assert connection.execute("select name from kb.source").fetchall() == [("kept",)]


def test_a_session_is_set_up(database):
    with database.transaction() as connection:
        shown = connection.execute(
            "select current_setting('TimeZone'), current_setting('application_name'),"
            " current_setting('transaction_isolation'), current_user"
        ).fetchone()
    assert shown == ("UTC", "kb_assets", "read committed", "kb_writer")


def test_a_connection_outside_the_pool_is_in_autocommit_mode(database):
    with database.connect_outside_pool() as connection:
        assert connection.autocommit
        assert connection.execute("select '[1]'::halfvec").fetchone()[0].to_list() == [1.0]


def test_the_pool_recovers_when_its_connections_were_cut(database, database_urls):
    with database.transaction() as connection:
        connection.execute("select 1")
    with psycopg.connect(database_urls.writer) as other:
        other.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    with database.transaction() as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_connection_lost_in_a_transaction_is_unavailability(database, database_urls):
    with (
        psycopg.connect(database_urls.writer) as other,
        pytest.raises(DatabaseUnavailableError, match="terminating connection"),
        database.transaction() as connection,
    ):
        backend = connection.info.backend_pid
        other.execute("select pg_terminate_backend(%s, 10000)", (backend,))
        connection.execute("select 1")


def test_an_unreachable_server_is_told_at_once_and_without_the_password():
    database = Database("postgresql://kb:s3cret@127.0.0.1:1/kb")
    with pytest.raises(DatabaseUnavailableError) as caught, database.transaction():
        pass
    assert "127.0.0.1" in caught.value.why
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["postgresql://kb:s3cret%zz@host/kb", "mysql://kb:s3cret@h/kb", "s3cret"]
)
def test_a_wrong_url_is_refused_without_its_password(url):
    with pytest.raises(SettingsError) as caught:
        Database(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_database_without_pgvector_is_refused(servers):
    server = servers(16)
    server.execute("create database without_vectors")
    try:
        database = Database(server.url("without_vectors", "kb_writer"))
        with pytest.raises(DatabaseRefusedError, match="create extension vector"):
            database.transaction().__enter__()
    finally:
        server.execute("drop database without_vectors with (force)")


def test_an_old_pgvector_is_refused(servers):
    with (
        servers(16).new_database() as name,
        psycopg.connect(servers(16).url(name, "postgres")) as connection,
    ):
        connection.execute("update pg_extension set extversion = '0.8.3' where extname = 'vector'")
        with pytest.raises(DatabaseRefusedError, match=r"pgvector 0\.8\.3"):
            check_server(connection)


@contextmanager
def pooler(url: str):
    """Stand between client and server and give out a process id of our own, as PgBouncer does."""
    target = f"{parse_qs(urlsplit(url).query)['host'][0]}/.s.PGSQL.5432"
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink, rewrite):
        seen = b""
        while data := source.recv(65536):
            if rewrite:
                seen += data
                at = seen.find(b"K" + struct.pack(">I", 12))
                if at < 0 or len(seen) < at + 9:
                    if len(seen) < 4096:
                        continue
                else:
                    seen = seen[: at + 5] + struct.pack(">I", 4_000_000) + seen[at + 9 :]
                data, rewrite = seen, False
            sink.sendall(data)
        sink.close()

    def quietly(*pair):
        with suppress(OSError):  # the other direction was closed first
            pump(*pair)

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(target)
            for pair in ((client, server, False), (server, client, True)):
                threading.Thread(target=quietly, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    parts = urlsplit(url)
    try:
        yield (
            f"postgresql://{parts.username}@127.0.0.1:{listener.getsockname()[1]}{parts.path}"
            "?sslmode=disable&gssencmode=disable"
        )
    finally:
        listener.close()


def test_a_pooler_is_refused(database_urls):
    with pooler(database_urls.writer) as url, Database(url) as database:
        with pytest.raises(DatabaseRefusedError, match="Writes need a direct connection"):
            database.transaction().__enter__()
        with pytest.raises(DatabaseRefusedError, match="Writes need a direct connection"):
            shard_lease(database, Shard("wiki"), run_id="", wait_seconds=0).__enter__()


def test_urls_of_a_server_of_ones_own(monkeypatch):
    monkeypatch.delenv("KB_DAGSTER_DATABASE_URL", raising=False)
    urls = resolve_urls(
        Settings(
            database_url="postgres://w:p@h:1/kb?sslmode=require",
            read_database_url="postgresql+psycopg://r@replica/kb",
        )
    )
    assert urls.writer == urls.migrator == "postgresql://w:p@h:1/kb?sslmode=require"
    assert urls.reader == "postgresql://r@replica/kb"
    assert urls.dagster == "postgresql://w:p@h:1/dagster?sslmode=require"
    assert "w:p" not in repr(urls)


def test_dagster_may_live_elsewhere(monkeypatch):
    monkeypatch.setenv("KB_DAGSTER_DATABASE_URL", "postgresql://d@elsewhere/runs")
    assert resolve_urls(Settings(database_url="postgresql://w@h/kb")).dagster == (
        "postgresql://d@elsewhere/runs"
    )
