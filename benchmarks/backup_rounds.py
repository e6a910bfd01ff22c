"""A generated knowledge base, and one backup, dump or drill of it at a time."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.components import seconds
from benchmarks.generated_index import load, open_generated
from benchmarks.one_backup import BackedUp, Drilled
from kb_assets import KnowledgeBase
from kb_assets.backup.programs import find_program, run_program
from kb_assets.database.cluster import ADMINISTRATOR
from kb_assets.database.embedded import leave_embedded, start_embedded

_COMPLETE = (
    # What reading documents would have left, had they been read.
    "update kb.document_revision r set text = c.text from ("
    " select revision_id, string_agg(text, ' ' order by ordinal) as text from kb.chunk group by 1"
    ") c where c.revision_id = r.id",
    "insert into kb.document_version (document_id, token, content_hash, recipe_id)"
    " select document_id, id::text, content_hash, recipe_id from kb.document_revision",
    "select setval('kb.document_id_seq', max(id)) from kb.document",
    "select setval('kb.document_revision_id_seq', max(id)) from kb.document_revision",
    "vacuum (analyze)",
    "checkpoint",
)


@dataclass(frozen=True, slots=True)
class Dumped:
    """What `pg_dump` wrote, and in how many seconds."""

    whole: float
    stored_bytes: int


@contextmanager
def generated(chunks: int, home: Path | None) -> Iterator[KnowledgeBase]:
    """A knowledge base of so many chunks, as indexing would have left it."""
    folder = home or Path(tempfile.mkdtemp(prefix="kb-backup-"))
    is_new = not (folder / "kb.toml").exists()
    kb = open_generated(folder)
    try:
        with kb:
            if is_new:
                print(f"generated in {seconds(lambda: _fill(kb, chunks)):.0f} s", flush=True)
            with kb.database.transaction() as connection:
                found = connection.execute("select count(*) from kb.chunk").fetchone()
            assert found == (chunks,), f"{folder} holds {found} chunks"
            yield kb
    finally:
        leave_embedded(kb.settings.home_folder)
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)


def _fill(kb: KnowledgeBase, chunks: int) -> None:
    load(kb, chunks)
    url = start_embedded(kb.settings.home_folder).url("kb", ADMINISTRATOR)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _COMPLETE:
            connection.execute(statement)


@contextmanager
def apart(kb: KnowledgeBase) -> Iterator[Path]:
    """A folder on the knowledge base's disk, gone afterwards; a server's account may pass it."""
    folder = Path(tempfile.mkdtemp(prefix="apart-", dir=kb.settings.root))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def back_up(kb: KnowledgeBase) -> BackedUp:
    """Make a backup in a new process, see that every byte of it is there, and remove it."""
    made = BackedUp(**_in_new_process("back_up", kb))
    _, wrong = kb.verify_backup()
    assert not wrong, wrong
    remove_backups(kb)
    return made


def remove_backups(kb: KnowledgeBase) -> None:
    shutil.rmtree(kb.settings.root / "backups")


def dump(kb: KnowledgeBase, *arguments: str) -> Dumped:
    """Let `pg_dump` write the same database to the same disk, and remove what it wrote."""
    with kb.database.session() as connection:
        major = connection.info.server_version // 10000
    program, url = find_program("pg_dump", major), kb.urls.backup
    with apart(kb) as folder:
        to_file = f"--file={folder / 'dump'}"

        def work() -> None:
            run_program(program, (*arguments, to_file), url)

        whole = seconds(work)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Dumped(whole, size)


def drill(kb: KnowledgeBase) -> Drilled:
    """Drill the newest backup in a new process."""
    return Drilled(**_in_new_process("drill", kb))


def _in_new_process(work: str, kb: KnowledgeBase) -> dict[str, Any]:
    command = (sys.executable, "-m", "benchmarks.one_backup", work, str(kb.settings.root))
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
