"""Servers whose roles are not those of the embedded one."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from kb_assets.database.cluster import ADMINISTRATOR, Cluster, ServerAddress
from kb_assets.database.connect import DatabaseUrls
from kb_assets.database.migrate import upgrade
from kb_assets.errors import DatabaseRefusedError, SettingsError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.message import Message
from kb_assets.retrieval.query import Caller
from kb_assets.settings import Settings
from tests.conftest import UNSAFE_AND_FAST

OURS = ("kb_migrator", "kb_writer", "kb_reader", "kb_caller", "kb_archiver", "solo")


@pytest.fixture(scope="module")
def address() -> Iterator[ServerAddress]:
    """A server of the tests' own, without any of our roles: they belong to whole servers."""
    folder = Path(tempfile.mkdtemp(prefix="kb-roles-"))
    folder.chmod(0o711)
    cluster = Cluster(folder / "postgres", 16)
    try:
        cluster.make_folder()
        yield cluster.ensure_running(UNSAFE_AND_FAST)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def administrator(address: ServerAddress) -> Iterator[Callable[..., None]]:
    """Run statements as the administrator; what they made is gone after the test."""

    def execute(*statements: str, database: str = "postgres") -> None:
        url = address.url(database, ADMINISTRATOR)
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    yield execute
    execute("drop database if exists kb with (force)", *(f"drop role if exists {r}" for r in OURS))


@pytest.fixture
def three_roles(administrator: Callable[..., None], address: ServerAddress) -> DatabaseUrls:
    """A server that was set up without callers."""
    administrator(
        *(f"create role {role} login" for role in OURS[:3]),
        "grant kb_writer to kb_migrator",
        "create database kb owner kb_migrator",
    )
    administrator("create extension vector", database="kb")
    urls = {name: address.url("kb", f"kb_{name}") for name in ("writer", "reader", "migrator")}
    return DatabaseUrls(**urls, dagster="", caller=address.url("kb", "kb_caller"))


@pytest.fixture
def open_(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[DatabaseUrls], KnowledgeBase]:
    """A knowledge base with a red document and a blue one, where these roles connect."""
    for name in ("red", "blue"):
        (folder / f"{name}.md").write_text(f"---\ntags: [{name}]\n---\nThe {name} lighthouse.\n")
    config = tmp_path / "kb.toml"
    config.write_text(f'[[sources]]\nname = "notes"\nuri = "{folder}"\n')

    def open_it(urls: DatabaseUrls) -> KnowledgeBase:
        knowledge_base = KnowledgeBase(
            Settings.load(
                config,
                database_url=urls.writer,
                read_database_url=urls.reader,
                migration_database_url=urls.migrator,
                caller_database_url=urls.caller,
                archive_database_url=urls.archiver,
                archive={"uri": str(tmp_path / "cold")},
            )
        )
        request.addfinalizer(knowledge_base.close)
        return knowledge_base

    return open_it


def found(knowledge_base: KnowledgeBase, caller: Caller | None) -> set[str]:
    return {hit.path for hit in knowledge_base.search("lighthouse", caller=caller)}


TODAY = datetime.now(UTC)
RED = Caller(tags=("red",))


def test_without_a_role_for_callers_all_is_as_it_was(
    three_roles: DatabaseUrls, open_: Callable[[DatabaseUrls], KnowledgeBase]
) -> None:
    """The writer may not pass row-level security by, and would be refused COPY."""
    knowledge_base = open_(three_roles)
    knowledge_base.upgrade()
    knowledge_base.index()
    assert found(knowledge_base, None) == {"red.md", "blue.md"}


def test_a_server_from_before_there_were_callers_gets_them(
    three_roles: DatabaseUrls,
    open_: Callable[[DatabaseUrls], KnowledgeBase],
    administrator: Callable[..., None],
) -> None:
    upgrade(three_roles.migrator, "0001")
    administrator("create role kb_caller login")
    with pytest.raises(DatabaseRefusedError, match="alter role kb_writer bypassrls"):
        upgrade(three_roles.migrator)
    administrator("alter role kb_writer bypassrls")
    knowledge_base = open_(three_roles)
    knowledge_base.upgrade()
    knowledge_base.index()
    assert found(knowledge_base, None) == {"red.md", "blue.md"}
    assert found(knowledge_base, RED) == {"red.md"}


def test_a_role_for_callers_may_come_later(
    three_roles: DatabaseUrls,
    open_: Callable[[DatabaseUrls], KnowledgeBase],
    administrator: Callable[..., None],
) -> None:
    knowledge_base = open_(three_roles)
    knowledge_base.upgrade()
    knowledge_base.index()
    administrator("create role kb_caller login", "alter role kb_writer bypassrls")
    with pytest.raises(SettingsError, match="run `kb upgrade`"):
        found(knowledge_base, RED)
    knowledge_base.upgrade()
    assert found(knowledge_base, RED) == {"red.md"}
    assert found(knowledge_base, None) == {"red.md", "blue.md"}
    knowledge_base.index()


def archive_and_erase(knowledge_base: KnowledgeBase, old: datetime) -> None:
    """Say something old, and something new that is erased."""
    said = [Message("old", "a", old, "user", "Hi."), Message("new", "b", TODAY, "user", "Bye.")]
    knowledge_base.messages.append(said)
    assert [month.rows for month in knowledge_base.archive_messages().months] == [1]
    assert knowledge_base.erase(conversation="b").receipt["hot_rows"] == 1


def test_an_archiver_may_come_later_and_the_writer_deletes_messages_until_then(
    three_roles: DatabaseUrls,
    open_: Callable[..., KnowledgeBase],
    administrator: Callable[..., None],
    address: ServerAddress,
) -> None:
    knowledge_base = open_(three_roles)
    knowledge_base.upgrade()
    archive_and_erase(knowledge_base, TODAY - timedelta(days=800))

    administrator("create role kb_archiver login")
    knowledge_base.upgrade()
    with pytest.raises(SettingsError, match=r"as role kb_writer.*KB_ARCHIVE_DATABASE_URL"):
        open_(three_roles).archive_messages()
    separate = open_(replace(three_roles, archiver=address.url("kb", "kb_archiver")))
    separate.messages.append([Message("late", "c", TODAY - timedelta(days=400), "user", "Hi.")])
    assert [month.rows for month in separate.archive_messages().months] == [1]
    assert separate.erase(conversation="c").receipt["cold_rows"] == 1


def test_one_role_that_owns_everything_and_one_for_callers(
    address: ServerAddress,
    open_: Callable[[DatabaseUrls], KnowledgeBase],
    administrator: Callable[..., None],
) -> None:
    """Where nobody can be given BYPASSRLS."""
    administrator(
        "create role solo login", "create role kb_caller login", "create database kb owner solo"
    )
    administrator("create extension vector", database="kb")
    solo = address.url("kb", "solo")
    knowledge_base = open_(DatabaseUrls(solo, solo, solo, "", address.url("kb", "kb_caller")))
    knowledge_base.upgrade()
    knowledge_base.index()
    assert found(knowledge_base, None) == {"red.md", "blue.md"}
    assert found(knowledge_base, RED) == {"red.md"}
    with psycopg.connect(address.url("kb", "kb_caller")) as connection:
        assert connection.execute("select count(*) from kb.document").fetchone() == (0,)
