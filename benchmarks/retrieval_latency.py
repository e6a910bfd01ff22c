"""How long searches take in a large index, and whether they find what an exact search finds.

    python -m benchmarks.retrieval_latency HOME --chunks 100000 [--json FILE]

Makes the index in HOME if it is not there (benchmarks/generated_index.py), and measures

- vector search alone, words alone and both, one client at a time, in turns;
- the same with questions of common words only;
- sixteen clients at once, in threads of this process;
- filters that admit 10%, 1% and 0.1%, by metadata and by row-level security, against an exact
  search for the same: how many hits, and which share of the exact ones.

The time of a search is all of `KnowledgeBase.search` but the question's embedding.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy

from benchmarks.generated_index import SHARES, Words, load, open_generated
from kb_assets import KnowledgeBase
from kb_assets.retrieval.hits import Results
from kb_assets.retrieval.query import Caller

MODES = ("vector", "lexical", "hybrid")
CLIENTS = 16
LIMIT = 10


def questions(count: int, *, common: bool = False) -> list[str]:
    """Return questions as people would type them: common and rare words together."""
    words, rng = Words(), numpy.random.default_rng(5)
    if common:
        known = words.known[60:160]
        return [" ".join(rng.choice(known, size=5)) for _ in range(count)]
    return [" ".join(words.draw(rng, int(rng.integers(5, 10)))) for _ in range(count)]


def milliseconds(results: Results) -> float:
    return 1000 * (results.seconds["total"] - results.seconds["embed"])


def quantiles(times: Sequence[float]) -> dict[str, float]:
    cut = statistics.quantiles(times, n=100)
    return {"p50": round(cut[49], 2), "p95": round(cut[94], 2)}


def alone(kb: KnowledgeBase, asked: Sequence[str]) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for question in asked[:10]:
        for mode in MODES:
            kb.search(question, mode=mode, limit=LIMIT)
    for question in asked:
        for mode in MODES:
            times[mode].append(milliseconds(kb.search(question, mode=mode, limit=LIMIT)))
    return {mode: quantiles(some) for mode, some in times.items()}


def together(kb: KnowledgeBase, asked: Sequence[str], mode: str) -> dict[str, float]:
    def ask(question: str) -> float:
        return milliseconds(kb.search(question, mode=mode, limit=LIMIT))

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, asked[:CLIENTS]))
        started = time.perf_counter()
        times = list(pool.map(ask, asked))
        took = time.perf_counter() - started
    return quantiles(times) | {"questions_per_second": round(len(times) / took, 1)}


Search = Callable[[str], Results]


def narrowed(search: Search, asked: Sequence[str]) -> dict[str, float]:
    """Measure a search, and compare it with one that looks at every chunk admitted."""
    for question in asked[:5]:
        search(question)
    found = [search(question) for question in asked]
    with mock.patch("kb_assets.retrieval.snapshot.exact_is_faster", return_value=True):
        exact = [search(question) for question in asked[:50]]
    shares = [
        len(_keys(one) & _keys(other)) / max(1, len(other))
        for one, other in zip(found, exact, strict=False)
    ]
    return quantiles([milliseconds(one) for one in found]) | {
        "least_hits": min(len(one) for one in found),
        "recall@10": round(statistics.mean(shares), 4),
    }


def _keys(results: Results) -> set[tuple[int, int]]:
    return {(hit.revision_id, hit.ordinal) for hit in results}


def filtered(kb: KnowledgeBase, asked: Sequence[str]) -> dict[str, dict[str, float]]:
    rows = {"unfiltered": narrowed(lambda text: kb.search(text, limit=LIMIT, merge=False), asked)}
    for name in ("tenth", "hundredth", "thousandth"):
        where, caller = {"share": name}, Caller(sources=(name,))
        rows[f"{name}, filter"] = narrowed(
            lambda text, where=where: kb.search(text, limit=LIMIT, merge=False, metadata=where),
            asked,
        )
        rows[f"{name}, row-level security"] = narrowed(
            lambda text, caller=caller: kb.search(text, limit=LIMIT, merge=False, caller=caller),
            asked,
        )
    return rows


def sizes(kb: KnowledgeBase) -> dict[str, int]:
    query = (
        "select c.relname, pg_total_relation_size(c.oid) from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname in ('kb', 'kb_space') and c.relkind = 'r'"
        " and (c.relname like 'lexical%' or c.relname like 'embedding_1' or c.relname = 'chunk')"
        " union all select 'HNSW index', pg_relation_size('kb_space.embedding_1_hnsw')"
    )
    with kb.reader.transaction() as connection:
        return dict(connection.execute(query).fetchall())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("home", type=Path)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    is_new = not (options.home / "kb.toml").exists()
    with open_generated(options.home) as kb:
        if is_new:
            started = time.perf_counter()
            load(kb, options.chunks)
            print(f"loaded in {time.perf_counter() - started:.0f} s")
        asked = questions(options.questions)
        report = {
            "chunks": options.chunks,
            "alone": alone(kb, asked),
            "common words": alone(kb, questions(options.questions, common=True)),
            "sixteen clients": {mode: together(kb, asked * 3, mode) for mode in MODES},
            "filtered": filtered(kb, asked[:150]),
            "bytes": sizes(kb),
        }
    for name, part in report.items():
        print(f"\n## {name}")
        for key, value in part.items() if isinstance(part, dict) else [("", part)]:
            print(f"{key:34} {value}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    assert SHARES
    main()
