"""One backup or one drill, in a process that has nothing else to do, and what it took, as JSON.

python -m benchmarks.one_backup back_up|drill HOME
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.memory import Peaks
from kb_assets import KnowledgeBase


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A backup that was made.

    Attributes:
        whole: How many seconds it took.
        steps: How many seconds each step took; most go on at once.
        peaks: The most memory of kinds of processes, in bytes, and of all together.
        stored_bytes: Its size.
        database_bytes: The size of the database, indexes and all.
        server: The server's version.
    """

    whole: float
    steps: Mapping[str, float]
    peaks: Mapping[str, int]
    stored_bytes: int
    database_bytes: int
    server: str


@dataclass(frozen=True, slots=True)
class Drilled:
    """A drill that found nothing wrong: its seconds as a whole and by step, and its memory."""

    whole: float
    steps: Mapping[str, float]
    peaks: Mapping[str, int]


class Together(Peaks):
    """Watches Python processes and `pg_dump` from this one down, and adds up those there are.

    What processes share is counted for each of them.
    """

    def _look(self) -> None:
        now = {"Python": 0, "pg_dump": 0}
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                name = process.name()
                status = Path(f"/proc/{process.pid}/status").read_text()
            except (psutil.Error, OSError):
                continue
            kind = "Python" if "python" in name else name
            peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
            if kind in now and peaks:
                now[kind] += int(peaks[0]) * 1024
        now["all"] = sum(now.values())
        for kind, peak in now.items():
            self.bytes[kind] = max(self.bytes.get(kind, 0), peak)


def back_up(home: Path) -> BackedUp:
    with KnowledgeBase.open(home / "kb.toml") as kb, Together() as peaks:
        started = time.perf_counter()
        report = kb.back_up()
        whole = time.perf_counter() - started
    manifest = report.manifest
    stored, size = manifest.stored_bytes, manifest.database_bytes
    return BackedUp(whole, report.seconds, peaks.bytes, stored, size, manifest.server)


def drill(home: Path) -> Drilled:
    with KnowledgeBase.open(home / "kb.toml") as kb, Together() as peaks:
        started = time.perf_counter()
        facts = kb.drill()
        whole = time.perf_counter() - started
    assert facts.passed, facts.failures
    steps = {step: milliseconds / 1000 for step, milliseconds in facts.seconds.items()}
    return Drilled(whole, steps, peaks.bytes)


WORK: dict[str, Callable[[Path], BackedUp | Drilled]] = {"back_up": back_up, "drill": drill}


if __name__ == "__main__":
    _, work, home = sys.argv
    print(json.dumps(asdict(WORK[work](Path(home)))))
