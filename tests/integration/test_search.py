"""What a search promises, against ranking everything in Python; and what goes wrong."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy
import psycopg
import pytest

from kb_assets.errors import (
    DatabaseUnavailableError,
    KbError,
    ProviderRefusedError,
    ProviderUnavailableError,
    SettingsError,
    SpaceError,
    TextRefusedError,
)
from kb_assets.index import publish
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.hits import Hit, Results
from kb_assets.retrieval.query import MAX_QUERY_CHARACTERS
from kb_assets.retrieval.search import POOL
from kb_assets.settings import Settings
from tests import bm25
from tests.faults import corpus
from tests.faults.conftest import hash_vector, openai_vector
from tests.oracle import Embed, live_vectors, rows_of
from tests.servers.openai_server import Fault, OpenAIServer
from tests.servers.rerank_server import RerankFault, RerankServer

SPLITTING = {"strategy": "markdown", "size": 30, "overlap": 0}
WEIGHT = 0.4
MODES = ("hybrid", "vector", "lexical")
TOPICS = (
    "restore backup server archive",
    "owls hunt night forest",
    "invoice tax payment customer",
    "kafka topic broker consumer lag",
)
QUERIES = (
    "restoring the backups",
    "where do owls hunt at night?",
    "customer invoice for the broker",
    "KafkaConsumer lag",
    "nothing of this is anywhere",
    "to be or not to be",
)
DOCUMENTS = 70

Place = tuple[str, str, int]


@pytest.fixture
def open_kb(make_settings: Callable[..., Settings]) -> Iterator[Callable[..., KnowledgeBase]]:
    """Open knowledge bases over `folder`."""
    with ExitStack() as stack:

        def make(**overrides: Any) -> KnowledgeBase:
            chosen = {"splitting": SPLITTING, "search": {"vector_weight": WEIGHT}} | overrides
            return stack.enter_context(KnowledgeBase(make_settings(**chosen)))

        yield make


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def embedding_of(provider: OpenAIServer) -> dict[str, Any]:
    return {
        "provider": "openai",
        "model": "tiny",
        "dimensions": 64,
        "base_url": provider.base_url,
        "retries": 0,
        "timeout_seconds": 2,
    }


def write_documents(folder: Path, count: int = DOCUMENTS) -> None:
    """Write documents of a few chunks, each about some topics; every tenth is tagged as rare."""
    for number in range(count):
        rng = random.Random(number)
        parts = []
        for _ in range(rng.randint(1, 5)):
            words = [*rng.choice(TOPICS).split(), f"word{rng.randint(0, 40)}", "the", "of"]
            parts.append(" ".join(rng.choices(words, k=rng.randint(15, 25))).capitalize() + ".")
        tags = "rare" if number % 10 == 3 else rng.choice(["often", "now and then"])
        head = f"---\ntags: [{tags}]\nyear: {2020 + number % 5}\n---\n"
        path = folder / f"{'deep/' * (number % 4 == 0)}{number}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(head + corpus.document(*parts))


@pytest.fixture
def kb(open_kb: Callable[..., KnowledgeBase], folder: Path) -> KnowledgeBase:
    """A knowledge base of about two hundred chunks."""
    write_documents(folder)
    made = open_kb()
    made.index()
    return made


FILTERS: list[tuple[dict[str, Any], Callable[[Hit], bool]]] = [
    ({}, lambda hit: True),
    ({"path_prefix": "deep/"}, lambda hit: hit.path.startswith("deep/")),
    ({"tags": ("rare",)}, lambda hit: "rare" in hit.tags),
    ({"tags": ("never",)}, lambda hit: False),
    ({"path_prefix": "13.md"}, lambda hit: hit.path == "13.md"),
    ({"metadata": {"year": 2021}}, lambda hit: hit.metadata["year"] == 2021),
    ({"where": "metadata.year >= 2022"}, lambda hit: hit.metadata["year"] >= 2022),
]


class Brute:
    """Every chunk's scores, computed here."""

    def __init__(self, kb: KnowledgeBase, embed: Embed = hash_vector) -> None:
        self._kb = kb
        self._embed = embed
        self._chunks = bm25.live_chunks(kb)
        hashes = rows_of(kb, "select revision_id, ordinal, input_hash from kb.chunk")
        by_key = {(revision, ordinal): hash_ for revision, ordinal, hash_ in hashes}
        vectors = live_vectors(kb)
        self._vectors = {
            chunk.place: vectors[by_key[chunk.revision_id, chunk.ordinal]].astype("f8")
            for chunk in self._chunks
        }

    def scores(self, query: str) -> tuple[dict[Place, float], dict[Place, float]]:
        """Return the similarity of every chunk, and the share of those with words in common."""
        (vector, *_) = self._vectors.values()
        asked = self._embed(query, len(vector)).astype("f2").astype("f8")
        near = {
            place: float(vector @ asked / numpy.linalg.norm(vector) / numpy.linalg.norm(asked))
            for place, vector in self._vectors.items()
        }
        worded = bm25.scores(self._kb, query, self._chunks)
        return near, {place: scored.share for place, scored in worded.items()}

    def best(
        self, query: str, mode: str, limit: int, admitted: set[Place]
    ) -> list[tuple[float, Place]]:
        """Return what a search must return: the best of what each side names."""
        near, worded = self.scores(query)
        pool = max(POOL, 2 * limit)
        named: set[Place] = set()
        for side, asked in ((near, mode != "lexical"), (worded, mode != "vector")):
            some = sorted((place for place in side if place in admitted), key=lambda p: -side[p])
            named |= {*some[:pool]} if asked else set()

        def score(place: Place) -> float:
            if mode == "vector":
                return near[place]
            if mode == "lexical":
                return worded[place]
            return WEIGHT * max(near[place], 0) + (1 - WEIGHT) * worded.get(place, 0.0)

        ranked = sorted(((score(place), place) for place in named), reverse=True)
        return ranked[:limit]


