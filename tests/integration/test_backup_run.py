"""A backup is made: one at a time, whole, and gone from where it was worked on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kb_assets.backup.manifest import Manifest
from kb_assets.backup.place import BackupPlace
from kb_assets.backup.snapshot import only_backup
from kb_assets.backup.stage import BackupReport, make_backup
from kb_assets.database.connect import DatabaseUrls
from kb_assets.errors import BackupBusyError, DatabaseUnavailableError, DiskError, SchemaError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.conftest import Server


@pytest.fixture
def run(
    knowledge_base: KnowledgeBase,
    folder: Path,
    backup_settings: Settings,
    place: BackupPlace,
    database_urls: DatabaseUrls,
) -> Callable[[], BackupReport]:
    """Back an indexed database up."""
    (folder / "a.md").write_text("# Lighthouses\n\nThe lighthouse was seen at noon.\n")
    knowledge_base.index()
    return lambda: make_backup(backup_settings, place, database_urls.backup, run_id="run-one")


def left(backup_settings: Settings) -> list[Path]:
    work = backup_settings.home_folder / "backup-work"
    return list(work.iterdir()) if work.exists() else []


def test_a_backup_is_whole_and_the_newest(
    run: Callable[[], BackupReport], place: BackupPlace, backup_settings: Settings, tmp_path: Path
) -> None:
    first, second = run(), run()
    assert second.manifest.number == first.manifest.number + 1
    newest = place.newest()
    assert newest.manifest == second.manifest
    assert (newest.state, newest.is_signed) == ("whole", True)
    assert place.verify(second.manifest, lambda *_: None) == ()
    assert left(backup_settings) == []
    names = {file.name for file in second.manifest.files}
    assert {"schema.sql", "questions.json", "dump/toc.dat"} < names
    vectors = [table for table in second.manifest.tables if table.file]
    assert [(table.schema, table.name, table.rows) for table in vectors] == \
        [("kb_space", "embedding_1", 1)]  # fmt: skip
    assert {table.file for table in vectors} < names
    steps = {"snapshot", "schema", "dump", "vectors", "checksums", "questions", "upload", "total"}
    assert set(second.seconds) == steps
    manifest = second.manifest
    assert manifest.started_at <= manifest.snapshot_at <= manifest.finished_at
    assert manifest.started_at.endswith("+00:00")
    assert manifest.database_bytes > manifest.stored_bytes > 0
    place.fetch(manifest, tmp_path / "fetched")
    assert json.loads((tmp_path / "fetched" / "questions.json").read_text())["asked"]


def test_while_one_is_made_no_other_begins(
    run: Callable[[], BackupReport], database_urls: DatabaseUrls, place: BackupPlace
) -> None:
    with only_backup(database_urls.backup, "another"), pytest.raises(BackupBusyError):
        run()
    assert place.entries() == ()


def test_what_fails_leaves_earlier_backups_and_no_files(
    run: Callable[[], BackupReport],
    place: BackupPlace,
    backup_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = run().manifest

    def fail(draft: Manifest, folder: Path) -> Manifest:
        assert any(folder.iterdir())
        raise DiskError("No room.")

    monkeypatch.setattr(place, "put", fail)
    with pytest.raises(DiskError):
        run()
    assert left(backup_settings) == []
    assert [entry.manifest for entry in place.entries()] == [whole]


def test_a_disk_without_room_says_so(
    run: Callable[[], BackupReport], backup_settings: Settings, place: BackupPlace
) -> None:
    backup_settings.home_folder.mkdir(parents=True)
    (backup_settings.home_folder / "backup-work").write_text("in the way")
    with pytest.raises(DiskError, match="The backup cannot work in"):
        run()
    assert place.entries() == ()


def test_what_is_no_knowledge_base_is_not_backed_up(
    servers: Callable[..., Server], backup_settings: Settings, place: BackupPlace
) -> None:
    server = servers(16)
    with server.new_database(None) as name, pytest.raises(SchemaError, match="nothing to back up"):
        make_backup(backup_settings, place, server.url(name, "kb_backup"), run_id="run-one")
    url = server.url("nowhere", "kb_backup")
    with pytest.raises(DatabaseUnavailableError):
        make_backup(backup_settings, place, url, run_id="run-one")
    assert place.entries() == ()
