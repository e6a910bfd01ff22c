"""`kb backup` as a person and as a script use it: made, proven, brought back."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pyrage
import pytest

from kb_assets.database.cluster import ADMINISTRATOR
from kb_assets.database.embedded import Major
from tests.acceptance.command_line import CommandLine, write
from tests.conftest import Server
from tests.servers.s3_servers import MotoServer

KEY = {"KB_BACKUP_KEY": "a key of more than sixteen characters"}
QUESTION = ("search", "birds that hunt at night")


def backup_settings(kb: CommandLine, *lines: str) -> None:
    config = kb.folder / "kb.toml"
    config.write_text("\n".join([config.read_text(), "[backup]", *lines, ""]))


@pytest.fixture(params=["folder", "bucket"])
def embedded(fresh: CommandLine, request: pytest.FixtureRequest) -> Iterator[CommandLine]:
    """`kb` with the embedded server, three documents, and backups in a folder or a bucket."""
    fresh.variables.update(KEY)
    fresh.must("init")
    write(
        fresh.folder / "documents",
        herons="# Herons\n\nHerons stand in shallow water and wait for fish.",
        owls="# Owls\n\nOwls are birds that hunt at night.",
        swifts="# Swifts\n\nSwifts sleep while flying, high above the towns.",
    )
    if request.param == "folder":
        yield fresh
        return
    with MotoServer() as server:
        bucket = server.new_bucket()
        options = ", ".join(f'{name} = "{value}"' for name, value in bucket.options.items())
        backup_settings(fresh, f'uri = "{bucket.uri()}"', f"options = {{ {options} }}")
        fresh.variables.update(bucket.environment)
        yield fresh
        assert any(key.endswith("/manifest.json") for key in bucket.objects.keys())  # noqa: SIM118


@pytest.fixture
def indexed(kb: CommandLine) -> CommandLine:
    """`kb` on a server of one's own, with three documents in the index, and a key that signs."""
    kb.variables.update(KEY)
    kb.must("index")
    return kb


@pytest.fixture
def other(servers: Callable[[Major], Server]) -> Iterator[str]:
    """An empty database beside, as its owner."""
    server = servers(16)
    with server.new_database(None) as name:
        yield server.url(name, "kb_migrator")


def take_in(kb: CommandLine, month: str, conversation: str = "talk") -> None:
    lines = [
        {
            "id": f"{conversation}-{month}-{number}",
            "conversation": conversation,
            "created_at": f"{month}-10T12:0{number}:00Z",
            "role": "user",
            "content": f"Message {number} of {month}.",
        }
        for number in range(4)
    ]
    file = kb.folder / "talks.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert kb.must("messages", "import", str(file))["added"] == 4


