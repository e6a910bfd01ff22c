"""`kb` with a database of the test's own."""

from pathlib import Path

import pytest

from kb_assets.database.connect import DatabaseUrls
from tests.acceptance.command_line import CommandLine, variables_of, write


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """`kb` in an empty folder, with no database."""
    nowhere = "postgresql://nobody@127.0.0.1:9/nothing"
    return CommandLine(tmp_path, {"KB_DATABASE_URL": nowhere})


@pytest.fixture
def kb(tmp_path: Path, database_urls: DatabaseUrls) -> CommandLine:
    """`kb` in a folder that `kb init` has made, with three documents and a migrated database."""
    made = CommandLine(tmp_path, variables_of(database_urls))
    made.must("init")
    write(
        tmp_path / "documents",
        herons="# Herons\n\nHerons stand in shallow water and wait for fish.",
        owls="# Owls\n\nOwls hunt at night and turn their heads far around.",
        field__swifts="# Swifts\n\nSwifts sleep while flying, high above the towns.",
    )
    return made
