"""What a benchmark found out, as a file that `benchmarks.report` puts into RESULTS.md."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import this_machine

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One claim: what was measured, beside what is wanted."""

    name: str
    measured: str
    target: str
    met: bool
    detail: str = ""


def record(benchmark: str, title: str, rows: Sequence[Row], **more: object) -> None:
    """Write rows down with where and when they were measured, and print them.

    Args:
        benchmark: The name of the file; it starts with that of the benchmark's module.
        title: What it is about, as a heading.
        rows: The claims.
        more: What else is kept, as JSON can have it.
    """
    RESULTS.mkdir(exist_ok=True)
    machine = asdict(this_machine())
    found = {"title": title, "machine": machine, "rows": [asdict(row) for row in rows], **more}
    (RESULTS / f"{benchmark}.json").write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(f"{'met   ' if row.met else 'MISSED'}  {row.name}: {row.measured} ({row.target})")
        print(f"        {row.detail}")
