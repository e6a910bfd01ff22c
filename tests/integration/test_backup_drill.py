"""A drill: what is proven of a backup, and what turns it red."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kb_assets.backup import drill as drilling
from kb_assets.backup.compare import Findings, compare
from kb_assets.backup.drill import drill
from kb_assets.backup.manifest import Manifest, RoleFacts
from kb_assets.backup.place import BackupPlace
from kb_assets.backup.restore import restore
from kb_assets.backup.scratch import drill_folder
from kb_assets.backup.stage import make_backup
from kb_assets.database.cluster import Cluster
from kb_assets.database.connect import DatabaseUrls
from kb_assets.database.embedded import Major
from kb_assets.errors import (
    BackupCorruptError,
    BackupUntrustedError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    DiskError,
    NotFoundError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.object_store import ObjectStore
from kb_assets.settings import Settings
from tests.conftest import Server
from tests.integration.test_backup_dump import (
    ODD_TABLES,
    contents_of,
    execute,
    fill,
    superuser,
)


@pytest.fixture
def manifest(
    knowledge_base: KnowledgeBase,
    folder: Path,
    database_urls: DatabaseUrls,
    place: BackupPlace,
    backup_settings: Settings,
) -> Manifest:
    """A backup of a small knowledge base, in its destination."""
    fill(knowledge_base, folder)
    execute(superuser(database_urls), ODD_TABLES)
    return make_backup(backup_settings, place, database_urls.backup, run_id="a-run").manifest


def left(backup_settings: Settings) -> list[Path]:
    work = backup_settings.home_folder / "drill-work"
    return list(work.iterdir()) if work.exists() else []


# A backup that is good.


def test_a_good_backup_is_proven(
    manifest: Manifest, place: BackupPlace, backup_settings: Settings, database_urls: DatabaseUrls
) -> None:
    facts = drill(place, place.newest(), backup_settings)
    assert facts.failures == ()
    assert (facts.passed, facts.target, facts.id) == (True, "scratch", manifest.id)
    steps = {
        *(
            "fetch",
            "server",
            "schema",
            "rows",
            "checksums",
            "indexes",
            "vacuum",
            "definitions",
            "roles",
        ),
        *("sequences", "index checks", "questions", "total"),
    }
    assert steps <= set(facts.seconds)
    parts = sum(seconds for step, seconds in facts.seconds.items() if step != "total")
    assert 0 < parts <= facts.seconds["total"] + len(facts.seconds)
    assert place.newest().drills == (facts,)
    assert left(backup_settings) == []
    assert contents_of(database_urls.backup).tables == manifest.tables


def test_an_encrypted_backup_is_proven(
    knowledge_base: KnowledgeBase,
    folder: Path,
    database_urls: DatabaseUrls,
    place: BackupPlace,
    backup_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pyrage

    monkeypatch.setenv("KB_BACKUP_IDENTITY", str(pyrage.x25519.Identity.generate()))
    fill(knowledge_base, folder)
    made = make_backup(backup_settings, place, database_urls.backup, run_id="a-run").manifest
    assert made.is_encrypted
    assert drill(place, place.newest(), backup_settings).failures == ()
    monkeypatch.setenv("KB_BACKUP_IDENTITY", str(pyrage.x25519.Identity.generate()))
    facts = drill(place, place.newest(), backup_settings)
    assert not facts.passed
    assert "KB_BACKUP_IDENTITY" in facts.failures[0]


def test_an_unsigned_backup_is_told(
    manifest: Manifest, tmp_path: Path, backup_settings: Settings
) -> None:
    unsigned = BackupPlace(ObjectStore(str(tmp_path / "backups")), None)
    facts = drill(unsigned, unsigned.newest(), backup_settings)
    assert facts.passed
    assert "is not signed" in facts.notes[0]


# A backup that is not.


def test_one_flipped_bit_fails_before_anything_is_restored(
    manifest: Manifest,
    place: BackupPlace,
    backup_settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    piece = manifest.file("tables/kb_space.embedding_1.zst").pieces[0]
    file = tmp_path / "backups" / piece.key
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)

    def never(*_: object) -> None:
        raise AssertionError("It was restored.")

    monkeypatch.setattr(drilling, "restore", never)
    facts = drill(place, place.newest(), backup_settings)
    assert not facts.passed
    assert "tables/kb_space.embedding_1.zst" in facts.failures[0]
    assert place.newest().drills == (facts,)
    assert left(backup_settings) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"server": "19.1"}, "no embedded PostgreSQL 19"),
        ({"extensions": {"vector": "9.1.0"}}, "the backup is of 9.1.0"),
        ({"tables": ()}, ""),
    ],
)
def test_a_backup_that_cannot_be_restored_fails(
    change: dict[str, Any],
    words: str,
    manifest: Manifest,
    place: BackupPlace,
    backup_settings: Settings,
) -> None:
    entry = place.newest()
    if not words:
        tables = tuple(
            replace(table, rows=1) if table.name == "chunk" else table for table in manifest.tables
        )
        change, words = {"tables": tables}, "kb.chunk has 40 rows, not 1"
    facts = drill(place, replace(entry, manifest=replace(manifest, **change)), backup_settings)
    assert not facts.passed
    assert words in facts.failures[0]
    assert left(backup_settings) == []


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("forged", BackupUntrustedError),
        ("damaged", BackupCorruptError),
        ("unfinished", NotFoundError),
        ("deleting", NotFoundError),
    ],
)
def test_what_is_no_backup_is_not_drilled(
    state: Any,
    kind: type[Exception],
    manifest: Manifest,
    place: BackupPlace,
    backup_settings: Settings,
) -> None:
    with pytest.raises(kind, match=manifest.id):
        drill(place, replace(place.newest(), state=state, manifest=None), backup_settings)


def test_without_room_nothing_is_proven(
    manifest: Manifest,
    place: BackupPlace,
    backup_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = SimpleNamespace(total=100, used=0, free=100)
    monkeypatch.setattr("kb_assets.backup.drill.shutil.disk_usage", lambda _: usage)
    with pytest.raises(DiskError, match="no room for a drill"):
        drill(place, place.newest(), backup_settings)
    assert place.newest().drills == ()


def test_what_a_killed_drill_left_is_ended(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from kb_assets.backup.scratch import drill_folder, scratch_database
with drill_folder(Path({str(tmp_path)!r}), "a") as folder, scratch_database(folder, 16):
    print(folder, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        folder = Path(one.stdout.readline().strip())
        os.kill(one.pid, signal.SIGKILL)
    abandoned = Cluster(folder / "postgres", 16)
    assert abandoned.state() == "ready"
    with drill_folder(tmp_path, "b"):
        assert abandoned.state() is None
        assert not folder.exists()


# What is compared.


@pytest.fixture
def copy(
    manifest: Manifest,
    place: BackupPlace,
    tmp_path: Path,
    servers: Callable[[Major], Server],
) -> Iterator[tuple[str, Callable[..., Findings]]]:
    """A restored database's administrator, and how it is compared."""
    files = tmp_path / "files"
    files.mkdir()
    place.fetch(manifest, files)
    with servers(16).new_database(None) as name:
        url = superuser(servers(16).urls(name))
        restore(manifest, files, url)

        def compared(*, is_copy: bool = True, **changes: Any) -> Findings:
            return compare(replace(manifest, **changes), files, url, is_copy=is_copy)

        yield url, compared


