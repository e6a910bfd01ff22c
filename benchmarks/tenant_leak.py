"""Whether callers ever see what is not theirs, and whether they find all that is.

    python -m benchmarks.tenant_leak [--queries 100000] [--seed 1]

Indexes documents of twenty tenants that share texts, vectors and terms (benchmarks/tenants.py),
and searches as callers who are limited to sources, to tags, or to both: any mode, any filter,
hostile strings everywhere. Every hit must be one that the caller may see and asked for, and says
what its document says; and `limit` hits must come back wherever the caller may find as many. What
they may is worked out in Python.

Now and then it also tries as role `kb_caller` on the wire: with nothing set, with a caller set and
foreign ids asked for, with the tricks a connection allows, and on pooled connections that searches
were just made with. It exits with 1 if there was one foreign row or one short answer.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy

from benchmarks.tenant_intruder import Intruder
from benchmarks.tenants import (
    AREAS,
    HOSTILE,
    SOURCES,
    TAGS,
    TEAMS,
    WORDS,
    Model,
    Truths,
    index_documents,
    made_documents,
    secret_of,
)
from kb_assets import KnowledgeBase
from kb_assets.database.embedded import leave_embedded
from kb_assets.errors import SettingsError
from kb_assets.retrieval.hits import Hit
from kb_assets.retrieval.query import Caller

THREADS = 3
QUERIES_PER_ATTEMPT = 200
PROGRESS_QUERIES = 2000


class Client:
    """One thread's random callers, and what became of their queries."""

    def __init__(self, kb: KnowledgeBase, model: Model, seed: str) -> None:
        self.kb, self.model, self.rng = kb, model, random.Random(seed)
        self.counts = Counter[str]()
        self.intruder = Intruder(kb, model, self.counts)

    def work(self, queries: int) -> Counter[str]:
        for number in range(queries):
            caller = self.caller()
            self.ask(caller)
            if number % QUERIES_PER_ATTEMPT == 0:
                self.intruder.intrude(caller)
            if number % PROGRESS_QUERIES == PROGRESS_QUERIES - 1:
                print(json.dumps(self.counts), flush=True)
        self.intruder.wire.close()
        return self.counts

    def caller(self) -> Caller:
        sources, tags = self.rng.choice(((True, False), (False, True), (True, True)))
        return Caller(
            tuple(self.rng.sample(SOURCES, self.rng.randint(1, 4))) if sources else (),
            tuple(self.rng.sample(TAGS, self.rng.randint(1, 3))) if tags else (),
        )

    def ask(self, caller: Caller) -> None:
        text, words = self.question()
        filters, matching = self.filters()
        mode = self.rng.choice(("hybrid", "vector", "lexical"))
        limit = self.rng.choice((1, 5, 5, 20))
        counted = self.rng.random() < 0.9
        shape = {} if counted else {"per_document": self.rng.choice((0, 1))}
        asked = {"mode": mode, "limit": limit, "merge": not counted, **shape, **filters}
        self.counts["queries"] += 1
        try:
            hits = self.kb.search(text, caller=caller, **asked).hits
        except SettingsError:
            if matching is not None:
                raise
            self.counts["refused"] += 1
            return
        may_see = self.model.may_see(caller)
        self.counts["hits"] += len(hits)
        for hit in hits:
            if not self.is_own(hit, may_see, matching):
                self.intruder.count_foreign(
                    f"{hit.source}:{hit.path} for {caller} of {text!r} with {asked}", 1
                )
        if counted and matching is not None:
            findable = self.model.chunks_of(may_see & matching)
            if mode == "lexical":
                findable &= self.model.chunks_with(words)
            wanted = min(limit, int(findable.sum()))
            self.counts["full_answers"] += wanted == limit
            if len(hits) < wanted:
                self.counts["short"] += 1
                print(
                    f"SHORT: {len(hits)} of {wanted} for {caller} of {text!r} with {asked}",
                    file=sys.stderr,
                    flush=True,
                )

    def is_own(self, hit: Hit, may_see: Truths, matching: Truths | None) -> bool:
        """Say whether a hit may be seen, was asked for, and says nothing but what is its own."""
        at = self.model.number.get((hit.source, hit.path))
        if at is None or not may_see[at] or (matching is not None and not matching[at]):
            return False
        one = self.model.documents[at]
        same = set(hit.tags) == set(one.tags) and one.metadata.items() <= hit.metadata.items()
        return same and hit.text.strip() in one.body

    def question(self) -> tuple[str, list[str]]:
        """Draw a question, and those of its words that lead to chunks by themselves."""
        words = self.rng.choices(WORDS, k=self.rng.randint(1, 6))
        match self.rng.randrange(6):
            case 0:
                words.append(secret_of(self.rng.choice(SOURCES)))
            case 1:
                return f"{self.rng.choice(HOSTILE)} {' '.join(words)}", words
            case 2:
                chunk = self.rng.choice(self.model.chunks)
                return chunk, [word for word in Model.split(chunk) if word in WORDS]
        return " ".join(words), words

    def filters(self) -> tuple[dict[str, Any], Truths | None]:
        """Draw filters and which documents they admit; None if they may be refused."""
        chosen: dict[str, Any] = {}
        matching, rng = self.model.all_of(True), self.rng
        hostile = rng.choice(HOSTILE)
        if rng.random() < 0.2:
            chosen["sources"] = tuple(rng.sample(SOURCES, rng.randint(1, 5)))
            matching &= self.model.may_see(Caller(chosen["sources"]))
        if rng.random() < 0.2:
            chosen["path_prefix"] = f"area-{rng.randrange(AREAS)}/"
            matching &= self.model.starting(chosen["path_prefix"])
        if rng.random() < 0.2:
            chosen["tags"] = (rng.choice(TAGS),)
            matching &= self.model.by_tag[chosen["tags"][0]]
        if rng.random() < 0.1:
            chosen["metadata"] = {"team": rng.choice(TEAMS)}
            matching &= self.model.in_team(chosen["metadata"]["team"])
        if rng.random() < 0.3:
            chosen["where"], admitted = self.model.condition(rng)
            matching &= admitted
        if rng.random() < 0.05:
            value = rng.choice(
                (
                    {"path_prefix": hostile},
                    {"tags": (hostile,)},
                    {"metadata": {hostile: hostile}},
                    {"where": hostile},
                    {"where": f'metadata.team = "{hostile}"'},
                    {"sources": (hostile,)},
                )
            )
            return chosen | value, None
        return chosen, matching


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kb-tenant-leak-") as folder:
        try:
            counts = run(Path(folder), options.queries, options.seed)
        finally:
            leave_embedded(Path(folder) / ".kb")
    sys.exit(1 if counts["foreign"] or counts["short"] else 0)


def run(home: Path, queries: int, seed: int) -> Counter[str]:
    documents = made_documents(seed)
    with index_documents(home, documents) as kb:
        model = Model(kb, documents)
        shared = len(model.hashes) - len(numpy.unique(model.hashes))
        print(
            json.dumps(
                {
                    "documents": len(documents),
                    "chunks": len(model.chunks),
                    "chunks_with_shared_vectors": shared,
                }
            ),
            flush=True,
        )
        clients = [Client(kb, model, f"{seed}/{number}") for number in range(THREADS)]
        share = [queries // THREADS + (n < queries % THREADS) for n in range(THREADS)]
        started = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            counts = sum(pool.map(Client.work, clients, share), Counter[str]())
        seconds = time.monotonic() - started
    told = {"foreign": 0, "short": 0, **counts}
    print(json.dumps(told | {"queries_per_second": round(counts["queries"] / seconds, 1)}))
    return counts


if __name__ == "__main__":
    main()
