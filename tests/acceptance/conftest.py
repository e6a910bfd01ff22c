"""`kb` with a database of the test's own."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kb_assets.database.connect import DatabaseUrls
from kb_assets.database.embedded import Major
from tests.acceptance.command_line import CommandLine, variables_of, write
from tests.conftest import Server


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """`kb` in an empty folder, with no database."""
    nowhere = "postgresql://nobody@127.0.0.1:9/nothing"
    return CommandLine(tmp_path, {"KB_DATABASE_URL": nowhere})


@contextmanager
def knowledge_base_folder() -> Iterator[CommandLine]:
    """Lend `kb` in an empty folder, with the embedded server; stopped at the end."""
    # Not in pytest's folders: as root the server runs as another account, kept out of there.
    folder = Path(tempfile.mkdtemp(prefix="kb-cli-"))
    folder.chmod(0o755)
    try:
        yield CommandLine(folder)
    finally:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if any(str(folder) in word for word in words):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fresh() -> Iterator[CommandLine]:
    """`kb` in an empty folder, with the embedded server; stopped at the end."""
    with knowledge_base_folder() as kb:
        yield kb


@pytest.fixture(scope="session")
def dagster_url(servers: Callable[[Major], Server]) -> Iterator[str]:
    """Where Dagster keeps the runs of all tests: making its tables takes longer than a test."""
    server = servers(16)
    with server.new_database() as name:
        yield server.url(name, "dagster")


@pytest.fixture
def kb(tmp_path: Path, database_urls: DatabaseUrls, dagster_url: str) -> CommandLine:
    """`kb` in a folder that `kb init` has made, with three documents and a migrated database."""
    made = CommandLine(tmp_path, variables_of(replace(database_urls, dagster=dagster_url)))
    made.must("init")
    write(
        tmp_path / "documents",
        herons="# Herons\n\nHerons stand in shallow water and wait for fish.",
        owls="# Owls\n\nOwls hunt at night and turn their heads far around.",
        field__swifts="# Swifts\n\nSwifts sleep while flying, high above the towns.",
    )
    return made
