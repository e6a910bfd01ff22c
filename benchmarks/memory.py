"""Peak memory of every Python process while a generated corpus is indexed.

    python -m benchmarks.memory --bytes 1_000_000_000

Documents have natural lengths (most a few kB, some some MB) and a Zipf-like vocabulary, so that
nearly every text is distinct. The corpus, the embedded server and its data stand in a temporary
folder that is removed afterwards. Peaks are the kernel's own (VmHWM), of this process and of
every Python process below it, read twice a second.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path

import numpy
import psutil

from kb_assets import KnowledgeBase

WORDS = 60_000
WORDS_PER_PARAGRAPH = 80


def generate(folder: Path, total_bytes: int, seed: int = 7) -> int:
    """Write about `total_bytes` of Markdown, and return how many documents they are."""
    random = numpy.random.default_rng(seed)
    letters = numpy.frombuffer(b"abcdefghijklmnopqrstuvwxyz", dtype="S1")
    vocabulary = [
        b"".join(random.choice(letters, size)).decode() for size in random.integers(2, 12, WORDS)
    ]
    written = documents = 0
    while written < total_bytes:
        size = 4_000_000 if documents % 500 == 499 else int(random.lognormal(9.3, 0.8))
        parts = [f"# Document {documents}\n\n"]
        length = 0
        while length < size:
            ranks = random.zipf(1.15, WORDS_PER_PARAGRAPH) % WORDS
            paragraph = " ".join(vocabulary[rank] for rank in ranks) + ".\n\n"
            if random.random() < 0.1:
                paragraph = f"## Part {length}\n\n{paragraph}"
            parts.append(paragraph)
            length += len(paragraph)
        place = folder / f"{documents // 1000:03}"
        place.mkdir(exist_ok=True)
        (place / f"{documents:06}.md").write_text("".join(parts))
        written += length
        documents += 1
    return documents


class Peaks:
    """Watches the Python processes below this one."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self._look()

    def _look(self) -> None:
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            self._look_at(process, "this process" if process == me else "worker")

    def _look_at(self, process: psutil.Process, role: str) -> None:
        try:
            if "python" not in process.name():
                return
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (psutil.Error, OSError):
            return
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
                self.bytes[role] = max(self.bytes.get(role, 0), peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kb-memory-"))
    try:
        corpus = folder / "corpus"
        corpus.mkdir()
        documents = generate(corpus, options.bytes)
        (folder / "kb.toml").write_text('[[sources]]\nname = "generated"\nuri = "corpus"\n')
        with KnowledgeBase.open(folder / "kb.toml") as kb:
            kb.upgrade()
            with Peaks() as peaks:
                report = kb.index()
            account = kb.status().shards[0]
            assert account.account.is_settled
            assert account.account.live == documents
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    stages = report.shards[0]
    print(
        json.dumps(
            {
                "documents": documents,
                "bytes": stages.read.bytes_read,
                "chunks": stages.chunked.chunks,
                "peak_mb": {role: round(size / 1e6) for role, size in peaks.bytes.items()},
                "seconds": {
                    "read": round(stages.read.seconds),
                    "chunk": round(stages.chunked.seconds),
                    "embed": round(sum(one.seconds for one in stages.embedded)),
                    "publish": round(stages.published.seconds),
                    "vector_index": round(sum(one.seconds for one in report.vectors)),
                },
                "cores": os.cpu_count(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