def damage(file: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def words(told: str) -> str:
    """Return what was said with one blank wherever there are several."""
    return " ".join(told.split())


def hits(kb: CommandLine, **variables: str) -> list[object]:
    found = kb.must(*QUESTION, **variables)["hits"]
    assert isinstance(found, list)
    assert found
    return found


def objects_beside(kb: CommandLine) -> dict[str, bytes]:
    files = [file for file in (kb.folder / "archive").rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files}


def objects_of(url: str) -> int:
    query = "select count(*) from pg_class c join pg_namespace n on n.oid = relnamespace" \
        " where nspname in ('kb', 'kb_space', 'kb_restore')"  # fmt: skip
    with psycopg.connect(url) as connection:
        (count,) = connection.execute(query).fetchone() or (0,)
        return int(count)


def test_a_lost_database_comes_back_and_answers_as_before(embedded: CommandLine) -> None:
    kb = embedded
    config = kb.folder / "kb.toml"
    config.write_text(f"{config.read_text()}\n[archive]\nretention_days = 1\n")
    kb.must("index")
    for month in ("2025-01", "2025-02"):
        take_in(kb, month)
    take_in(kb, "2025-02", "secret")
    before = hits(kb)

    made = kb.must("backup", "run")
    assert (made["number"], made["is_signed"], made["is_encrypted"]) == (1, True, False)
    (listed,) = kb.must("backup", "list")["backups"]
    assert (listed["id"], listed["state"], listed["drills"]) == (made["id"], "whole", [])
    found = kb.must("backup", "drill")
    assert (found["id"], found["passed"], found["failures"]) == (made["id"], True, [])
    assert 0 < found["seconds"]["rows"] <= found["seconds"]["total"]
    assert kb.must("backup", "verify")["problems"] == []
    kb.must("archive", "run")
    kb.must("erase", "--conversation", "secret", "--yes")

    shutil.rmtree(kb.folder / ".kb")
    restored = kb.must("backup", "restore")
    assert (restored["id"], restored["rows"]) == (made["id"], made["rows"])
    assert hits(kb) == before
    assert kb.must("doctor")["sound"]
    assert kb("messages", "window", "secret", "--tokens", "100").code == 9
    count = "select count(*), count(distinct id) from messages"
    assert kb.must("archive", "query", count)["rows"] == [[8, 8]]
    kb.must("archive", "run")
    assert kb.must("archive", "query", count)["rows"] == [[8, 8]]
    assert kb.must("archive", "verify")["damaged"] == 0
    assert kb.must("index")["waiting"] == 0
    again = kb.must("backup", "run")
    assert again["number"] == 2
    newest, oldest = kb.must("backup", "list")["backups"]
    assert (newest["id"], oldest["id"]) == (again["id"], made["id"])
    assert [one["passed"] for one in oldest["drills"]] == [True]


def test_people_read_sentences(indexed: CommandLine) -> None:
    kb = indexed
    kb.variables.pop("KB_BACKUP_KEY")
    assert kb.text("backup", "list") == f"There is no backup in {kb.folder}/backups: " \
        "run `kb backup run`.\n"  # fmt: skip
    told = kb.text("backup", "run")
    assert "KB_BACKUP_KEY" in told
    assert "kb backup drill" in told
    listed = kb.text("backup", "list")
    assert "never" in listed
    assert "Not signed" in listed
    kb.variables.update(KEY)
    told = kb.text("backup", "run")
    assert "Not signed" not in told
    assert "is the same" in kb.text("backup", "drill")
    listed = kb.text("backup", "list")
    assert "passed" in listed
    assert "forged" in listed
    assert "each as the manifest says, which is signed." in kb.text("backup", "verify")
    told = words(kb.text("backup", "prune", "--dry-run"))
    assert "the last whose drill passed" in told
    assert told.endswith("0 backups would be deleted, 2 kept.")


def test_a_flipped_bit_is_named_and_nothing_is_restored(indexed: CommandLine, other: str) -> None:
    kb = indexed
    made = kb.must("backup", "run")
    file = next((kb.folder / "backups" / made["id"] / "tables").iterdir())
    damage(file)
    name = f"tables/{file.name}"

    told = kb.must("backup", "verify", code=17)
    assert name in told["problems"][0]
    assert str(file) in told["problems"][0]
    told = kb.must("backup", "drill", code=13)
    assert (told["passed"], name in told["failures"][0]) == (False, True)
    empty = objects_of(other)
    refused = kb("backup", "restore", "--to-url", other)
    assert refused.code == 17
    assert name in refused.err
    assert objects_of(other) == empty
    damage(file)
    assert kb.must("backup", "restore", "--to-url", other)["id"] == made["id"]


def test_what_is_not_signed_by_us_is_not_restored(indexed: CommandLine, other: str) -> None:
    kb = indexed
    kb.must("backup", "run", KB_BACKUP_KEY="")
    refused = kb("backup", "restore", "--to-url", other, KB_BACKUP_KEY="")
    assert refused.code == 18
    assert "--unsigned" in refused.err
    assert kb("backup", "restore", "--to-url", other).code == 18
    assert kb.must("backup", "verify", code=18)["state"] == "forged"
    assert "too short" in kb("backup", "list", KB_BACKUP_KEY="short").err
    restored = kb.must("backup", "restore", "--unsigned", "--to-url", other, KB_BACKUP_KEY="")
    assert restored["rows"] > 0


def test_an_encrypted_backup_needs_its_identity(indexed: CommandLine, other: str) -> None:
    kb = indexed
    ours, another = (str(pyrage.x25519.Identity.generate()) for _ in range(2))
    assert kb.must("backup", "run", KB_BACKUP_IDENTITY=ours)["is_encrypted"]
    for file in (kb.folder / "backups").rglob("*"):
        assert not file.is_file() or b"Herons" not in file.read_bytes()
    for wrong in ("", another):
        refused = kb("backup", "restore", "--to-url", other, KB_BACKUP_IDENTITY=wrong)
        assert refused.code in (3, 18)
        assert "KB_BACKUP_IDENTITY" in refused.err
    before = hits(kb)
    kb.must("backup", "restore", "--to-url", other, KB_BACKUP_IDENTITY=ours)
    assert hits(kb, KB_DATABASE_URL=other, KB_READ_DATABASE_URL=other) == before


def test_a_database_in_use_is_left_alone(indexed: CommandLine) -> None:
    kb = indexed
    kb.must("backup", "run")
    before = hits(kb)
    refused = kb("backup", "restore")
    assert refused.code == 19
    assert "not empty" in refused.err
    assert "--to-url" in refused.err
    damage(next(file for file in (kb.folder / "backups").rglob("*.zst")))
    assert kb("backup", "restore").code == 19, "it was read before the database was looked at"
    assert hits(kb) == before


def test_what_was_erased_since_stays_erased(indexed: CommandLine, other: str) -> None:
    kb = indexed
    take_in(kb, "2025-01", "secret")
    kb.must("backup", "run")
    kb.must("erase", "--conversation", "secret", "--yes")
    kb.must("erase", "--document", "documents/owls.md", "--yes")
    kb.must("backup", "restore", "--to-url", other)
    there = {"KB_DATABASE_URL": other, "KB_READ_DATABASE_URL": other}
    assert kb("messages", "window", "secret", "--tokens", "100", **there).code == 9
    assert all(hit["path"] != "owls.md" for hit in hits(kb, **there))  # type: ignore[index]


def test_the_archive_of_a_database_that_lives_is_left_alone(
    indexed: CommandLine, other: str
) -> None:
    kb = indexed
    config = kb.folder / "kb.toml"
    config.write_text(f"{config.read_text()}\n[archive]\nretention_days = 1\n")
    take_in(kb, "2025-01")
    take_in(kb, "2025-01", "secret")
    kb.must("archive", "run")
    kb.must("backup", "run")
    kb.must("erase", "--conversation", "secret", "--yes")
    take_in(kb, "2025-02")
    kb.must("archive", "run")
    before = objects_beside(kb)

    report = kb.must("backup", "restore", "--to-url", other)

    assert objects_beside(kb) == before
    assert any("left alone" in note for note in report["notes"])
    assert kb.must("archive", "verify")["damaged"] == 0
    there = {"KB_DATABASE_URL": other, "KB_READ_DATABASE_URL": other}
    assert kb("messages", "window", "secret", "--tokens", "100", **there).code == 9


def test_a_table_comes_back_by_itself(indexed: CommandLine, other: str) -> None:
    kb = indexed
    take_in(kb, "2025-01")
    kb.must("backup", "run")
    report = kb.must("backup", "restore", "--table", "kb.message", "--to-url", other)
    assert report["rows"] == 4
    assert "erased" in report["notes"][0]
    with psycopg.connect(other) as connection:
        assert connection.execute("select count(*) from kb.message").fetchone() == (4,)
    missing = kb("backup", "restore", "--table", "kb.nothing", "--to-url", other)
    assert missing.code == 9


def test_only_what_is_kept_is_left(indexed: CommandLine) -> None:
    kb = indexed
    backup_settings(kb, "keep_daily = 1", "keep_weekly = 0", "keep_monthly = 0")
    good, middle, newest = (kb.must("backup", "run")["id"] for _ in range(3))
    kb.must("backup", "drill", good)
    plan = kb.must("backup", "prune", "--dry-run")
    assert (set(plan["keep"]), set(plan["delete"])) == ({good, newest}, {middle})
    assert len(kb.must("backup", "list")["backups"]) == 3
    assert kb.text("backup", "prune").endswith("1 backup deleted, 2 kept.\n")
    assert [one["id"] for one in kb.must("backup", "list")["backups"]] == [newest, good]
    assert [path.name for path in sorted((kb.folder / "backups").iterdir())] == [good, newest]


def test_a_database_that_others_restored_is_compared(
    indexed: CommandLine, servers: Callable[[Major], Server]
) -> None:
    kb = indexed
    kb.must("backup", "run")
    server = servers(16)
    name = kb.variables["KB_BACKUP_DATABASE_URL"].split("/")[3].split("?")[0]
    with server.new_database(name) as copy:
        url = server.url(copy, "kb_backup")
        found = kb.must("backup", "drill", "--from-url", url)
        assert (found["passed"], found["target"]) == (True, "url")
        assert "is whole" in kb.text("backup", "drill", "--from-url", url)
        with psycopg.connect(server.url(copy, ADMINISTRATOR), autocommit=True) as connection:
            connection.execute("drop index kb.chunk_input_hash_idx")
        red = kb.must("backup", "drill", "--from-url", url, code=13)
        assert "chunk_input_hash_idx" in " ".join(red["failures"])


def test_backups_that_are_not_there_are_told(indexed: CommandLine) -> None:
    kb = indexed
    for command in ("drill", "restore", "verify"):
        refused = kb("backup", command)
        assert refused.code == 9
        assert "kb backup run" in refused.err
    made = kb.must("backup", "run")["id"]
    refused = kb("backup", "drill", "20200101T000000Z-00000000")
    assert refused.code == 9
    assert made in refused.err
