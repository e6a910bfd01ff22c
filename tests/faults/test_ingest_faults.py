"""Sources that fail and files that cannot be read: one document's trouble is that document's."""

import os
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from kb_assets.chunks.plan import chunk_rows, recipe_of
from kb_assets.chunks.stage import chunk_documents
from kb_assets.documents.beneath import Beneath
from kb_assets.documents.parse import parse_job
from kb_assets.documents.stage import read_documents
from kb_assets.errors import SourceError, SourceUnavailableError
from kb_assets.fingerprints import Shard
from kb_assets.index.account import list_quarantine
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults.conftest import hash_vector
from tests.faults.indexing import IndexingProcess
from tests.oracle import assert_sound, rows_of

NOTES = Shard("notes")
AS_ANYBODY = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""Root may read any file; without these two rights it may not."""


def write(folder: Path, count: int) -> None:
    for number in range(count):
        text = f"# Topic {number}\n\nAll about subject{number} and nothing else.\n"
        (folder / f"{number:03}.md").write_text(text)


def found(kb: KnowledgeBase) -> set[str]:
    """Return the paths that readers can find."""
    return {hit.path for hit in kb.search("all about subjects", limit=1000)}


def reasons(kb: KnowledgeBase) -> dict[str, str]:
    return {one.path: one.reason for one in list_quarantine(kb.reader, NOTES, limit=1000)}


def test_an_emptied_folder_takes_nothing_away_until_that_is_confirmed(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, 10)
    knowledge_base.index()
    for file in folder.iterdir():
        file.unlink()
    for _ in range(2):
        report = knowledge_base.index().shards[0]
        assert (report.read.withheld, report.read.vanished) == (10, 0)
        assert len(found(knowledge_base)) == 10
        account = knowledge_base.status().shards[0].account
        assert (account.live, account.pending, account.missing) == (0, 10, 10)
        assert not knowledge_base.status().is_settled

    knowledge_base.index(run=knowledge_base.run(confirm_deletes=True))
    assert found(knowledge_base) == set()
    assert_sound(knowledge_base, hash_vector)


def test_a_disk_that_is_mounted_again_brings_everything_back_for_nothing(
    knowledge_base: KnowledgeBase, folder: Path, tmp_path: Path
) -> None:
    write(folder, 10)
    knowledge_base.index()
    folder.rename(tmp_path / "unmounted")
    with pytest.raises(SourceError):
        knowledge_base.index()
    assert len(found(knowledge_base)) == 10
    folder.mkdir()
    assert knowledge_base.index().shards[0].read.withheld == 10
    folder.rmdir()
    (tmp_path / "unmounted").rename(folder)
    report = knowledge_base.index().shards[0]
    assert (report.read.returned, report.embedded[0].embedded) == (10, 0)
    assert report.published.published == report.published.replaced == 0
    assert len(found(knowledge_base)) == 10
    assert_sound(knowledge_base, hash_vector)


def test_the_guard_lets_three_tenths_go_and_withholds_one_document_more(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, 100)
    knowledge_base.index()
    for number in range(31):
        (folder / f"{number:03}.md").unlink()
    report = knowledge_base.index().shards[0]
    assert (report.read.withheld, report.read.vanished) == (31, 0)
    assert len(found(knowledge_base)) == 100

    (folder / "000.md").write_text("# Topic 0\n\nAll about subject0 and nothing else.\n")
    report = knowledge_base.index().shards[0]
    assert (report.read.withheld, report.read.vanished) == (0, 30)
    assert report.published.removed == 30
    assert len(found(knowledge_base)) == 70
    assert_sound(knowledge_base, hash_vector)


def test_documents_that_moved_are_not_lost(knowledge_base: KnowledgeBase, folder: Path) -> None:
    write(folder, 10)
    knowledge_base.index()
    (folder / "archive").mkdir()
    for number in range(10):
        (folder / f"{number:03}.md").rename(folder / "archive" / f"{number:03}.md")
    report = knowledge_base.index().shards[0]
    assert (report.read.moved, report.read.withheld) == (10, 0)
    assert report.embedded[0].embedded == 0
    assert found(knowledge_base) == {f"archive/{number:03}.md" for number in range(10)}
    assert_sound(knowledge_base, hash_vector)


HOSTILE: dict[str, bytes] = {
    "nul.md": b"# Nul\n\nAll about\x00 this subject.\n",
    "invalid.md": "# Höhle\n\nAll about caves ".encode() + b"\xff\xfe\xc3.\n",
    "binary.md": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
    "front.md": b"---\ntitle: [unclosed\n---\nAll about nothing.\n",
    "bomb.md": b"---\na: &a [x, x]\nb: [*a, *a]\n---\nAll about bombs.\n",
    "empty.md": b"",
    "blank.md": b" \n\n\t\n",
    "long.txt": b"All about one long line " * (10 * 1024 * 1024 // 24),
    "large.md": b"x" * (11 * 1024 * 1024),
    "surrogate.md": b"# Half\n\nAll about \xed\xa0\x80 halves.\n",
    "name\n\x01.md": b"# Odd name\n\nAll about odd names.\n",
}
REFUSED = {
    "binary.md": "binary",
    "front.md": "front_matter",
    "bomb.md": "front_matter",
    "large.md": "too_large",
    "loop.md": "broken_link",
    "outside.md": "outside_root",
    "pipe.md": "not_a_file",
    "secret.md": "unreadable",
}


def let_enter(folder: Path) -> None:
    """Let everybody reach the test server's socket."""
    for part in (folder, *folder.parents[:-2]):
        part.chmod(part.stat().st_mode | 0o111)
    for socket in folder.glob(".s.PGSQL.*"):
        if socket.is_socket():
            socket.chmod(0o777)


