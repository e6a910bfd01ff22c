"""A real PostgreSQL for every test that asks for one, at the price of a file copy.

One server per test session, shared by all workers of pytest-xdist; one database, migrated once,
that every test's own database is copied from. Nothing is left when the session has ended.
"""

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from kb_assets.database import migrate
from kb_assets.database.cluster import ADMINISTRATOR, Cluster, ServerAddress
from kb_assets.database.connect import Database, DatabaseUrls
from kb_assets.database.embedded import Major, leave_embedded, start_embedded
from kb_assets.database.provision import create_extension
from kb_assets.documents.files import LocalFolder
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.servers.flaky_proxy import FlakyProxy

if TYPE_CHECKING:
    from tests.servers.s3_servers import Bucket

# What a crash of the machine would destroy is thrown away anyway.
UNSAFE_AND_FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "max_connections": "300",
}
TEMPLATE = "kb_template"


@dataclass(frozen=True)
class Server:
    """A server whose databases are made and dropped by tests."""

    address: ServerAddress

    def execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.url("postgres", ADMINISTRATOR), autocommit=True) as connection:
            connection.execute(SQL(statement).format(*map(Identifier, names)))

    def url(self, database: str, user: str) -> str:
        return self.address.url(database, user)

    def urls(self, database: str) -> DatabaseUrls:
        return DatabaseUrls(
            writer=self.url(database, "kb_writer"),
            reader=self.url(database, "kb_reader"),
            migrator=self.url(database, "kb_migrator"),
            dagster=self.url(database, "dagster"),
            caller=self.url(database, "kb_caller"),
            backup=self.url(database, "kb_backup"),
            archiver=self.url(database, "kb_archiver"),
        )

    def make_template(self) -> None:
        """Migrate a database once; a half-made one has another name, and is made again."""
        with psycopg.connect(self.url("postgres", ADMINISTRATOR)) as connection:
            query = "select 1 from pg_database where datname = %s"
            if connection.execute(query, (TEMPLATE,)).fetchone():
                return
        draft = "kb_template_draft"
        self.execute("drop database if exists {}", draft)
        self.execute("create database {} owner kb_migrator", draft)
        create_extension(self.address, draft)
        migrate.upgrade(self.url(draft, "kb_migrator"))
        with psycopg.connect(self.url(draft, ADMINISTRATOR)) as connection:
            connection.execute("grant create on schema public to dagster")
        self.execute("alter database {} rename to {}", draft, TEMPLATE)

    @contextmanager
    def new_database(self, template: str | None = TEMPLATE) -> Iterator[str]:
        """Lend a database of the test's own: a copy of the migrated one, or one without tables."""
        name = f"test_{uuid.uuid4().hex[:16]}"
        statement = "create database {} template {} strategy file_copy owner kb_migrator"
        self.execute(statement, name, template or "template1")
        try:
            if template is None:
                create_extension(self.address, name)
            yield name
        finally:
            self.execute("drop database {} with (force)", name)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Major], Server]]:
    """Start servers by their major version; they stop when the last worker's session ends."""
    # Not pytest's own folder: as root the server runs as another account, and pytest keeps
    # others out of there.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    folder = Path(tempfile.gettempdir()) / f"kb-tests-{run}"
    shared = tmp_path_factory.getbasetemp()
    lock = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "postgres.lock"
    started: dict[Major, Server] = {}

    def server(major: Major) -> Server:
        if major not in started:
            with locked(lock):
                folder.mkdir(mode=0o711, exist_ok=True)
                address = start_embedded(folder / str(major), major=major, options=UNSAFE_AND_FAST)
                started[major] = Server(address)
                started[major].make_template()
        return started[major]

    yield server
    with locked(lock):
        for major in started:
            leave_embedded(folder / str(major))
        homes = folder.iterdir() if folder.exists() else ()
        if all(Cluster(home / "postgres", int(home.name)).state() is None for home in homes):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def database_urls(servers: Callable[[Major], Server]) -> Iterator[DatabaseUrls]:
    """A migrated, empty database of the test's own, as each role sees it.

    Dagster's tables go into schema `public` of the same database.
    """
    server = servers(16)
    with server.new_database() as name:
        yield server.urls(name)


@pytest.fixture
def database(database_urls: DatabaseUrls) -> Iterator[Database]:
    """The test's own database, as the writer."""
    with Database(database_urls.writer) as database:
        yield database


@pytest.fixture
def owner(database_urls: DatabaseUrls) -> Iterator[Database]:
    """The test's own database, as the owner of its tables, who may do everything."""
    with Database(database_urls.migrator) as database:
        yield database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of documents."""
    documents = tmp_path / "documents"
    documents.mkdir()
    return documents


@pytest.fixture
def make_settings(
    tmp_path: Path, folder: Path, database_urls: DatabaseUrls
) -> Callable[..., Settings]:
    """Settings of a knowledge base over `folder`, in the test's own database."""
    config = tmp_path / "kb.toml"
    config.write_text(f'[[sources]]\nname = "notes"\nuri = "{folder}"\n')

    def make(**overrides: object) -> Settings:
        return Settings.load(
            config,
            database_url=database_urls.writer,
            read_database_url=database_urls.reader,
            caller_database_url=database_urls.caller,
            archive_database_url=database_urls.archiver,
            migration_database_url=database_urls.migrator,
            backup_database_url=database_urls.backup,
            **overrides,
        )

    return make


@pytest.fixture
def knowledge_base(make_settings: Callable[..., Settings]) -> Iterator[KnowledgeBase]:
    """A knowledge base over `folder`, with the hash embedder."""
    with KnowledgeBase(make_settings()) as opened:
        yield opened


@pytest.fixture
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files look old enough for their version tokens to be trusted."""
    hour_ns = 3600 * 10**9
    late = partial(LocalFolder, clock=lambda: time.time_ns() + hour_ns)
    monkeypatch.setattr("kb_assets.documents.open.LocalFolder", late)


@pytest.fixture
def proxy(bucket: "Bucket") -> Iterator[FlakyProxy]:
    """What stands before a module's bucket, and goes wrong as told."""
    with FlakyProxy(bucket.endpoint) as proxy:
        yield proxy