def place_of(hit: Hit) -> Place:
    return hit.source, hit.path, hit.ordinal


def scores_of(results: Results) -> list[float]:
    return [hit.score for hit in results]


@pytest.fixture
def everything(kb: KnowledgeBase) -> dict[Place, Hit]:
    hits = kb.search("anything", mode="vector", limit=1000, merge=False)
    found = {place_of(hit): hit for hit in hits}
    assert len(found) == len(hits) == len(bm25.live_chunks(kb)) > 4 * POOL
    return found


@pytest.mark.parametrize("mode", MODES)
def test_hits_are_those_of_ranking_everything(
    kb: KnowledgeBase, everything: dict[Place, Hit], mode: Any
) -> None:
    brute = Brute(kb)
    for query, (filters, admits), limit in product(QUERIES, FILTERS, (1, 7, POOL, POOL + 1, 1000)):
        admitted = {place for place, hit in everything.items() if admits(hit)}
        found = kb.search(query, mode=mode, limit=limit, merge=False, **filters)
        expected = brute.best(query, mode, limit, admitted)
        case = (query, filters, limit)
        assert {place_of(hit) for hit in found} <= admitted, case
        assert scores_of(found) == pytest.approx([one for one, _ in expected], abs=1e-3), case
        if mode != "lexical":
            assert len(found) == min(limit, len(admitted)), case
        near, worded = brute.scores(query)
        for hit in found:
            place = place_of(hit)
            assert hit.fused_score is not None
            assert 0 <= hit.fused_score <= 1
            if mode != "lexical":
                assert hit.vector_score == pytest.approx(near[place], abs=1e-3)
            if mode != "vector":
                assert (hit.lexical_score or 0.0) > 0 or place not in worded
        assert found.mode == mode
        assert not found.notes
    assert len(everything) == len(kb.search("x", mode="vector", limit=1000, merge=False))


