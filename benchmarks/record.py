"""What a benchmark found out, as a file that `benchmarks.report` puts into RESULTS.md."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One claim: what was measured, beside what is wanted."""

    name: str
    measured: str
    target: str
    met: bool
    detail: str = ""


def record(benchmark: str, title: str, rows: Sequence[Row]) -> None:
    """Write rows down, and print them."""
    RESULTS.mkdir(exist_ok=True)
    found = {"title": title, "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{benchmark}.json").write_text(json.dumps(found, indent=2) + "\n")
    for row in rows:
        print(f"{'met   ' if row.met else 'MISSED'}  {row.name}: {row.measured} ({row.target})")
        print(f"        {row.detail}")