@pytest.fixture
def hostile(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    folder: Path,
    tmp_path: Path,
) -> KnowledgeBase:
    """Good documents among bad ones, indexed by a process that may not read everything."""
    write(folder, 5)
    for name, content in HOSTILE.items():
        (folder / name).write_bytes(content)
    (tmp_path / "outside.md").write_text("# Outside\n\nAll about passwords.\n")
    (folder / "outside.md").symlink_to(tmp_path / "outside.md")
    (folder / "loop.md").symlink_to("loop.md")
    (folder / "around").symlink_to(folder)
    os.mkfifo(folder / "pipe.md")
    (folder / "secret.md").write_text("# Secret\n\nAll about secrets.\n")
    (folder / "secret.md").chmod(0)
    source = {"name": "notes", "uri": str(folder), "max_document_bytes": 10_500_000}
    kb = open_settings(make_settings(sources=[source]))
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        prefix = AS_ANYBODY
        let_enter(Path(str(conninfo_to_dict(kb.settings.database_url)["host"])))
    with IndexingProcess(kb.settings, prefix=prefix) as process:
        process.finish()
    return kb


def test_a_document_that_cannot_be_read_stops_no_other_and_is_released_when_mended(
    hostile: KnowledgeBase, folder: Path
) -> None:
    assert reasons(hostile) == REFUSED
    names = set(HOSTILE) - set(REFUSED) | {f"{number:03}.md" for number in range(5)}
    paths = {path for (path,) in rows_of(hostile, "select path from kb.document")}
    assert paths == names | set(REFUSED)
    for path in names - {"empty.md", "blank.md"}:
        assert hostile.search("all about", path_prefix=path)
    account = hostile.status().shards[0].account
    assert (account.live, account.quarantined) == (len(names), len(REFUSED))
    assert_sound(hostile, hash_vector)

    for path in REFUSED:
        (folder / path).unlink()
        (folder / path).write_text(f"# Mended\n\nAll about {path}.\n")
    hostile.index()
    assert reasons(hostile) == {}
    assert hostile.search("all about", path_prefix="secret.md")
    assert_sound(hostile, hash_vector)


def test_a_revision_that_cannot_be_parsed_leaves_the_old_one_answering(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, 3)
    knowledge_base.index()
    good = (folder / "001.md").read_bytes()
    (folder / "001.md").write_bytes(HOSTILE["front.md"])
    knowledge_base.index()
    assert reasons(knowledge_base) == {"001.md": "front_matter"}
    assert knowledge_base.search("subject1")[0].path == "001.md"
    account = knowledge_base.status().shards[0].account
    assert (account.live, account.quarantined, account.pending) == (2, 1, 0)
    assert_sound(knowledge_base, hash_vector)

    (folder / "001.md").write_bytes(good)
    report = knowledge_base.index().shards[0]
    assert (report.read.reverted, report.embedded[0].embedded) == (1, 0)
    assert reasons(knowledge_base) == {}
    assert_sound(knowledge_base, hash_vector)


def test_a_document_in_quarantine_that_is_deleted_leaves_nothing_behind(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, 4)
    (folder / "bad.md").write_bytes(HOSTILE["binary.md"])
    knowledge_base.index()
    (folder / "003.md").write_bytes(HOSTILE["front.md"])
    knowledge_base.index()
    (folder / "bad.md").unlink()
    (folder / "003.md").unlink()
    knowledge_base.index()
    assert rows_of(knowledge_base, "select * from kb.quarantine") == []
    assert found(knowledge_base) == {"000.md", "001.md", "002.md"}
    assert_sound(knowledge_base, hash_vector)


