"""The tables of docs/scale.md, printed from the capacity model.

    python -m benchmarks.capacity_tables

A test holds the page to them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from benchmarks.capacity import (
    Corpus,
    backup_seconds,
    bytes_of,
    graph_bytes,
    graph_fits,
    load_cost,
    search_milliseconds,
    seconds_of,
    usd_of,
)
from benchmarks.fleet import Fleet, bounds, simulated_seconds
from kb_assets.embeddings.providers.known import OPENAI_MODELS

SIZES = tuple(10**power for power in range(4, 10))
MODEL = "text-embedding-3-small"
TOKENS_PER_MINUTE = 1_000_000
"""An assumption: what a provider allows differs from account to account."""

MEMORY_BYTES = 64 * 2**30
DISK_BYTES = 2e12
"""A server that many people have. What was measured had 23.5 GiB."""

DATABASE_CORES = 8
DATABASE_BUSY_CORES = 0.3
"""Of the database's machine, where each worker has one of its own: processor time of the server
beside time of the first load (results/peers-fastapi-docs-a.json: 1.04 beside 3.56 s)."""

_DAY, _HOUR = 86_400, 3600
_ORDINAL_BYTES = 4
_LISTING_SECONDS = 8.7e-6
"""Of each document where nothing changed: 0.866 s for 100,000 (results/growth.json)."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that gives way as the corpus grows.

    Attributes:
        part: What.
        is_beyond: Whether it has given way at a size.
        when: What that means.
        instead: What replaces it.
    """

    part: str
    is_beyond: Callable[[Corpus], bool]
    when: str
    instead: str


def _own_seconds(corpus: Corpus) -> float:
    return sum(seconds_of(corpus).values()) - seconds_of(corpus)["HNSW index"]


def _provider_seconds(corpus: Corpus) -> float:
    return 60 * corpus.chunks * corpus.tokens / TOKENS_PER_MINUTE


LIMITS = (
    Limit(
        "HNSW build in memory",
        lambda corpus: not graph_fits(corpus),
        "more than the 2 GiB that a build is given: it goes on, 2.6 times slower",
        "shorter vectors (`embedding.dimensions`); a larger bound in `kb_assets/index`, on a"
        " server with the memory",
    ),
    Limit(
        "provider",
        lambda corpus: _provider_seconds(corpus) > _DAY,
        "the first load takes more than a day at a million tokens a minute",
        "a higher limit; a model of one's own behind `base_url`; time: it is paid for once",
    ),
    Limit(
        "words, time",
        lambda corpus: search_milliseconds(corpus)["lexical"] > 100,
        "a search by words takes more than 100 ms: it reads all postings of its terms",
        "searches of some sources only (`sources=`), each of which has postings of its own; then"
        " an engine that skips what cannot win (OpenSearch, Tantivy, ParadeDB)",
    ),
    Limit(
        "HNSW index in memory",
        lambda corpus: corpus.chunks * graph_bytes(corpus.dimensions) > 0.75 * MEMORY_BYTES,
        "more than three quarters of 64 GiB: searches wait for the disk",
        "more memory; shorter vectors; bits in the graph and halfvec for the last ranking;"
        " several knowledge bases",
    ),
    Limit(
        "merging postings",
        lambda corpus: seconds_of(corpus)["merging postings"] > _HOUR,
        "a full merge holds the publish lock for more than an hour; readers notice nothing",
        "several sources: each is merged alone; merging block by block",
    ),
    Limit(
        "drill",
        lambda corpus: backup_seconds(corpus)["drill"] > 8 * _HOUR,
        "longer than a night, nearly all of it to build the HNSW index",
        "pgBackRest (deploy/), whose restore has the indexes; a drill a week",
    ),
    Limit(
        "one worker",
        lambda corpus: _own_seconds(corpus) > _DAY,
        "a day for the first load, without the provider",
        "`shards` and more workers (below)",
    ),
    Limit(
        "one disk",
        lambda corpus: sum(bytes_of(corpus).values()) > DISK_BYTES,
        "more than 2 TB",
        "several knowledge bases; shorter vectors",
    ),
    Limit(
        "words, memory",
        lambda corpus: corpus.chunks * _ORDINAL_BYTES > 2**30,
        "a question takes 1 GiB: a score for each chunk that it may find",
        "as for their time",
    ),
    Limit(
        "backup",
        lambda corpus: backup_seconds(corpus)["backup"] > 8 * _HOUR,
        "longer than a night",
        "pgBackRest: what changed, and WAL",
    ),
    Limit(
        "listing a source",
        lambda corpus: corpus.documents * _LISTING_SECONDS > 600,
        "ten minutes for a run in which nothing changed; every shard lists all of its source",
        "several sources, with `cron` and `include` of their own",
    ),
    Limit(
        "ordinals",
        lambda corpus: corpus.chunks >= 2**31,
        "a source has 2³¹ of them",
        "several sources",
    ),
)


def reached(limit: Limit, most: int = 10**12) -> int:
    """Return the least number of chunks at which something has given way."""
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if limit.is_beyond(Corpus(middle)) else (middle, high)
    return high


def tables() -> dict[str, str]:
    """Return every table of the page, as Markdown, by name."""
    return {
        "bytes": "\n".join(_bytes()),
        "time": "\n".join(_time()),
        "limits": "\n".join(_limits()),
        "workers": "\n".join(_workers()),
    }


def _bytes() -> Iterator[str]:
    corpora = [Corpus(size) for size in SIZES]
    yield _cells(["", *(f"10{_raised(size)} chunks" for size in SIZES)])
    yield _cells(["---", *["--:"] * len(SIZES)])
    yield _cells(["number of documents", *(f"{one.documents:,}" for one in corpora)])
    for part in bytes_of(corpora[0]):
        yield _cells([part, *(_size(bytes_of(one)[part]) for one in corpora)])
    yield _cells(["**all**", *(_size(sum(bytes_of(one).values())) for one in corpora)])
    short = [sum(bytes_of(replace(one, dimensions=384)).values()) for one in corpora]
    yield _cells(["all, with 384 dimensions", *map(_size, short)])


def _time() -> Iterator[str]:
    corpora = [Corpus(size) for size in SIZES]
    yield _cells(["", *(f"10{_raised(size)} chunks" for size in SIZES)])
    yield _cells(["---", *["--:"] * len(SIZES)])
    price = OPENAI_MODELS[MODEL].usd_per_million_tokens
    assert price is not None
    rows: dict[str, Callable[[Corpus], str]] = {
        "reading to publishing, one worker": lambda one: _duration(_own_seconds(one)),
        "HNSW index": lambda one: _duration(seconds_of(one)["HNSW index"]),
        "provider, at its limit": lambda one: _duration(_provider_seconds(one)),
        f"{MODEL}, once": lambda one: f"{usd_of(one, price):,.2f} USD",
        "backup": lambda one: _duration(backup_seconds(one)["backup"]),
        "drill": lambda one: _duration(backup_seconds(one)["drill"]),
        "search by vectors": lambda one: f"{search_milliseconds(one)['vector']:,.0f} ms",
        "search by words": lambda one: f"{search_milliseconds(one)['lexical']:,.0f} ms",
    }
    for name, told in rows.items():
        yield _cells([name, *map(told, corpora)])


def _limits() -> Iterator[str]:
    yield _cells(["from chunks", "what gives way", "how", "what replaces it"])
    yield _cells(["--:", "---", "---", "---"])
    for limit in sorted(LIMITS, key=reached):
        yield _cells([_rounded(reached(limit)), limit.part, limit.when, limit.instead])


def _workers() -> Iterator[str]:
    corpus = Corpus(10_000_000)
    cost = replace(load_cost(corpus), busy_cores=DATABASE_BUSY_CORES)
    yield _cells(["workers", "provider", "by arithmetic", "what decides", "by events"])
    yield _cells(["--:", "---", "--:", "---", "--:"])
    for limit in (0, 100 * TOKENS_PER_MINUTE):
        for workers in (1, 4, 16, 64):
            fleet = Fleet(workers, 256, DATABASE_CORES, tokens_per_minute=limit)
            found = bounds(corpus.chunks, cost, fleet)
            decides = max(found, key=lambda name: found[name])
            yield _cells(
                [
                    f"{workers}",
                    f"{limit / 1e6:,.0f} M tokens a minute" if limit else "no limit",
                    _duration(found[decides]),
                    decides,
                    _duration(simulated_seconds(corpus.chunks, cost, fleet)),
                ]
            )


def _raised(size: int) -> str:
    return "⁰¹²³⁴⁵⁶⁷⁸⁹"[len(str(size)) - 1]


def _rounded(count: int) -> str:
    for unit, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if count >= unit:
            return (
                f"{count / unit:.2g} {name}" if count < 100 * unit else f"{count / unit:.0f} {name}"
            )
    return str(count)


def _size(count: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.{0 if count >= 100 * unit else 1}f} {name}"
    return f"{count / 1e3:.0f} kB"


def _duration(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.{0 if seconds >= 20 * unit else 1}f} {name}"
    return f"{seconds:.0f} s"


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    for name, table in tables().items():
        print(f"{name}\n\n{table}\n")


if __name__ == "__main__":
    main()
