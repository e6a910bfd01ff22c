"""Put what the benchmarks recorded into RESULTS.md, and the peers into a picture.

    python -m benchmarks.report [NAME ...]

The names are those of benchmarks that failed. Fails if there are any, or if a benchmark has
recorded nothing.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.chart import chart
from benchmarks.record import RESULTS

BENCHMARKS = {
    "peers": "this project beside its peers and the floor",
    "components": "parts of the pipeline against what they cannot beat",
    "growth": "the cost as the corpus grows",
    "dagster_overhead": "what Dagster adds",
    "local_model": "the local model",
    "archive": "messages into the table and into the archive, and back",
    "backup": "a backup beside pg_dump, and a drill beside a raw load",
    "kb_dev": "Dagster's UI: until it can be used, and what it takes",
    "dagster_history": "Dagster's pages with ten thousand runs in the history",
    "celery_workers": "sixteen shards over Celery's workers",
    "scale": "the capacity model beside what was measured",
}
REPORT = Path(__file__).parent / "RESULTS.md"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "benchmark.svg"

PREFACE = """# Measured

Made by `make bench`. Each time is that of a library call in a process that is warm: imported,
connected, used once on an empty folder. What was stored is compared with the folder before a time
counts. Ratios are of medians; differences under a fifth mean little.
"""

METHOD = """## How the peers are measured

Everybody has the same folder, the same embedder (384 numbers from a checksum), a database of its
own in the same embedded PostgreSQL, chunks of at most 1,000 characters without overlap, and no
vector index. In each round everybody follows one operation before the next; the order moves on by
one each round.

- **floor**: walk, stat, read, SHA-256, embed what is new, binary COPY of the rows; it knows what it
  has from memory, and guards against nothing.
- **kb_assets**: the stages of `KnowledgeBase.index()` that make a folder searchable, by words too,
  with `fixed` splitting. **With defaults**: `KnowledgeBase.index()` as it comes, with Markdown
  splitting, exact tokens and the HNSW index.
- **LangChain**: `index()` with `cleanup="full"`, since others leave deleted files behind, into
  `PGVector`, with `SQLRecordManager` in the same database.
- **LlamaIndex**: `IngestionPipeline` with `UPSERTS_AND_DELETE` into `PGVectorStore`, its docstore
  in the same database. **With a docstore file** it has that in memory instead, and writes it out
  whole after each run: it is shown beside and not counted as a peer, for a run that is killed
  leaves docstore and index apart.
- **CocoIndex**: `walk_dir`, one memoised function for each file, rows into a Postgres target.
"""


def main() -> None:
    failed = set(sys.argv[1:])
    recorded = list(_recorded())
    lost = {
        name: "failed" if name in failed else "recorded nothing"
        for name in BENCHMARKS
        if name in failed or name not in dict(recorded)
    }
    REPORT.write_text("\n".join(_report([found for _, found in recorded], lost)))
    if "peers" in dict(recorded):
        PICTURE.write_text(chart(dict(recorded)["peers"]))
    print(f"Written: {REPORT}")
    if lost:
        sys.exit("\n".join(f"{name} {why}" for name, why in lost.items()))


def _recorded() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each benchmark with what it recorded, the latest last."""
    for benchmark in BENCHMARKS:
        files = [*RESULTS.glob(f"{benchmark}.json"), *RESULTS.glob(f"{benchmark}-*.json")]
        for file in sorted(files, key=lambda one: one.stat().st_mtime):
            yield benchmark, json.loads(file.read_text())


def _report(recorded: list[dict[str, Any]], lost: dict[str, str]) -> Iterator[str]:
    rows = [row for found in recorded for row in found["rows"]]
    yield PREFACE
    for name, why in lost.items():
        yield f"**`benchmarks.{name}` {why}**: {BENCHMARKS[name]}.\n"
    yield f"{sum(row['met'] for row in rows)} of {len(rows)} targets are met.\n"
    if any("operations" in found for found in recorded):
        yield "![Seconds of each operation](../docs/images/benchmark.svg)\n"
    for found in recorded:
        yield f"## {found['title']}\n"
        yield f"{_machine(found['machine'])}\n"
        if "operations" in found:
            yield _corpus(found["session"])
        yield from _table(
            ("", "what", "measured", "target", "in detail"),
            (
                (_verdict(row), row["name"], row["measured"], row["target"], row["detail"])
                for row in found["rows"]
            ),
        )
        if "operations" in found:
            yield from _peers(found)
    yield METHOD


def _verdict(row: dict[str, Any]) -> str:
    return "met" if row["met"] else "**MISSED**"


def _machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['date']}; {machine['processor']}, {machine['cores']} cores,"
        f" {machine['memory_gib']} GiB; {machine['system']}; Python {machine['python']}"
    )


def _corpus(session: dict[str, Any]) -> str:
    versions = dict.fromkeys([*session["versions"].values(), session["server"]])
    missing = [f"**Missing:** {name}: {why}\n" for name, why in session["missing"].items()]
    lines = [
        f"Corpus `{session['name']}`: {session['files']:,} Markdown files,"
        f" {session['bytes'] / 1e6:.1f} MB; rounds: {session['rounds']}. {'; '.join(versions)}.\n",
        *missing,
    ]
    return "\n".join(lines)


def _peers(found: dict[str, Any]) -> Iterator[str]:
    operations = found["operations"]
    names = list(found["session"]["versions"])
    for title, cell in (
        ("Seconds: median, and least to most", _seconds),
        ("CPU seconds: of the process and its children + of the server", _cpu),
        ("Texts sent to the embedder, and distinct ones among them never sent before", _texts),
    ):
        yield f"**{title}**\n"
        yield from _table(
            ("", *names),
            (
                (operation, *(cell(of[name]) if name in of else "" for name in names))
                for operation, of in operations.items()
            ),
        )


def _seconds(summary: dict[str, Any]) -> str:
    if summary["flaw"]:
        return f"failed: {summary['flaw']}"
    seconds: list[float] = summary["seconds"]
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"


def _cpu(summary: dict[str, Any]) -> str:
    return f"{summary['cpu_seconds']:.2f} + {summary['server_cpu_seconds']:.2f}"


def _texts(summary: dict[str, Any]) -> str:
    return f"{summary['texts_embedded']:,} / {summary['texts_new']:,}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = list(head)
    yield _cells(head)
    yield _cells(["---"] * len(head))
    yield from (_cells(row) for row in rows)
    yield ""


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