@pytest.mark.parametrize("stages", [1, 2])
def test_content_that_goes_back_before_it_was_published_waits_no_more(
    knowledge_base: KnowledgeBase, folder: Path, stages: int
) -> None:
    write(folder, 3)
    knowledge_base.index()
    good = (folder / "001.md").read_bytes()
    (folder / "001.md").write_text("# Topic 1\n\nAll about wombats.\n")
    run = knowledge_base.run()
    read_documents(run, NOTES, recipe_of(run.settings.splitting))
    if stages == 2:
        chunk_documents(run, NOTES)
    assert knowledge_base.status().shards[0].account.pending == 1
    (folder / "001.md").write_bytes(good)
    report = knowledge_base.index().shards[0]
    assert report.read.reverted == 1
    assert report.embedded[0].embedded == 0
    assert report.published.replaced == 0
    assert_sound(knowledge_base, hash_vector)


def test_content_that_changes_again_before_it_was_published_goes_live_once(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, 3)
    knowledge_base.index()
    run = knowledge_base.run()
    for subject in ("wombats", "numbats", "quolls"):
        (folder / "001.md").write_text(f"# Topic 1\n\nAll about {subject}.\n")
        read_documents(run, NOTES, recipe_of(run.settings.splitting))
        chunk_documents(run, NOTES)
    report = knowledge_base.index().shards[0]
    assert (report.published.replaced, report.embedded[0].embedded) == (1, 1)
    assert "quolls" in knowledge_base.search("quolls")[0].text
    assert_sound(knowledge_base, hash_vector)


LONG_FOLDERS = "/".join(["d" * 200] * 12)
STOPPED_THE_SOURCE: dict[str, bytes] = {
    "prose.md": b"---\ntags: " + b"prose without commas " * 600 + b"\n---\nAll about tags.\n",
    "code.md": b"---\ntags: [" + b64encode(bytes(range(256)) * 12) + b"]\n---\nAll about tags.\n",
    "bool.md": b"---\ndraft: !!bool maybe\n---\nAll about drafts.\n",
    "int.md": b'---\nx: !!int ""\n---\nAll about numbers.\n',
    "time.md": b"---\nx: !!timestamp foo\n---\nAll about time.\n",
}


def test_long_tags_long_paths_and_odd_values_stop_no_other_document(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    write(folder, 3)
    for name, content in STOPPED_THE_SOURCE.items():
        (folder / name).write_bytes(content)
    (folder / LONG_FOLDERS).mkdir(parents=True)
    (folder / LONG_FOLDERS / "a.md").write_text("All about depth.\n")
    knowledge_base.index()
    assert found(knowledge_base) == {"000.md", "001.md", "002.md"}
    (long,) = reasons(knowledge_base).keys() - STOPPED_THE_SOURCE.keys()
    expected = dict.fromkeys(STOPPED_THE_SOURCE, "front_matter") | {long: "path_too_long"}
    assert reasons(knowledge_base) == expected
    assert_sound(knowledge_base, hash_vector)


@pytest.mark.parametrize(
    ("function", "stage"),
    [
        ("kb_assets.documents.reading.parse_job", "parse"),
        ("kb_assets.chunks.stage.chunk_rows", "split"),
    ],
)
def test_a_bug_met_in_the_run_s_own_process_costs_one_document(
    knowledge_base: KnowledgeBase,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    stage: str,
) -> None:
    write(folder, 3)
    real = {"parse": parse_job, "split": chunk_rows}[stage]

    def fail(job: Any) -> Any:
        if "subject1" in repr(job):
            raise ZeroDivisionError("a bug")
        return real(job)

    monkeypatch.setattr(function, fail)
    knowledge_base.index()
    assert reasons(knowledge_base) == {"001.md": "parser_failed"}
    assert found(knowledge_base) == {"000.md", "002.md"}
    assert rows_of(knowledge_base, "select stage from kb.quarantine") == [(stage,)]
    assert_sound(knowledge_base, hash_vector)


def test_what_was_read_before_the_source_was_lost_is_kept(
    knowledge_base: KnowledgeBase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, 12)
    monkeypatch.setattr("kb_assets.documents.reading.MAX_BATCH_DOCUMENTS", 5)
    read_file, left = Beneath.read_file, [8]

    def lost(beneath: Beneath, path: str, limit: int) -> tuple[bytes, os.stat_result | None]:
        left[0] -= 1
        if left[0] < 0:
            raise SourceUnavailableError("The disk is gone.")
        return read_file(beneath, path, limit)

    monkeypatch.setattr(Beneath, "read_file", lost)
    with pytest.raises(SourceUnavailableError):
        knowledge_base.index()
    account = knowledge_base.status().shards[0].account
    assert (account.documents, account.pending) == (5, 5)
    left[0] = 100
    knowledge_base.index()
    assert len(found(knowledge_base)) == 12
    assert_sound(knowledge_base, hash_vector)
