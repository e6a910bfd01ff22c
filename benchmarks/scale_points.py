"""Knowledge bases of several sizes, made, measured and thrown away: what `benchmarks.scale` asks.

Vectors lie around topics, as those of models do, and come from a stock at next to no cost: an
embedder's time is not the project's.
"""

import hashlib
import multiprocessing
import shutil
import statistics
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy
from pgvector import HalfVector

from benchmarks.capacity import Corpus
from benchmarks.components import opened, space_of
from benchmarks.fleet import Fleet
from benchmarks.generated_index import DIMENSIONS, LATENT_DIMENSIONS, VectorSpace
from benchmarks.growing_corpus import write_corpus
from benchmarks.retrieval_latency import milliseconds, questions
from benchmarks.slow_provider import running
from kb_assets import Answer, KnowledgeBase, Model
from kb_assets.database.bulk import copy_rows
from kb_assets.database.embedded import leave_embedded
from kb_assets.fingerprints import Shard
from kb_assets.index import publish
from kb_assets.index.vectors import maintain_vector_indexes
from kb_assets.knowledge_base.indexing import index_shard

PARAGRAPHS = 24
CHUNKS_PER_DOCUMENT = 9.2
"""What files of so many paragraphs are split into."""

QUESTIONS = 60
_START_SECONDS = 4.0
_STOCK = 4096

_SIZES = """
select case
    when i.relname like '%_hnsw' then 'HNSW index'
    when t.relname like 'embedding\\_%' and i.oid is not null then 'index of texts'
    when t.relname like 'embedding\\_%' then 'vectors'
    when t.relname = 'lexical_posting' then 'postings'
    when t.relname = 'chunk' and i.oid is not null then 'indexes of chunks'
    when t.relname = 'chunk' then 'chunks'
    else 'documents' end as part,
    sum(case when i.oid is null then pg_table_size(t.oid) else pg_relation_size(i.oid) end)::bigint
from pg_class t
join pg_namespace n on n.oid = t.relnamespace
left join (select null::oid as indexrelid, null::oid as indrelid, true as is_table
    union all select indexrelid, indrelid, false from pg_index) x
    on x.is_table or x.indrelid = t.oid
left join pg_class i on i.oid = x.indexrelid
where t.relkind = 'r' and (n.nspname = 'kb_space' and t.relname ~ '^embedding_[0-9]+$'
    or n.nspname = 'kb' and t.relname in ('document', 'document_version', 'document_revision',
        'lexical_document', 'lexical_posting', 'chunk'))
group by part
"""

_TEXT_OF_DOCUMENTS = """
select pg_total_relation_size(reltoastrelid) from pg_class
where oid = 'kb.document_revision'::regclass
"""

_CORPUS = """
select count(*), count(distinct revision_id), avg(octet_length(text)), avg(token_count)
from kb.chunk
"""


@dataclass(frozen=True, slots=True)
class Point:
    """One size.

    Attributes:
        corpus: What was indexed.
        bytes: Of each part, as `capacity.bytes_of` names them.
        seconds: Of each stage, as `scale.stages_of` names them.
        milliseconds: The median of a search, by mode.
    """

    corpus: Corpus
    bytes: dict[str, float]
    seconds: dict[str, float]
    milliseconds: dict[str, float]


class StockEmbedder:
    """Adds two vectors of a stock, picked by the text."""

    model = Model("benchmarks.scale_points:embedder", "stock", DIMENSIONS)
    usd_per_million_tokens = 0.0

    def __init__(self) -> None:
        self._stock = VectorSpace.made().draw(numpy.random.default_rng(5), _STOCK)

    def embed(self, texts: Sequence[str]) -> Answer:
        """Return a vector for each text."""
        picks = numpy.array([divmod(zlib.crc32(text.encode()), _STOCK) for text in texts])
        other = self._stock[picks[:, 0] % _STOCK]
        return Answer(self._stock[picks[:, 1]] + numpy.float32(0.5) * other, 0)


def embedder(_: object) -> StockEmbedder:
    return StockEmbedder()


def measure(chunks: int) -> Point:
    """Measure one size, in a process of its own."""
    new_process = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, new_process) as processes:
        return processes.submit(_measure, chunks).result()


@contextmanager
def _opened(files: int, settings: str) -> Iterator[KnowledgeBase]:
    home = Path(tempfile.mkdtemp(prefix="kb-scale-"))
    (home / "corpus").mkdir()
    (home / "kb.toml").write_text(settings)
    try:
        with KnowledgeBase.open(home / "kb.toml") as kb:
            kb.upgrade()
            kb.index()
            write_corpus(home / "corpus", files, PARAGRAPHS)
            yield kb
    finally:
        leave_embedded(kb.settings.home_folder)
        shutil.rmtree(home, ignore_errors=True)


