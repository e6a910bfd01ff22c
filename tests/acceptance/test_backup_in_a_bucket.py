"""`kb backup` with a bucket that asks for a key, and without a key of its own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from kb_assets.database.embedded import Major
from tests.acceptance.command_line import CommandLine, write
from tests.conftest import Server
from tests.servers.s3_servers import Bucket, MotoServer


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with MotoServer() as server:
        yield server.new_bucket()


@pytest.fixture
def signed(kb: CommandLine, bucket: Bucket) -> CommandLine:
    """`kb` with three documents in the index, whose backups are signed and go to a bucket."""
    options = ", ".join(f'{name} = "{value}"' for name, value in bucket.options.items())
    with (kb.folder / "kb.toml").open("a") as config:
        config.write(f'\n[backup]\nuri = "{bucket.uri()}"\noptions = {{ {options} }}\n')
    key = "a key of more than sixteen characters"
    kb.variables = {**kb.variables, **bucket.environment, "KB_BACKUP_KEY": key}
    kb.must("index")
    return kb


@pytest.fixture
def other(servers: Callable[[Major], Server]) -> Iterator[str]:
    """An empty database beside, as its owner."""
    server = servers(16)
    with server.new_database(None) as name:
        yield server.url(name, "kb_migrator")


def is_empty(url: str) -> bool:
    query = "select to_regclass('kb.document') is null and to_regnamespace('kb_restore') is null"
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchone() == (True,)


def flip(bucket: Bucket, key: str) -> None:
    """Change a bit in the middle of an object."""
    content = bytearray(bucket.objects.read(key))
    content[len(content) // 2] ^= 1
    bucket.objects.write(key, bytes(content))


def test_a_flipped_bit_in_each_kind_of_object_is_named(
    signed: CommandLine, bucket: Bucket, other: str
) -> None:
    kb = signed
    made = kb.must("backup", "run")["id"]
    keys = [key for key in bucket.objects.keys() if f"/{made}/" in key]  # noqa: SIM118
    kinds = [
        next(key for key in keys if name in key)
        for name in ("/tables/", ".dat.gz", "/dump/toc.dat", "/schema.sql", "/questions.json")
    ]
    for key in kinds:
        flip(bucket, key)
    problems = kb.must("backup", "verify", code=17)["problems"]
    refused = kb("backup", "restore", "--to-url", other)
    assert refused.code == 17
    assert len(problems) == len(kinds)
    for key in kinds:
        url = f"s3://{bucket.name}/{key}"
        assert sum(url in problem for problem in problems) == 1
        assert url in refused.err
    assert is_empty(other)
    for key in kinds:
        flip(bucket, key)
    assert kb.must("backup", "verify")["problems"] == []
    kb.must("backup", "restore", "--to-url", other)
    assert not is_empty(other)


def test_a_wrong_secret_of_the_store_changes_nothing(signed: CommandLine, bucket: Bucket) -> None:
    kb = signed
    made = kb.must("backup", "run")["id"]
    before = sorted(bucket.objects.keys())
    for command in ("run", "list", "prune"):
        refused = kb("backup", command, AWS_SECRET_ACCESS_KEY="wrong")
        assert refused.code == 16
        assert "AWS_" in refused.err or "credentials" in refused.err
        assert "Traceback" not in refused.err
    assert sorted(bucket.objects.keys()) == before
    (listed,) = kb.must("backup", "list")["backups"]
    assert (listed["id"], listed["state"], listed["drills"]) == (made, "whole", [])


def test_without_a_key_the_embedded_database_comes_back_if_one_says_so(fresh: CommandLine) -> None:
    kb = fresh
    kb.must("init")
    write(
        kb.folder / "documents",
        herons="# Herons\n\nHerons stand in shallow water and wait for fish.",
        owls="# Owls\n\nOwls are birds that hunt at night.",
    )
    kb.must("index")
    before = kb.must("search", "birds that hunt at night")["hits"]
    made = kb.must("backup", "run")
    assert (made["is_signed"], made["rows"] > 0) == (False, True)
    found = kb.must("backup", "drill")
    assert found["passed"]
    assert "not signed" in found["notes"][0]
    assert kb("backup", "restore", "--unsigned").code == 19, "it is there, and in use"

    database = kb.folder / ".kb" / "postgres"
    shutil.rmtree(database)
    refused = kb("backup", "restore")
    assert refused.code == 18
    assert "--unsigned" in refused.err
    assert not _is_made(database)
    told = kb.text("backup", "restore", "--unsigned")
    assert made["id"] in told
    for command in ("kb doctor", "kb search", "kb index", "kb backup drill"):
        assert f"`{command}`" in told
    assert kb.must("search", "birds that hunt at night")["hits"] == before
    assert kb.must("index")["waiting"] == 0
    assert kb.must("backup", "drill")["passed"]


def _is_made(database: Path) -> bool:
    return database.exists() and any(database.rglob("PG_VERSION"))
