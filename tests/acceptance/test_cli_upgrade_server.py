"""`kb upgrade --postgres`: another version of the embedded server, whatever interrupts it."""

import signal
import subprocess
import sys

import psycopg
import pytest

from kb_assets.database.cluster import Cluster, ServerAddress
from kb_assets.database.embedded import leave_embedded, start_embedded
from tests.acceptance.command_line import COMMAND, CommandLine, started, write
from tests.acceptance.test_cli_upgrade import backups, hits, value

TO_18 = ("upgrade", "--postgres", "18")
LEFT = ("filling", "full")


def versions(kb: CommandLine) -> dict[str, str]:
    """Return every data folder's version."""
    found = (kb.folder / ".kb/postgres").glob("data*/PG_VERSION")
    return {file.parent.name: file.read_text().strip() for file in found}


def left(kb: CommandLine) -> list[str]:
    return [name for name in LEFT if (kb.folder / ".kb/postgres" / name).exists()]


def goes_on(kb: CommandLine, version: str) -> None:
    """Make sure that everything is there, can be written, and is served by a version."""
    write(kb.folder / "documents", owls="# Owls\n\nOwls are birds that hunt at night, silently.")
    assert kb.must("index")["waiting"] == 0
    assert "silently" in kb.must("search", "birds that hunt at night")["hits"][0]["text"]
    assert versions(kb)["data"] == version
    assert left(kb) == []


@pytest.fixture
def embedded(fresh: CommandLine) -> CommandLine:
    """`kb` with the embedded server and three documents in the index."""
    fresh.must("init")
    write(
        fresh.folder / "documents",
        herons="# Herons\n\nHerons stand in shallow water and wait for fish.",
        owls="# Owls\n\nOwls are birds that hunt at night.",
        swifts="# Swifts\n\nSwifts sleep while flying, high above the towns.",
    )
    fresh.must("index")
    return fresh


def address(kb: CommandLine) -> ServerAddress:
    return start_embedded(kb.folder / ".kb")


def test_another_version_has_everything_and_the_old_one_is_kept(embedded: CommandLine) -> None:
    kb = embedded
    before = hits(kb)
    runs = "select count(*) from runs"
    try:
        ran = value(address(kb).url("dagster", "dagster"), runs)
    finally:
        leave_embedded(kb.folder / ".kb")
    assert ran > 0

    report = kb.must(*TO_18)

    assert (report["server"]["before"], report["server"]["after"]) == (16, 18)
    assert backups(kb) == [report["backup"]]
    assert versions(kb) == {"data": "18", "data.16": "16"}
    assert hits(kb) == before
    assert kb.must("doctor")["sound"]
    assert kb.must("backup", "drill", report["backup"])["passed"]
    try:
        assert value(address(kb).url("dagster", "dagster"), runs) == ran
        assert value(address(kb).url("kb", "kb_reader"), "show server_version_num") >= "180000"
    finally:
        leave_embedded(kb.folder / ".kb")
    assert kb.must(*TO_18)["server"] is None
    assert len(backups(kb)) == 1
    refused = kb("upgrade", "--postgres", "16")
    assert refused.code == 4
    assert "does not go back" in refused.err
    goes_on(kb, "18")

    # And back, as docs/upgrading.md says.
    folder = kb.folder / ".kb/postgres"
    (folder / "data").rename(folder / "data.18")
    (folder / "data.16").rename(folder / "data")
    assert hits(kb) == before
    goes_on(kb, "16")


def test_nobody_is_cut_off(embedded: CommandLine) -> None:
    kb = embedded
    program = (
        "import sys; from pathlib import Path\n"
        "from kb_assets.database.embedded import start_embedded\n"
        "print(start_embedded(Path(sys.argv[1])), flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", program, str(kb.folder / ".kb")]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        refused = kb(*TO_18, "--no-backup")
        assert refused.code == 75
        assert "End `kb dev`" in refused.err
        other.communicate(b"\n")
    goes_on(kb, "16")


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("Copying the databases", signal.SIGKILL),
        ("Loading", signal.SIGKILL),
        ("Comparing the copy", signal.SIGKILL),
        ("Loading", signal.SIGINT),
    ],
)
def test_interrupted_it_is_as_before(embedded: CommandLine, words: str, number: int) -> None:
    kb = embedded
    command = [*COMMAND, *TO_18, "--no-backup"]
    with started(
        command, cwd=kb.folder, env=kb.environment(), stderr=subprocess.PIPE, text=True
    ) as upgrade:
        assert upgrade.stderr
        for line in upgrade.stderr:
            if line.startswith(words):
                break
        upgrade.send_signal(number)
        upgrade.wait(60)
    assert upgrade.returncode != 0
    goes_on(kb, "16")
    assert kb.must(*TO_18, "--no-backup")["server"]["after"] == 18
    goes_on(kb, "18")


@pytest.mark.parametrize("is_moved", [False, True])
def test_interrupted_in_the_last_step_it_goes_on(embedded: CommandLine, is_moved: bool) -> None:
    """The state between two renames, as a kill leaves it."""
    kb = embedded
    kb.must(*TO_18, "--no-backup")
    folder = kb.folder / ".kb/postgres"
    (folder / "full").mkdir()
    (folder / "data").rename(folder / "full/data")
    if not is_moved:
        (folder / "data.16").rename(folder / "data")
    goes_on(kb, "18")
    assert versions(kb) == {"data": "18", "data.16": "16"}


def test_what_cannot_be_copied_is_not_left_behind(embedded: CommandLine) -> None:
    kb = embedded
    try:
        with psycopg.connect(
            address(kb).url("postgres", "postgres"), autocommit=True
        ) as connection:
            connection.execute("create database notes")
    finally:
        leave_embedded(kb.folder / ".kb")
    refused = kb(*TO_18, "--no-backup")
    assert refused.code == 4
    assert "notes" in refused.err
    goes_on(kb, "16")


def test_an_old_folder_in_the_way_is_named(embedded: CommandLine) -> None:
    kb = embedded
    (kb.folder / ".kb/postgres/data.16").mkdir()
    refused = kb(*TO_18, "--no-backup")
    assert refused.code == 75
    assert "data.16" in refused.err
    assert Cluster(kb.folder / ".kb/postgres", 16).state() is None
    goes_on(kb, "16")