def _measure(chunks: int) -> Point:
    provider = StockEmbedder.model.provider
    settings = f'[[sources]]\nname = "docs"\nuri = "corpus"\n[embedding]\nprovider = "{provider}"\n'
    with _opened(round(chunks / CHUNKS_PER_DOCUMENT), settings) as kb:
        seconds = _load(kb)
        corpus, sizes = _sizes(kb)
        return Point(corpus, sizes, seconds, _searches(kb))


def _load(kb: KnowledgeBase) -> dict[str, float]:
    locked = 0.0
    publish_group = publish._publish

    def timed(*given: object) -> None:
        nonlocal locked
        started = time.perf_counter()
        publish_group(*given)
        locked += time.perf_counter() - started

    with mock.patch.object(publish, "_publish", timed):
        report = kb.index()
    (shard,), (graph,) = report.shards, report.vectors
    (embedded,) = shard.embedded
    return {
        "reading": shard.read.seconds,
        "splitting": shard.chunked.seconds,
        "storing vectors": embedded.seconds,
        "publishing": shard.published.seconds,
        "under the publish lock": locked,
        "HNSW index": graph.seconds,
    }


def _sizes(kb: KnowledgeBase) -> tuple[Corpus, dict[str, float]]:
    with kb.database.transaction() as connection:
        sizes = {str(part): float(size) for part, size in connection.execute(_SIZES)}
        (text,) = connection.execute(_TEXT_OF_DOCUMENTS).fetchone() or (0,)
        row = connection.execute(_CORPUS).fetchone()
    assert row is not None
    chunks, documents, text_bytes, tokens = row
    corpus = Corpus(chunks, chunks / documents, round(text_bytes), round(tokens), DIMENSIONS)
    documents_bytes = sizes["documents"] - text
    return corpus, sizes | {"documents": documents_bytes, "text of documents": float(text)}


def _searches(kb: KnowledgeBase) -> dict[str, float]:
    asked, found = questions(QUESTIONS), {}
    for mode in ("vector", "lexical", "hybrid"):
        for question in asked[: QUESTIONS // 3]:
            kb.search(question, mode=mode)
        times = [milliseconds(kb.search(question, mode=mode)) for question in asked]
        found[mode] = statistics.median(times)
    return found


def graph_seconds(vectors: int, dimensions: int) -> float:
    """Seconds to build the HNSW index of vectors as the product does."""
    settings = f'[embedding]\nprovider = "hash"\ndimensions = {dimensions}\n'
    with opened(settings) as kb:
        space = space_of(kb)
        random = numpy.random.default_rng(5)
        projection = random.normal(size=(LATENT_DIMENSIONS, dimensions))
        rows = random.normal(size=(vectors, LATENT_DIMENSIONS)) @ projection
        hashes = [hashlib.sha256(str(number).encode()).digest() for number in range(vectors)]
        pairs = ((hash_, HalfVector(row)) for hash_, row in zip(hashes, rows, strict=True))
        with kb.database.transaction() as connection:
            columns = ["input_hash", "vector"]
            copy_rows(connection, space.table, columns, ["bytea", "halfvec"], pairs)
        (report,) = maintain_vector_indexes(kb.database)
        assert (report.action, report.fits_memory) == ("built", True), report
        return report.seconds


def fleet_seconds(chunks: int, fleet: Fleet, texts_per_second: float = 0) -> tuple[int, float]:
    """Index a corpus by processes that take shards, and return its chunks and the seconds."""
    with running(fleet.request_seconds, texts_per_second) as address:
        settings = (
            f'[[sources]]\nname = "docs"\nuri = "corpus"\nshards = {fleet.shards}\n'
            f'[embedding]\nprovider = "openai"\nmodel = "slow"\nbase_url = "{address}"\n'
            f"dimensions = {DIMENSIONS}\nrequests_in_flight = {fleet.requests_in_flight}\n"
            f"texts_per_request = {fleet.texts_per_request}\n"
        )
        files = round(chunks / CHUNKS_PER_DOCUMENT)
        with _opened(files, settings) as kb:
            new_process = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(
                fleet.workers, new_process, initializer=_open, initargs=(kb.settings.root,)
            ) as workers:
                # Each is given something to do, so that all have started.
                list(workers.map(time.sleep, [_START_SECONDS] * fleet.workers))
                started = time.perf_counter()
                found = sum(workers.map(_index, kb.settings.shards))
                return found, time.perf_counter() - started


_opened_here: list[KnowledgeBase] = []
"""The knowledge base of a worker's process."""


def _open(home: Path) -> None:
    _opened_here.append(KnowledgeBase.open(home / "kb.toml"))


def _index(shard: Shard) -> int:
    (kb,) = _opened_here
    report = index_shard(kb.run(), shard)
    assert report.published.waiting == 0, report
    return report.chunked.chunks
