"""`kb upgrade`: from what earlier releases left, and from one version of PostgreSQL to the next."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kb_assets.database.cluster import ADMINISTRATOR
from kb_assets.database.connect import DatabaseUrls
from kb_assets.database.embedded import Major
from kb_assets.database.migrate import head
from tests.acceptance.command_line import CommandLine, variables_of, write
from tests.conftest import Server
from tests.migration.make_earlier import COMMITS, DOCUMENTS, EARLIER

QUESTION = ("search", "birds that hunt at night")
BUILT_LONG_AGO = "comment on index kb_space.embedding_1_hnsw is 'built by pgvector 0.8.2'"


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement)


def value(url: str, query: str) -> Any:
    with psycopg.connect(url) as connection:
        (found,) = connection.execute(query).fetchone() or (None,)
        return found


def hits(kb: CommandLine) -> list[Any]:
    found = kb.must(*QUESTION)["hits"]
    assert found[0]["path"] == "owls.md"
    assert len(found) > 1
    return list(found)


def backups(kb: CommandLine) -> list[str]:
    return [one["id"] for one in kb.must("backup", "list")["backups"]]


@pytest.fixture(params=sorted(COMMITS))
def earlier(
    request: pytest.FixtureRequest,
    servers: Callable[[Major], Server],
    tmp_path: Path,
    dagster_url: str,
) -> Iterator[CommandLine]:
    """`kb` with the database that an earlier release left, and the same documents."""
    server = servers(16)
    with server.new_database(None) as name:
        file = EARLIER / f"{request.param}.sql"
        execute(server.url(name, ADMINISTRATOR), file.read_text(encoding="utf-8"))
        kb = CommandLine(tmp_path, variables_of(replace(server.urls(name), dagster=dagster_url)))
        kb.must("init")
        write(tmp_path / "documents", **DOCUMENTS)
        kb.revision = request.param  # type: ignore[attr-defined]
        yield kb


def test_what_an_earlier_release_left_is_found(earlier: CommandLine) -> None:
    kb = earlier
    assert "kb upgrade" in kb(*QUESTION).err

    report = kb.must("upgrade")

    assert (report["revision_before"], report["revision"]) == (kb.revision, head())  # type: ignore[attr-defined]
    assert backups(kb) == [report["backup"]]
    found = hits(kb)
    assert kb.must("index")["waiting"] == 0
    assert kb.must("status")["totals"]["live"] == 3
    assert [one["path"] for one in hits(kb)] == [one["path"] for one in found]
    report = kb.must("upgrade")
    assert (report["backup"], report["rebuilt"], report["notes"]) == ("", [], [])
    assert len(backups(kb)) == 1


def test_the_backup_of_before_comes_back(earlier: CommandLine, servers: Any) -> None:
    kb = earlier
    report = kb.must("upgrade")
    server: Server = servers(16)
    with server.new_database(None) as name:
        url = server.url(name, ADMINISTRATOR)
        restored = kb.must("backup", "restore", report["backup"], "--unsigned", "--to-url", url)
        assert restored["upgraded_from"] == kb.revision  # type: ignore[attr-defined]
        assert value(url, "select count(*) from kb.chunk") == 3


def test_without_a_backup_nothing_is_changed(earlier: CommandLine) -> None:
    kb = earlier
    (kb.folder / "backups").write_text("no folder")
    url = kb.variables["KB_MIGRATION_DATABASE_URL"]

    refused = kb("upgrade")

    assert refused.code not in (0, 1)
    assert "Nothing was upgraded" in refused.err
    assert "--no-backup" in refused.err
    revision = "select version_num from kb.alembic_version"
    assert value(url, revision) == kb.revision  # type: ignore[attr-defined]
    assert kb.must("upgrade", "--no-backup")["backup"] == ""
    assert value(url, revision) == head()


def test_code_that_is_older_than_the_database_refuses(kb: CommandLine) -> None:
    kb.must("index")
    url = kb.variables["KB_MIGRATION_DATABASE_URL"]
    execute(url, "update kb.alembic_version set version_num = '9999'")
    for command in (QUESTION, ("index",), ("upgrade",), ("status",)):
        refused = kb(*command)
        assert refused.code == 4
        assert "Upgrade kb_assets" in refused.err
    assert value(url, "select version_num from kb.alembic_version") == "9999"
    assert backups(kb) == []


@pytest.fixture
def old_extension(
    kb: CommandLine, database_urls: DatabaseUrls, servers: Callable[[Major], Server]
) -> str:
    """An indexed database as pgvector 0.8.4 and a builder before it left it; its owner's URL."""
    kb.must("index")
    name = psycopg.conninfo.conninfo_to_dict(database_urls.migrator)["dbname"]
    url = servers(16).url(str(name), ADMINISTRATOR)
    execute(
        url,
        "update pg_extension set extversion = '0.8.4' where extname = 'vector'",
        BUILT_LONG_AGO,
    )
    return url


VERSION = "select extversion from pg_extension where extname = 'vector'"
COMMENT = "select obj_description('kb_space.embedding_1_hnsw'::regclass, 'pg_class')"
INDEX = "select 'kb_space.embedding_1_hnsw'::regclass::oid::bigint"


def test_the_extension_is_updated_and_its_indexes_are_built_anew(
    kb: CommandLine, old_extension: str
) -> None:
    before, index = hits(kb), value(old_extension, INDEX)

    report = kb.must("upgrade", KB_MIGRATION_DATABASE_URL=old_extension)

    assert (report["pgvector_before"], report["pgvector"]) == ("0.8.4", "0.8.5")
    assert len(report["rebuilt"]) == 1
    assert value(old_extension, INDEX) != index
    assert value(old_extension, COMMENT) == "built by pgvector 0.8.5"
    assert hits(kb) == before
    assert kb.must("upgrade", KB_MIGRATION_DATABASE_URL=old_extension)["rebuilt"] == []


def test_who_may_not_update_the_extension_is_told_who_may(
    kb: CommandLine, old_extension: str
) -> None:
    report = kb.must("upgrade")
    assert (report["pgvector"], len(report["rebuilt"])) == ("0.8.4", 1)
    assert "alter extension vector update" in report["notes"][0]
    assert value(old_extension, VERSION) == "0.8.4"
    assert "alter extension vector update" in kb.text("upgrade").replace("\n", " ")


def test_a_server_of_ones_own_has_its_own_way(kb: CommandLine) -> None:
    refused = kb("upgrade", "--postgres", "18")
    assert refused.code == 3
    assert "docs/upgrading.md" in refused.err
