"""What it takes to back up a large knowledge base, and to prove by a drill that it can be restored.

    python -m benchmarks.backup [run] [drill] [--chunks N] [--rounds N] [--drills N] [--home FOLDER]

- run: `KnowledgeBase.back_up`, with checksums, questions and the upload to a local folder, in a new
  process, against `pg_dump -Fc` and `pg_dump -Fd -j2` of the same version, onto the same disk;
- drill: `KnowledgeBase.drill` of such a backup, against bare tables that binary COPY fills on a
  server like the drill's, and the HNSW index built there with the same memory and workers.

The database is generated (benchmarks/generated_index.py): documents with their texts, chunks, words
and vectors, and all indexes, on the embedded server as it comes by default. It stays in FOLDER, if
one is given, and is used again. A backup's time counts once every byte was read back and was right,
a drill's once nothing was found wrong.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.backup_rounds import (
    Dumped,
    apart,
    back_up,
    drill,
    dump,
    generated,
    remove_backups,
)
from benchmarks.generated_index import DIMENSIONS
from benchmarks.one_backup import BackedUp, Drilled
from benchmarks.raw_restore import RawRestore, raw_restore, read_source
from benchmarks.record import Row, record
from kb_assets import KnowledgeBase

CHUNKS = 1_000_000
ROUNDS, DRILLS = 3, 1

Measured = tuple[list[Row], dict[str, object]]


def run_part(kb: KnowledgeBase, options: argparse.Namespace) -> Measured:
    own, custom, directory = list[BackedUp](), list[Dumped](), list[Dumped]()
    _in_turns(
        options.rounds,
        [
            lambda: own.append(back_up(kb)),
            lambda: custom.append(dump(kb, "--format=custom")),
            lambda: directory.append(dump(kb, "--format=directory", "--jobs=2")),
        ],
    )
    rows = [
        _against_dump("-Fc", own, custom, 5, options.chunks),
        _against_dump("-Fd -j2", own, directory, 2, options.chunks),
        _memory(own),
    ]
    everything = {"own": own, "-Fc": custom, "-Fd -j2": directory}
    return rows, {name: [asdict(one) for one in of] for name, of in everything.items()}


def drill_part(kb: KnowledgeBase, options: argparse.Namespace) -> Measured:
    own, raw = list[Drilled](), list[RawRestore]()
    manifest = kb.back_up().manifest
    with apart(kb) as folder:
        source = read_source(kb.urls.backup, manifest, folder / "rows")

        def restore_raw() -> None:
            with apart(kb) as scratch:
                raw.append(raw_restore(source, manifest, scratch))

        _in_turns(options.drills, [lambda: own.append(drill(kb)), restore_raw])
    remove_backups(kb)
    more: dict[str, object] = {
        "own": [asdict(one) for one in own],
        "raw": [asdict(one) for one in raw],
    }
    return [_against_raw(own, raw, manifest.rows)], more


def _in_turns(rounds: int, ways: list[Callable[[], None]]) -> None:
    """Let each go its way in each round; the order moves on by one."""
    for number in range(rounds):
        first = number % len(ways)
        for way in ways[first:] + ways[:first]:
            os.sync()
            way()


def _against_dump(
    how: str, own: list[BackedUp], dumps: list[Dumped], least: float, chunks: int
) -> Row:
    ours = statistics.median(one.whole for one in own)
    theirs = statistics.median(one.whole for one in dumps)
    middle = min(own, key=lambda one: abs(one.whole - ours))
    return Row(
        f"backup against `pg_dump {how}`",
        f"{theirs / ours:.1f} x as fast",
        f"≥ {least} x",
        theirs >= least * ours,
        f"{chunks:,} chunks with halfvec({DIMENSIONS}), {middle.database_bytes / 1e9:.2f} GB on"
        f" PostgreSQL {middle.server}: {ours:.1f} s and {middle.stored_bytes / 1e6:,.0f} MB,"
        f" uploaded ({_told(middle.steps)}; from dump to questions all at once); pg_dump"
        f" {theirs:.1f} s and {dumps[0].stored_bytes / 1e6:,.0f} MB; median of {len(own)},"
        f" interleaved",
    )


def _memory(own: list[BackedUp]) -> Row:
    most = max((one.peaks for one in own), key=lambda peaks: peaks["all"])
    return Row(
        "memory of a backup",
        f"{most['all'] / 1e6:.0f} MB",
        "< 300 MB",
        most["all"] < 300e6,
        f"the client's processes together, at one moment: Python at most"
        f" {most['Python'] / 1e6:.0f} MB, pg_dump and its workers {most['pg_dump'] / 1e6:.0f} MB;"
        f" what they share is counted for each; the most of {len(own)}",
    )


def _against_raw(own: list[Drilled], raw: list[RawRestore], rows: int) -> Row:
    ours = statistics.median(one.whole for one in own)
    floor = statistics.median(one.floor for one in raw)
    more = statistics.median(one.with_all_indexes for one in raw)
    middle = min(own, key=lambda one: abs(one.whole - ours))
    least = min(raw, key=lambda one: abs(one.floor - floor))
    rest = middle.whole - sum(taken for step, taken in middle.steps.items() if step != "total")
    return Row(
        "drill against a raw load and the HNSW index",
        f"{ours / floor:.2f} x",
        "≤ 1.15 x",
        ours <= 1.15 * floor,
        f"{rows:,} rows: {ours:.1f} s ({_told(middle.steps)}, the server and the rest {rest:.1f}),"
        f" {middle.peaks['Python'] / 1e6:.0f} MB of Python; COPY into bare tables"
        f" {least.load:.1f} s, HNSW"
        f" {least.vector_indexes:.1f} s with {least.memory_bytes / 2**20:,.0f} MiB and"
        f" {least.workers} parallel workers; {ours / more:.2f} x if the floor has the other"
        f" indexes, too ({least.other_indexes:.1f} s); median of {len(own)}",
    )


def _told(steps: Mapping[str, float]) -> str:
    return ", ".join(f"{step} {taken:.1f}" for step, taken in steps.items() if step != "total")


PARTS: dict[str, tuple[str, Callable[[KnowledgeBase, argparse.Namespace], Measured]]] = {
    "run": ("Backing up", run_part),
    "drill": ("A drill", drill_part),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--drills", type=int, default=DRILLS)
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    with generated(options.chunks, options.home) as kb:
        for part in options.parts or PARTS:
            title, measure = PARTS[part]
            rows, more = measure(kb, options)
            record(f"backup-{part}", title, rows, **more)


if __name__ == "__main__":
    main()