CATALOGUE = "set allow_system_table_mods = on"

WRONG = [
    (["drop policy caller on kb.document"], "Defined otherwise.*kb.document caller POLICY"),
    (["revoke select on kb.chunk from kb_reader"], "Defined otherwise.*TABLE chunk ACL"),
    (["alter table kb.chunk owner to kb_writer"], "Defined otherwise"),
    (["drop index kb_space.embedding_1_hnsw"], "Defined otherwise.*embedding_1_hnsw INDEX"),
    (["select setval('kb.source_id_seq', 1, false)"], "Sequence kb.source_id_seq would give"),
    (["select setval('kb.document_id_seq', 99999)"], "kb.document_id_seq stands elsewhere"),
    (["update kb.document set path = path || '.old'"], "answers differ"),
    (["update kb.alembic_version set version_num = '0001'"], "The revision is 0001"),
    (
        [CATALOGUE, "update pg_index set indisvalid = false where indexrelid = "
         "'kb_space.embedding_1_hnsw'::regclass"],
        "kb_space.embedding_1_hnsw is not valid",
    ),
    (
        [CATALOGUE, "update pg_index set indisready = false where indrelid = 'kb.source'::regclass",
         "insert into kb.source (name, kind, uri) values ('unseen', 'local', 'x')",
         "update pg_index set indisready = true where indrelid = 'kb.source'::regclass"],
        "Index kb.source_name_key has 1 of 2 rows",
    ),
    (
        [CATALOGUE, "update pg_index set indisready = false where indrelid = "
         "'kb_space.embedding_1'::regclass",
         "update kb_space.embedding_1 set vector = vector",
         "update pg_index set indisready = true where indrelid = "
         "'kb_space.embedding_1'::regclass", "vacuum kb_space.embedding_1"],
        "Index kb_space.embedding_1_hnsw finds 0 of 20 vectors",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("statements", "words"), WRONG)
def test_a_copy_that_is_not_the_same_is_told(
    statements: list[str], words: str, copy: tuple[str, Callable[..., Findings]]
) -> None:
    url, compared = copy
    assert compared().failures == ()
    execute(url, *statements)
    failures = compared().failures
    assert any(re.search(words, failure) for failure in failures), failures


def test_roles_that_lack_something_are_told(copy: tuple[str, Callable[..., Findings]]) -> None:
    _, compared = copy
    roles = (
        RoleFacts("nobody_at_all", (), (), ()),
        RoleFacts("kb_reader", ("createdb", "inherit"), ("kb_writer",), ()),
    )
    found = compared(roles=roles)
    assert found.failures == (
        "There is no role nobody_at_all.",
        "Role kb_reader no longer is createdb.",
        "Role kb_reader no longer is a member of kb_writer.",
    )
    assert "Role kb_reader now is login." in found.notes


AMCHECK = """
create schema looking;
create function looking.bt_index_check(i regclass, all_of_it boolean) returns void
language plpgsql as $$ begin
    if i = 'kb.source_pkey'::regclass then
        raise 'item order invariant violated' using errcode = 'index_corrupted';
    end if;
end $$;
create function looking.verify_heapam(t regclass)
returns table (blkno bigint, offnum int, attnum int, msg text) language sql as $$
    select 1, 2, 3, 'line pointer is wrong' where t = 'kb.source'::regclass
$$;
set allow_system_table_mods = on;
insert into pg_extension select 90000, 'amcheck', 10, 'looking'::regnamespace, false, '1.3';
"""


def test_amcheck_is_used_where_it_is_installed(copy: tuple[str, Callable[..., Findings]]) -> None:
    url, compared = copy
    execute(url, AMCHECK)
    found = compared()
    assert "Index kb.source_pkey is damaged: item order invariant violated" in str(found.failures)
    assert "Table kb.source is damaged: line pointer is wrong." in found.failures
    assert "amcheck" not in str(found.notes)


# A database that was restored otherwise.


def test_a_database_of_another_moment_is_good(
    manifest: Manifest,
    place: BackupPlace,
    backup_settings: Settings,
    database_urls: DatabaseUrls,
    knowledge_base: KnowledgeBase,
    folder: Path,
) -> None:
    (folder / "1.md").write_text("# Something else\n")
    knowledge_base.index()
    execute(database_urls.migrator, "select kb.add_month('message', '2031-05-01')")
    execute(superuser(database_urls), "drop table kb.message_2025_01")
    facts = drill(place, place.newest(), backup_settings, from_url=database_urls.backup)
    assert facts.failures == ()
    assert (facts.passed, facts.target) == (True, "url")
    told = json.dumps(facts.notes)
    for words in ("kb.message_2031_05", "kb.message_2025_01", "Other rows", "answers differ"):
        assert words in told
    assert place.newest().drills == (facts,)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("drop table kb.query_log", "query_log TABLE"),
        ("select setval('kb.source_id_seq', 1, false)", "would give values"),
        ("truncate kb.document cascade", "answers differ"),
        ("alter table kb.chunk drop constraint chunk_revision_id_fkey", "chunk_revision_id_fkey"),
    ],
)
def test_a_database_that_is_not_whole_is_red(
    statement: str,
    words: str,
    manifest: Manifest,
    place: BackupPlace,
    backup_settings: Settings,
    database_urls: DatabaseUrls,
) -> None:
    execute(superuser(database_urls), statement)
    facts = drill(place, place.newest(), backup_settings, from_url=database_urls.backup)
    assert not facts.passed
    assert words in json.dumps(facts.failures)


def test_a_role_that_sees_a_part_proves_nothing(
    manifest: Manifest, place: BackupPlace, backup_settings: Settings, database_urls: DatabaseUrls
) -> None:
    with pytest.raises(DatabaseRefusedError):
        drill(place, place.newest(), backup_settings, from_url=database_urls.caller)
    assert place.newest().drills == ()


def test_a_database_that_is_not_there_is_no_failure_of_the_backup(
    manifest: Manifest, place: BackupPlace, backup_settings: Settings, tmp_path: Path
) -> None:
    nowhere = f"postgresql://x@/kb?host={tmp_path}&port=1"
    with pytest.raises(DatabaseUnavailableError):
        drill(place, place.newest(), backup_settings, from_url=nowhere)
    assert place.newest().drills == ()