def test_sides_that_disagree_are_joined_exactly(
    open_kb: Callable[..., KnowledgeBase], folder: Path, provider: OpenAIServer
) -> None:
    """The server's vectors have nothing to do with words: each side names other chunks."""
    write_documents(folder)
    kb = open_kb(embedding=embedding_of(provider))
    kb.index()
    brute = Brute(kb, openai_vector)
    places = {chunk.place for chunk in bm25.live_chunks(kb)}
    alone = 0
    for query, limit in product(QUERIES, (1, POOL // 2, POOL, 1000)):
        found = kb.search(query, limit=limit, merge=False)
        expected = brute.best(query, "hybrid", limit, places)
        assert scores_of(found) == pytest.approx([one for one, _ in expected], abs=1e-3)
        near, worded = brute.scores(query)
        for hit in found:
            assert hit.vector_score == pytest.approx(near[place_of(hit)], abs=1e-3)
            alone += place_of(hit) in worded and near[place_of(hit)] < 0
    assert alone > 20


def test_hybrid_finds_what_either_side_does(kb: KnowledgeBase) -> None:
    for query in QUERIES:
        sides = [kb.search(query, mode=mode, limit=1000, merge=False) for mode in MODES[1:]]
        both = {place_of(hit) for hit in kb.search(query, limit=1000, merge=False)}
        assert both == {place_of(hit) for side in sides for hit in side}


def test_rrf_adds_up_ranks(
    kb: KnowledgeBase, open_kb: Callable[..., KnowledgeBase], everything: dict[Place, Hit]
) -> None:
    ranked = open_kb(search={"vector_weight": WEIGHT, "fusion": "rrf"})
    brute = Brute(kb)
    for query in QUERIES[:4]:
        hits = ranked.search(query, limit=20, merge=False).hits
        near, worded = brute.scores(query)
        for hit in hits:
            # Ranks of equals are anybody's: all that may be theirs are tried.
            place = place_of(hit)
            possible = {
                sum(1 / (60 + rank) for rank in ranks if rank)
                for ranks in product(_ranks(near, place), _ranks(worded, place))
            }
            assert min(abs(hit.score - one) for one in possible) < 1e-9, (query, place)
            share = WEIGHT * max(near[place], 0) + (1 - WEIGHT) * worded.get(place, 0.0)
            assert hit.fused_score == pytest.approx(share, abs=1e-3)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def _ranks(side: dict[Place, float], place: Place) -> list[int]:
    """Return the ranks a place may have on a side, as near as scores are; 0 for none."""
    pool = max(POOL, 40)
    if place not in side:
        return [0]
    better = sum(score > side[place] + 2e-4 for score in side.values())
    as_good = sum(abs(score - side[place]) <= 2e-4 for score in side.values())
    ranks = range(better + 1, better + as_good + 1)
    return [rank if rank <= pool else 0 for rank in ranks]


def test_neighbours_become_one_passage_that_stands_in_the_document(
    kb: KnowledgeBase, everything: dict[Place, Hit]
) -> None:
    texts: dict[str, str] = dict(
        rows_of(
            kb,
            "select d.path, r.text from kb.document d"
            " join kb.document_revision r on r.id = d.live_revision_id",
        )
    )
    merged = 0
    for query, mode, limit in product(QUERIES[:4], MODES, (1, 10, 200)):
        passages = kb.search(query, mode=mode, limit=limit)
        alone = {place_of(hit): hit for hit in kb.search(query, mode=mode, limit=1000, merge=False)}
        covered: Counter[Place] = Counter()
        for hit in passages:
            merged += hit.last_ordinal > hit.ordinal
            assert hit.last_ordinal - hit.ordinal < 4
            content = texts[hit.path].encode()[hit.byte_start : hit.byte_end]
            assert content.decode() == hit.text
            parts = [
                (hit.source, hit.path, ordinal)
                for ordinal in range(hit.ordinal, hit.last_ordinal + 1)
            ]
            covered.update(parts)
            assert all(everything[part].text in hit.text for part in parts)
            assert hit.score == pytest.approx(max(alone[part].score for part in parts), abs=1e-4)
        assert not covered or max(covered.values()) == 1
        assert scores_of(passages) == sorted(scores_of(passages), reverse=True)
        if limit == 200:
            assert covered.keys() == alone.keys(), "every chunk is in a passage"
    assert merged > 50


def test_no_more_hits_of_a_document_than_wanted(
    kb: KnowledgeBase, everything: dict[Place, Hit]
) -> None:
    chunks = Counter(path for _, path, _ in everything)
    for most, limit, merge in product((1, 2, 3), (5, 60, 1000), (True, False)):
        hits = kb.search(QUERIES[0], limit=limit, per_document=most, merge=merge).hits
        counted = Counter(hit.path for hit in hits)
        assert max(counted.values()) <= most
        if not merge:
            possible = sum(min(most, count) for count in chunks.values())
            assert len(hits) == min(limit, possible)
        elif most == 1:
            assert len(hits) == min(limit, len(chunks))


def test_no_hit_below_the_least_score(kb: KnowledgeBase) -> None:
    for mode in MODES:
        hits = kb.search(QUERIES[0], mode=mode, limit=100).hits
        for least in (-1.0, 0.0, hits[5].score, hits[5].score + 1e-9, 1.0, 1e9):
            kept = kb.search(QUERIES[0], mode=mode, limit=100, min_score=least).hits
            assert kept == tuple(hit for hit in hits if hit.score >= least)


def test_a_search_without_vector_index_finds_the_same(kb: KnowledgeBase) -> None:
    before = [scores_of(kb.search(query, limit=40, merge=False)) for query in QUERIES]
    indexes = rows_of(
        kb,
        "select schemaname || '.' || indexname from pg_indexes"
        " where schemaname = 'kb_space' and indexdef like '%hnsw%'",
    )
    assert indexes
    with psycopg.connect(kb.urls.migrator) as connection:
        for (name,) in indexes:
            connection.execute(f"drop index {name}")
    for query, scores in zip(QUERIES, before, strict=True):
        assert scores_of(kb.search(query, limit=40, merge=False)) == pytest.approx(scores, abs=1e-5)


def test_the_live_space_answers_while_another_is_built(
    kb: KnowledgeBase, open_kb: Callable[..., KnowledgeBase], folder: Path
) -> None:
    before = kb.search(QUERIES[0])
    other = open_kb(embedding={"provider": "hash", "dimensions": 64})
    (folder / "new.md").write_text("Restore the backups of owls.\n")
    other.index()
    assert len(other.spaces()) == 2
    for one in (kb, other):
        found = one.search(QUERIES[0])
        assert found.space == before.space
        assert found.hits[0].path == "new.md"
        assert found.generation > before.generation


def test_a_document_that_is_replaced_or_deleted_is_never_found_half(
    open_kb: Callable[..., KnowledgeBase], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MAX_DOCUMENTS", 4)
    parts = 6

    def write(version: int) -> None:
        for number in range(12):
            texts = (f"Owls {version} of {number} part {part}" for part in range(parts))
            padded = (f"{text}: {corpus.paragraph(number, version)}" for text in texts)
            (folder / f"{number}.md").write_text(corpus.document(*padded))

    write(0)
    limits = {"max_deleted_share": 1.0}
    kb = open_kb(limits=limits, splitting=SPLITTING | {"size": 80})
    kb.index()
    original = publish._publish
    seen: set[tuple[int, ...]] = set()

    def look() -> None:
        for mode in MODES:
            found: dict[str, Counter[str]] = {}
            for hit in kb.search("owls part", mode=mode, limit=1000, merge=False):
                found.setdefault(hit.path, Counter())[hit.text.split()[1]] += 1
            assert all(len(versions) == 1 for versions in found.values())
            assert all(versions.total() == parts for versions in found.values())
            versions = Counter(version for one in found.values() for version in one)
            seen.add((versions["0"], versions["1"]))

    def looked_at(*arguments: Any) -> Any:
        batch = original(*arguments)
        look()
        return batch

    monkeypatch.setattr(publish, "_publish", looked_at)
    look()
    write(1)
    kb.index()
    for path in folder.iterdir():
        path.unlink()
    kb.index()
    assert seen == {(12, 0), (8, 4), (4, 8), (0, 12), (0, 8), (0, 4), (0, 0)}


# What goes wrong.


def test_nothing_was_indexed_yet(open_kb: Callable[..., KnowledgeBase]) -> None:
    for mode in MODES:
        with pytest.raises(SpaceError, match="nothing to search"):
            open_kb().search("owls", mode=mode)


@pytest.mark.parametrize(
    "chosen",
    [
        {"text": ""},
        {"text": " \t\n\u00a0"},
        {"text": "\x00\x00"},
        {"text": "x" * 100_000},
        {"limit": 0},
        {"limit": -1},
        {"limit": 1001},
        {"limit": 10**6},
        {"per_document": -1},
        {"min_score": float("nan")},
        {"mode": "psychic"},
        {"sources": ("nowhere",)},
        {"sources": ("notes", "nowhere")},
    ],
)
def test_what_cannot_be_searched_for_is_refused(kb: KnowledgeBase, chosen: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        kb.search(**({"text": "owls"} | chosen))
    assert refused.value.what
    assert refused.value.why or refused.value.fix


ODD = [
    "!!! ... ???",
    "\U0001f989",
    "\ufffd\ufeff\u200b x",
    "owls\x00 hunt",
    "\ud800 owls \udfff",
    "owls & night | !hunt <-> 'forest':*",
    "(owls AND (night OR NOT hunt)) NEAR/3 forest*",
    "\"owls\" 'hunt' \u201cnight\u201d \u00abforest\u00bb `--` /* \\ */ ; $1 %s %(vector)s {x} :y",
    "'; drop table kb.chunk; --",
    "\\x00\\ud800",
    "a\u0301" * 500,
    "\u202eowls\u202c",
    "-",
    "--",
    "_",
    "0",
    " ".join(f"word{number}" for number in range(3000))[:MAX_QUERY_CHARACTERS],
    "x" * MAX_QUERY_CHARACTERS,
    "owls " * (MAX_QUERY_CHARACTERS // 5),
]


@pytest.mark.parametrize("query", ODD, ids=range(len(ODD)))
def test_nobodys_question_is_an_error(kb: KnowledgeBase, query: str) -> None:
    for mode in ("hybrid", "lexical"):
        found = kb.search(query, mode=mode, limit=5)
        assert not [note for note in found.notes if "analysed" in note]
        if "owls" in query:
            assert "Owls" in found[0].text or "owls" in found[0].text
    if any(character.isalnum() for character in query):
        assert len(kb.search(query, mode="vector", limit=5)) == 5


@pytest.fixture
def asking(
    provider: OpenAIServer, open_kb: Callable[..., KnowledgeBase], folder: Path
) -> KnowledgeBase:
    """A knowledge base whose embedding provider can be told to fail."""
    write_documents(folder, 12)
    kb = open_kb(embedding=embedding_of(provider))
    kb.index()
    assert kb.search(QUERIES[0], mode="vector")[0].vector_score is not None
    return kb


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (Fault(status=500), ProviderUnavailableError),
        (Fault(status=429), ProviderUnavailableError),
        (Fault(status=429, code="insufficient_quota"), KbError),
        (Fault(status=401), ProviderRefusedError),
        (Fault(status=404, code="model_not_found"), ProviderRefusedError),
        (Fault(status=400), TextRefusedError),
        (Fault(reset="before"), ProviderUnavailableError),
        (Fault(reset="after"), ProviderUnavailableError),
        (Fault(delay_seconds=4), ProviderUnavailableError),
        (Fault(truncate=True), ProviderUnavailableError),
        (Fault(rows={0: "nan"}), KbError),
        (Fault(rows={0: "zero"}), KbError),
        (Fault(drop=1), KbError),
        (Fault(error_body=True), KbError),
        (Fault(dimensions=8), KbError),
    ],
    ids=str,
)
def test_without_a_vector_words_answer_and_it_is_said(
    asking: KnowledgeBase, provider: OpenAIServer, fault: Fault, raised: type[KbError]
) -> None:
    words = asking.search(QUERIES[0], mode="lexical", limit=100)
    assert words
    provider.always = fault
    found = asking.search(QUERIES[0], limit=100)
    assert found.hits == words.hits
    assert (found.mode, found.space, found.provider) == ("lexical", "", "")
    (note,) = found.notes
    assert "by words alone" in note
    with pytest.raises(raised):
        asking.search(QUERIES[0], mode="vector")
    assert asking.search(QUERIES[0], mode="lexical", limit=100).hits == words.hits
    provider.always = Fault()
    assert asking.search(QUERIES[0]).mode == "hybrid"


def test_words_alone_ask_no_provider(asking: KnowledgeBase, provider: OpenAIServer) -> None:
    before = len(provider.requests)
    asking.search(QUERIES[0], mode="lexical")
    assert len(provider.requests) == before
    asking.search(QUERIES[0])
    assert len(provider.requests) == before + 1


@pytest.fixture
def reranker() -> Iterator[RerankServer]:
    with RerankServer() as server:
        yield server


def test_the_reranker_orders_more_than_are_shown_and_may_be_down(
    open_kb: Callable[..., KnowledgeBase], folder: Path, reranker: RerankServer
) -> None:
    for number in range(30):
        text = f"Owls hunt at night, {'owls ' * (30 - number)}score=0.{number:02}"
        (folder / f"{number}.md").write_text(f"{text}\n")
    url = f"{reranker.url}/v2/rerank"
    rerank = {"url": url, "candidates": 25, "timeout_seconds": 2}
    kb = open_kb(rerank=rerank, splitting=SPLITTING | {"size": 100})
    kb.index()
    plain = kb.search("owls at night", limit=30, rerank=False)
    assert not reranker.requests
    assert not plain.notes
    found = kb.search("owls at night", limit=3)
    assert len(reranker.requests[0].body["documents"]) == 25
    best = sorted((hit.text.split("score=")[1] for hit in plain[:25]), reverse=True)
    assert [hit.text.split("score=")[1] for hit in found] == best[:3]
    assert [hit.score for hit in found] == [float(score) for score in best[:3]]
    assert all(hit.rerank_score == hit.score for hit in found)
    assert found[0].fused_score != found[0].score
    least = float(best[1])
    assert len(kb.search("owls at night", limit=3, min_score=least)) == 2
    for fault in (
        RerankFault(status=500),
        RerankFault(status=401),
        RerankFault(reset=True),
        RerankFault(truncate=True),
        RerankFault(delay_seconds=4),
        RerankFault(results={0: None}),
    ):
        reranker.always = fault
        left = kb.search("owls at night", limit=3)
        assert [place_of(hit) for hit in left] == [place_of(hit) for hit in plain[:3]]
        assert all(hit.rerank_score is None for hit in left)
        (note,) = left.notes
        assert note.startswith("Not reranked.")


@pytest.mark.parametrize(
    "table",
    [
        *("chunk", "document", "document_revision", "source", "embedding_space", "index_state"),
        *("lexical_source", "lexical_document", "lexical_posting"),
    ],
)
def test_a_database_that_does_not_answer_in_time_is_unavailable(
    kb: KnowledgeBase, open_kb: Callable[..., KnowledgeBase], table: str
) -> None:
    hurried = open_kb(search={"timeout_seconds": 1})
    assert len(hurried.search(QUERIES[0])) == 10
    with psycopg.connect(kb.urls.migrator) as other:
        # Given back after a while, so that a search that waits for ever is seen to.
        other.execute("set idle_in_transaction_session_timeout = '20s'")
        other.execute(f"lock table kb.{table} in access exclusive mode")
        with pytest.raises(DatabaseUnavailableError):
            hurried.search(QUERIES[0])
        other.rollback()
    assert len(hurried.search(QUERIES[0])) == 10
