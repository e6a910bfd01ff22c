"""What a run costs as the corpus grows: 10 and 100 times the files, and a gigabyte.

    python -m benchmarks.growth [--files 1000 10000] [--large-bytes 0]

Each size has a folder, an embedded server and a process of its own, everything as it comes by
default. What a run says it did is compared with what was changed before its time counts.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.growing_corpus import (
    FOLDERS,
    PARAGRAPH_BYTES,
    edit_files,
    rename_folder,
    write_corpus,
)
from benchmarks.growth_chart import chart
from benchmarks.growth_rows import Measured, Seconds, large_rows, rows_of
from benchmarks.memory import Peaks
from benchmarks.record import record
from kb_assets import KnowledgeBase
from kb_assets.knowledge_base.indexing import IndexReport, ShardReport

FILES = (1_000, 10_000, 100_000)
PARAGRAPHS = 3
LARGE_BYTES = 1_000_000_000
LARGE_PARAGRAPHS = 220
LARGE_SECONDS = 1500
"""What the larger corpus may take; where that is too little, a smaller one is measured."""

WALKS = 7
EDITS = 5
REPEATS = 3
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "growth.svg"


def measure(files: int, paragraphs: int) -> Measured:
    """Measure one size, in processes of its own."""
    home = Path(tempfile.mkdtemp(prefix="kb-growth-"))
    (home / "corpus").mkdir()
    (home / "kb.toml").write_text('[[sources]]\nname = "docs"\nuri = "corpus"\n')
    new_process = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, new_process, max_tasks_per_child=1) as processes:
            processes.submit(write_corpus, home / "tree", files, paragraphs).result()
            found = processes.submit(_operations, home, files).result()
            peak = processes.submit(_nothing_peak, home, files).result()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return Measured(files=files, nothing_peak=peak, **found)


def _operations(home: Path, files: int) -> dict[str, Any]:
    corpus = home / "corpus"
    with KnowledgeBase.open(home / "kb.toml") as kb:
        kb.upgrade()
        kb.index()
        corpus.rmdir()
        (home / "tree").rename(corpus)
        with Peaks() as peaks:
            first, report = _run(kb)
        _agree(report.read.added, files)
        walks, nothing = [], []
        for _ in range(WALKS):
            walks.append(_walk(corpus, files))
            seconds, report = _run(kb)
            _agree((report.read.unchanged, report.read.bytes_read), (files, 0))
            nothing.append(seconds)
        found = {
            "bytes": sum(path.stat().st_size for path in corpus.rglob("*.md")),
            "vectors": kb.status().spaces[0].vectors,
            "first": first,
            "walk": statistics.median(walks),
            "nothing": _median(nothing),
            "ten": _median([_edit(kb, files, 10, edit) for edit in range(EDITS)]),
            "hundredth": _median(
                [_edit(kb, files, files // 100, EDITS + edit) for edit in range(REPEATS)]
            ),
        }
        renames = [_rename(kb, files) for _ in range(REPEATS)]
        account = kb.status().shards[0].account
        assert account.is_settled
        _agree(account.live, files)
    return found | {
        "folder": _median([seconds for seconds, _ in renames]),
        "renamed_texts": sum(texts for _, texts in renames),
        "peaks": peaks.bytes,
    }


def _edit(kb: KnowledgeBase, files: int, count: int, edit: int) -> Seconds:
    edit_files(kb.settings.root / "corpus", files, count, edit)
    seconds, report = _run(kb)
    _agree((report.read.changed, report.published.replaced), (count, count))
    assert sum(one.embedded for one in report.embedded) >= count
    return seconds


def _rename(kb: KnowledgeBase, files: int) -> tuple[Seconds, int]:
    folder = rename_folder(kb.settings.root / "corpus")
    seconds, report = _run(kb)
    _agree(report.read.moved, files // FOLDERS)
    assert kb.why(f"{folder}/000000.md"), "not found in the folder's new place"
    return seconds, sum(one.embedded for one in report.embedded)


def _run(kb: KnowledgeBase) -> tuple[Seconds, ShardReport]:
    started = time.perf_counter()
    report: IndexReport = kb.index()
    whole = time.perf_counter() - started
    (shard,) = report.shards
    embedding = sum(one.seconds for one in shard.embedded)
    graph = sum(one.seconds for one in report.vectors)
    stages = shard.read.seconds, shard.chunked.seconds, embedding, shard.published.seconds, graph
    return Seconds(whole, *stages), shard


def _agree(found: object, wanted: object) -> None:
    assert found == wanted, f"{found} instead of {wanted}"


def _walk(root: Path, files: int) -> float:
    started = time.perf_counter()
    folders, seen = [os.fspath(root)], 0
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    seen += 1
    _agree(seen, files)
    return time.perf_counter() - started


def _median(times: list[Seconds]) -> Seconds:
    return sorted(times, key=lambda one: one.whole)[len(times) // 2]


def _nothing_peak(home: Path, files: int) -> int:
    with KnowledgeBase.open(home / "kb.toml") as kb, Peaks() as peaks:
        _, report = _run(kb)
        _agree(report.read.unchanged, files)
    return peaks.bytes["this process"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="*", default=FILES)
    parser.add_argument("--large-bytes", type=int, default=LARGE_BYTES)
    options = parser.parse_args()
    if options.files:
        sizes = [measure(files, PARAGRAPHS) for files in options.files]
        found = [asdict(one) for one in sizes]
        record("growth", "The cost as the corpus grows", rows_of(sizes), sizes=found)
        PICTURE.write_text(chart(sizes))
    if options.large_bytes:
        measure_large(options.large_bytes)


def measure_large(size: int) -> None:
    """Measure a tenth of a large corpus, then as much of it as fits into the time there is."""
    file_bytes = LARGE_PARAGRAPHS * PARAGRAPH_BYTES
    started = time.perf_counter()
    small = measure(size // 10 // file_bytes // 10 * 10, LARGE_PARAGRAPHS)
    share = min(1.0, LARGE_SECONDS / (12 * (time.perf_counter() - started)))
    large = measure(int(size * share) // file_bytes // 10 * 10, LARGE_PARAGRAPHS)
    found = [asdict(small), asdict(large)]
    record("growth-large", "A corpus of larger files", large_rows(small, large), sizes=found)


if __name__ == "__main__":
    main()
