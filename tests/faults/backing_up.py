"""Backups, restores and drills in processes that stop at a step of their work, to be killed."""

import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import psutil
import psycopg
import pyarrow as pa

from kb_assets.backup import drill, dump, loading, restore, stage
from kb_assets.backup.place import BackupPlace
from kb_assets.database.cluster import ADMINISTRATOR, Cluster
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.knowledge_base.backing_up import BackingUp
from kb_assets.settings import Settings
from tests.backup_drafts import KEY

IN_THE_WAY = "kb.in_the_way"
"""A sequence of the source, which nobody holds but who dumps it."""

WAITING = """
select exists (
    select from pg_stat_activity where datname = current_database()
    and application_name = %s and wait_event_type = 'Lock'
)
"""

Stop = Callable[[], None]
Arm = Callable[[Stop, Settings], None]


def before(owner: Any, name: str) -> Arm:
    """Stop when a function is called."""
    return _around(owner, name, is_before=True)


def after(owner: Any, name: str) -> Arm:
    """Stop when a function has done its work, and nobody knows yet."""
    return _around(owner, name, is_before=False)


def _around(owner: Any, name: str, *, is_before: bool) -> Arm:
    def arm(stop: Stop, _: Settings) -> None:
        original = getattr(owner, name)

        def wrapped(*values: Any, **named: Any) -> Any:
            if is_before:
                stop()
            result = original(*values, **named)
            if not is_before:
                stop()
            return result

        setattr(owner, name, wrapped)

    return arm


def putting(name: str) -> Arm:
    """Stop when an object is written, and not yet called what it is to be called."""

    def arm(stop: Stop, _: Settings) -> None:
        original = Path.hardlink_to

        def link(target: Path, part: Path) -> None:
            if target.name == name:
                stop()
            original(target, part)

        Path.hardlink_to = link

    return arm


def while_it_waits(owner: Any, name: str, program: str, statement: str) -> Arm:
    """Stop when a program of PostgreSQL is at work, and waits for what somebody else holds."""

    def arm(stop: Stop, _: Settings) -> None:
        original = getattr(owner, name)

        def wrapped(self: Any, *values: Any) -> None:
            url = self.url if isinstance(self, loading.Load) else self.snapshot.url
            url = re.sub(r"//\w+@", f"//{ADMINISTRATOR}@", url)
            with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as watch:
                holder.execute(statement)
                Thread(target=original, args=(self, *values), daemon=True).start()
                while watch.execute(WAITING, [f"kb_assets {program}"]).fetchone() != (True,):
                    time.sleep(0.005)
                stop()

        setattr(owner, name, wrapped)

    return arm


def copying_out(stop: Stop, _: Settings) -> None:
    """Stop when half of a table's vectors is in its file."""
    original = dump._compressed

    @contextmanager
    def compressed(file: Path) -> Iterator[Any]:
        def write(rows: bytearray) -> None:
            target.write(rows[: len(rows) // 2])
            target.flush()
            stop()

        with original(file) as target:
            yield SimpleNamespace(write=write)

    dump._compressed = compressed


def copying_in(stop: Stop, _: Settings) -> None:
    """Stop when half of a table's vectors is on its way into the table."""

    class Half:
        def __init__(self, rows: Any) -> None:
            self._rows = rows

        def __enter__(self) -> "Half":
            return self

        def __exit__(self, *error: object) -> None:
            self._rows.close()

        def read(self, size: int) -> bytes:
            if self._rows is None:
                stop()
            rows, self._rows = self._rows.read(size), None
            return bytes(rows[: len(rows) // 2])

    loading.pa = SimpleNamespace(
        CompressedInputStream=lambda *given: Half(pa.CompressedInputStream(*given))
    )


BACKUP: dict[str, Arm] = {
    "the snapshot is exported": before(stage, "dump"),
    "pg_dump is at work": while_it_waits(
        dump._Work, "dump", "pg_dump", f"drop sequence {IN_THE_WAY}"
    ),
    "vectors are half copied": copying_out,
    "all is dumped": before(BackupPlace, "put"),
    "the first object is half there": putting("contents.json"),
    "it is half uploaded": putting("toc.dat"),
    "the manifest is half there": putting("manifest.json"),
    "the manifest is there": after(BackupPlace, "put"),
}
RESTORE: dict[str, Arm] = {
    "the database is claimed": before(restore, "_load"),
    "there are tables without rows": before(loading.Load, "fill"),
    "pg_restore is at work": while_it_waits(
        loading.Load, "fill", "pg_restore", "lock table kb.chunk in access exclusive mode"
    ),
    "vectors are half copied": copying_in,
    "rows are there": before(loading.Load, "count"),
    "indexes are to be built": before(loading.Load, "index"),
    "erasures are to be replayed": before(BackingUp, "_replay"),
    "it is to be opened": before(restore, "_open"),
    "it is open": after(restore, "_open"),
}
DRILL: dict[str, Arm] = {
    "files are fetched": after(BackupPlace, "fetch"),
    "the server is made": before(Cluster, "_start"),
    "the server is started": before(drill, "restore"),
    "rows are there": before(loading.Load, "index"),
    "it is being compared": before(drill, "compare"),
    "the report is put": after(BackupPlace, "note_drill"),
}
"""What happens when a process is stopped, in the order of the steps."""

Work = Callable[[KnowledgeBase], object]

_processes = get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class BackupProcess:
    """Work on backups in a process of its own.

    Args:
        settings: The knowledge base's.
        work: What is done: a function that can be pickled.
        arm: Where it stops; nowhere if there is none.
    """

    def __init__(self, settings: Settings, work: Work, arm: tuple[str, str] | None) -> None:
        self._channel, theirs = _processes.Pipe()
        given = settings.model_dump_json(), work, arm, theirs
        self._process = _processes.Process(target=_work, args=given, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "BackupProcess":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(psutil.NoSuchProcess):
            self.kill()

    def wait(self, seconds: float = 60.0) -> str:
        """Return what it says next: that it stopped, that it is done, or what went wrong."""
        assert self._channel.poll(seconds), "it said nothing in time"
        return str(self._channel.recv())

    def programs(self) -> list[psutil.Process]:
        """Return the programs that it runs."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def kill(self, *, alone: bool = False) -> None:
        """Kill it and the programs that it runs, or it alone."""
        programs = [] if alone else self.programs()
        self._process.kill()
        for program in programs:
            with suppress(psutil.NoSuchProcess):
                program.kill()
        self._process.join(30)


def _work(settings: str, work: Work, arm: tuple[str, str] | None, channel: Connection) -> None:
    os.environ["KB_BACKUP_KEY"] = KEY.decode()

    def stop() -> None:
        channel.send("stopped")
        # Whatever else this process does ends at the step, too.
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(3600)  # The signal may come to another thread first.

    try:
        opened = Settings.model_validate_json(settings)
        if arm is not None:
            kind, step = arm
            {"backup": BACKUP, "restore": RESTORE, "drill": DRILL}[kind][step](stop, opened)
        with KnowledgeBase(opened) as kb:
            work(kb)
        channel.send("done")
    except BaseException as error:
        channel.send("".join(traceback.format_exception_only(error)))
        os._exit(1)
