"""kill -9 at every step of a backup, a restore and a drill: what is half done counts for nothing.

The last good backup is there, and verifies; the next run succeeds, and clears what was left.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest

from kb_assets.backup.contents import Contents
from kb_assets.backup.manifest import Manifest
from kb_assets.backup.retention import prune
from kb_assets.database.connect import DatabaseUrls
from kb_assets.database.embedded import Major
from kb_assets.defs.partitions import BACKUP as ASSET
from kb_assets.errors import BackupTargetError, SchemaError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.backup_drafts import KEY
from tests.conftest import Server
from tests.defs.conftest import evaluate_all
from tests.faults.backing_up import BACKUP, DRILL, IN_THE_WAY, RESTORE, BackupProcess
from tests.faults.test_backup_faults import CHECKS, KEEP_ONE, drilled, put, require_good
from tests.integration.test_backup_dump import contents_of, execute, fill

MATCHES, FRESH = CHECKS
DAY = timedelta(days=1)
WITH_SERVER = ("the server is started", "rows are there", "it is being compared")
HELD = (
    "select count(*) from pg_locks where locktype = 'advisory' and database ="
    " (select oid from pg_database where datname = current_database())"
)


@dataclass(frozen=True)
class Source:
    """A small knowledge base, what its database holds, and a backup of it."""

    settings: Settings
    urls: DatabaseUrls
    contents: Contents
    made: Manifest

    def beside(self, folder: Path) -> Settings:
        """Return settings of the same database with a home and a destination of a test's own."""
        shutil.copytree(self.settings.backup.uri, folder / "backups")
        return settings_of(self.settings.root, self.urls, folder)


