"""A destination of backups, and settings whose home is the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kb_assets.backup.place import BackupPlace
from kb_assets.object_store import ObjectStore
from kb_assets.settings import Settings
from tests.backup_drafts import KEY


@pytest.fixture
def place(tmp_path: Path) -> BackupPlace:
    return BackupPlace(ObjectStore(str(tmp_path / "backups")), KEY)


@pytest.fixture
def backup_settings(make_settings: Callable[..., Settings], tmp_path: Path) -> Settings:
    return make_settings(home=tmp_path / "home")