@pytest.fixture(scope="module")
def source(
    servers: Callable[[Major], Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Source]:
    root = tmp_path_factory.mktemp("killed")
    (root / "documents").mkdir()
    (root / "kb.toml").write_text('[[sources]]\nname = "notes"\nuri = "documents"\n')
    with servers(16).new_database() as name, pytest.MonkeyPatch.context() as patched:
        patched.setenv("KB_BACKUP_KEY", KEY.decode())
        urls = servers(16).urls(name)
        settings = settings_of(root, urls, root)
        with KnowledgeBase(settings) as kb:
            fill(kb, root / "documents")
            execute(urls.migrator, f"create sequence {IN_THE_WAY}")
            made = kb.back_up().manifest
        yield Source(settings, urls, contents_of(urls.backup), made)


@pytest.fixture(autouse=True)
def untouched(source: Source) -> Iterator[None]:
    """The source is what it was, whatever a test did."""
    yield
    require_same(source, source.urls)


@pytest.fixture
def target(servers: Callable[[Major], Server]) -> Iterator[DatabaseUrls]:
    """An empty database."""
    with servers(16).new_database(None) as name:
        yield servers(16).urls(name)


@pytest.fixture
def restored(source: Source, target: DatabaseUrls) -> Iterator[KnowledgeBase]:
    """The knowledge base that a restore makes of it."""
    root = source.settings.root
    with KnowledgeBase(settings_of(root, target, root)) as kb:
        yield kb


def settings_of(root: Path, urls: DatabaseUrls, folder: Path) -> Settings:
    """Return settings of a database, with a home and a destination in a folder."""
    return Settings.load(
        root / "kb.toml",
        database_url=urls.writer,
        read_database_url=urls.reader,
        caller_database_url=urls.caller,
        archive_database_url=urls.archiver,
        migration_database_url=urls.migrator,
        backup_database_url=urls.backup,
        home=folder / "home",
        backup={"uri": str(folder / "backups"), **KEEP_ONE},
        search={"log_days": 0},
    )


def require_same(source: Source, urls: DatabaseUrls) -> None:
    now = contents_of(urls.backup)
    assert now.tables == source.contents.tables
    assert now.sequences == source.contents.sequences


def require_whole(kb: KnowledgeBase, made: Manifest) -> None:
    entry, problems = kb.verify_backup(made.id)
    assert (entry.state, entry.manifest, problems) == ("whole", made, ())


def wait_until_free(url: str) -> None:
    """Wait until the server has noticed that a killed process is gone."""
    give_up = time.monotonic() + 30
    while execute(url, HELD) != [(0,)]:
        assert time.monotonic() < give_up, "somebody is still at work"
        time.sleep(0.005)


def works(kb: KnowledgeBase, who: str) -> list[Path]:
    """Return the folders of runs, at work or killed."""
    root = kb.settings.home_folder / f"{who}-work"
    return list(root.iterdir()) if root.exists() else []


def answers(kb: KnowledgeBase) -> list[tuple[str, float]]:
    return [(hit.path, round(hit.score, 5)) for hit in kb.search("a lighthouse").hits]


# A backup.


@pytest.fixture
def kb(
    source: Source, tmp_path: Path, open_settings: Callable[[Settings], KnowledgeBase]
) -> KnowledgeBase:
    """A knowledge base without any backup."""
    settings = source.beside(tmp_path)
    shutil.rmtree(settings.backup.uri)
    return open_settings(settings)


@pytest.fixture
def good(kb: KnowledgeBase) -> Manifest:
    """A backup that was proven, and is too old."""
    return drilled(kb, put(kb, 2 * DAY))


@pytest.mark.parametrize("step", BACKUP)
def test_a_killed_backup_counts_for_nothing(kb: KnowledgeBase, good: Manifest, step: str) -> None:
    is_made = step == "the manifest is there"
    with BackupProcess(kb.settings, KnowledgeBase.back_up, ("backup", step)) as process:
        assert process.wait() == "stopped"
        process.kill()

    require_good(kb, good)
    others = [one for one in kb.backups() if one.id != good.id]
    assert {one.state for one in others} <= {"whole" if is_made else "unfinished"}
    newest, problems = kb.verify_backup()
    assert (newest.state, problems) == ("whole", ())
    assert (newest.id != good.id) == is_made
    found = evaluate_all(kb, *((ASSET, check) for check in CHECKS))
    assert newest.id in (found[MATCHES].description or "")
    assert found[FRESH].passed == is_made
    assert len(works(kb, "backup")) == 1

    wait_until_free(kb.urls.writer)
    made = kb.back_up().manifest
    require_whole(kb, made)
    assert kb.backup_place.newest().manifest == made
    assert works(kb, "backup") == []
    prune(kb.backup_place, kb.settings.backup, datetime.now(UTC) + 4 * DAY)
    require_good(kb, good)
    require_whole(kb, made)
    left = {one.name for one in Path(kb.settings.backup.uri).iterdir()} - {made.id, good.id}
    # Before its first object is there nothing of a backup is found, and nothing of it is large.
    assert len(left) == (step == "the first object is half there")


def test_a_first_backup_that_is_killed_makes_no_check_green(kb: KnowledgeBase) -> None:
    arm = ("backup", "the manifest is half there")
    with BackupProcess(kb.settings, KnowledgeBase.back_up, arm) as process:
        assert process.wait() == "stopped"
        process.kill()
    (entry,) = kb.backups()
    assert (entry.state, entry.is_good) == ("unfinished", False)
    found = evaluate_all(kb, *((ASSET, check) for check in CHECKS))
    assert {name: one.passed for name, one in found.items()} == dict.fromkeys(CHECKS, False)


def test_a_dump_that_outlives_its_killed_run_is_in_nobodys_way(kb: KnowledgeBase) -> None:
    arm = ("backup", "pg_dump is at work")
    with BackupProcess(kb.settings, KnowledgeBase.back_up, arm) as process:
        assert process.wait() == "stopped"
        programs = suspended(process)
        process.kill(alone=True)
    wait_until_free(kb.urls.writer)
    made = kb.back_up().manifest
    require_gone(programs)
    require_whole(kb, made)
    assert [entry.manifest for entry in kb.backups()] == [made]
    assert works(kb, "backup") == []


def suspended(process: BackupProcess) -> list[psutil.Process]:
    programs = process.programs()
    assert programs
    for program in programs:
        program.suspend()
    return programs


def require_gone(programs: list[psutil.Process]) -> None:
    """Let programs go on whose run was killed; they end by themselves."""
    for program in programs:
        with suppress(psutil.NoSuchProcess):
            program.resume()
    assert psutil.wait_procs(programs, 30)[1] == []


# A restore.


@pytest.mark.parametrize("step", RESTORE)
def test_a_killed_restore_is_closed_and_is_started_over(
    source: Source,
    target: DatabaseUrls,
    restored: KnowledgeBase,
    tmp_path: Path,
    open_settings: Callable[[Settings], KnowledgeBase],
    step: str,
) -> None:
    kb = open_settings(source.beside(tmp_path))
    work = partial(KnowledgeBase.restore_backup, to_url=target.migrator)
    with BackupProcess(kb.settings, work, ("restore", step)) as process:
        assert process.wait() == "stopped"
        process.kill()
    require_whole(kb, source.made)
    assert len(works(kb, "restore")) == 1
    wait_until_free(target.writer)

    if step == "it is open":
        with pytest.raises(BackupTargetError, match="is not empty: nothing was restored"):
            work(kb)
    else:
        with pytest.raises(SchemaError, match="broke off"):
            restored.search("a lighthouse")
        with pytest.raises(SchemaError, match="broke off"):
            restored.upgrade()
        with pytest.raises(SchemaError, match="nothing to back up"):
            restored.back_up()
        work(kb)
        assert works(kb, "restore") == []
    require_same(source, target)
    assert answers(restored) == answers(kb)
    assert execute(target.migrator, "select to_regnamespace('kb_restore')") == [(None,)]


def test_programs_that_outlive_a_killed_restore_are_ended_by_the_next(
    source: Source, target: DatabaseUrls, restored: KnowledgeBase, tmp_path: Path
) -> None:
    settings = source.beside(tmp_path)
    work = partial(KnowledgeBase.restore_backup, to_url=target.migrator)
    with BackupProcess(settings, work, ("restore", "pg_restore is at work")) as process:
        assert process.wait() == "stopped"
        programs = suspended(process)
        process.kill(alone=True)
    wait_until_free(target.writer)
    with BackupProcess(settings, work, None) as again:
        assert again.wait() == "done"
    require_gone(programs)
    require_same(source, target)
    assert answers(restored)


def test_tables_that_a_killed_restore_left_are_not_taken_for_whole(
    source: Source,
    target: DatabaseUrls,
    tmp_path: Path,
    open_settings: Callable[[Settings], KnowledgeBase],
) -> None:
    kb = open_settings(source.beside(tmp_path))
    work = partial(KnowledgeBase.restore_backup, to_url=target.migrator, schemas=("kb_space",))
    with BackupProcess(kb.settings, work, ("restore", "vectors are half copied")) as process:
        assert process.wait() == "stopped"
        process.kill()
    wait_until_free(target.writer)
    assert execute(target.migrator, "select count(*) from kb_space.embedding_1") == [(0,)]
    with pytest.raises(BackupTargetError, match="embedding_1 is there already") as refused:
        work(kb)
    assert "it is not whole" in refused.value.why
    execute(target.migrator, "drop schema kb_space cascade")
    assert work(kb).rows > 0
    assert works(kb, "restore") == []


# A drill.


def test_a_drill_can_be_killed_at_every_step(
    source: Source, tmp_path: Path, open_settings: Callable[[Settings], KnowledgeBase]
) -> None:
    kb = open_settings(source.beside(tmp_path))
    sockets, before = set[Path](), set[Path]()
    for step in DRILL:
        with BackupProcess(kb.settings, KnowledgeBase.drill, ("drill", step)) as process:
            assert process.wait() == "stopped"
            process.kill()
        require_whole(kb, source.made)
        is_noted = step == "the report is put"
        assert kb.backup_place.newest().is_good == is_noted
        if step in ("it is being compared", "the report is put"):
            assert evaluate_all(kb, (ASSET, FRESH))[FRESH].passed == is_noted
        # What is there is this one's: its folder, server and socket; of those before nothing is.
        folders = set(works(kb, "drill"))
        assert len(folders) == (not is_noted)
        assert len(servers_below(tmp_path)) == (step in WITH_SERVER)
        assert not any(one.exists() for one in before | sockets)
        notes = [folder / "postgres" / "socket-folder" for folder in folders]
        sockets |= {Path(note.read_text()) for note in notes if note.exists()}
        before |= folders
    assert len(before) == len(DRILL) - 1
    assert len(sockets) == len(WITH_SERVER)


def servers_below(folder: Path) -> list[psutil.Process]:
    """Return the servers whose data lie below a folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word.startswith(str(folder)) for word in process.info["cmdline"] or ())
    ]
