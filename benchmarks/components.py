"""Parts of the pipeline against what they cannot beat, side by side in one run.

    python -m benchmarks.components [vectors] [hnsw] [http]

- vectors: what the embedding stage does to store vectors, against one binary COPY of the same
  bytes into the same table with its primary key;
- hnsw: the index as the product builds it, against one process;
- http: the embedding stage against a server that takes 200 ms for each request.

Each result is checked before its time counts.
"""

import argparse
import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy

from benchmarks.generated_index import DIMENSIONS, VectorSpace
from benchmarks.record import Row, record
from benchmarks.slow_provider import running, vector_of
from kb_assets import KnowledgeBase
from kb_assets.chunks.plan import recipe_of
from kb_assets.chunks.stage import chunk_documents
from kb_assets.database.bulk import copy_encoded
from kb_assets.database.embedded import leave_embedded
from kb_assets.documents.stage import read_documents
from kb_assets.documents.store import ensure_source
from kb_assets.embeddings.embedder import Vectors
from kb_assets.embeddings.open import model_of
from kb_assets.embeddings.space import Space, ensure_space
from kb_assets.embeddings.stage import EmbedReport, embed_chunks, embedding_conditions
from kb_assets.embeddings.store import Call, VectorStore, release_claims
from kb_assets.fingerprints import input_text
from kb_assets.index.vectors import index_name, maintain_vector_indexes
from kb_assets.settings import EmbeddingSettings

VECTORS = 20_000
GRAPH_VECTORS = 30_000
TEXTS = 40_960
PER_REQUEST = 256
IN_FLIGHT = 8
REQUEST_SECONDS = 0.2
REPEATS = 5
BUILDS = 3


@contextmanager
def opened(embedding: str = "") -> Iterator[KnowledgeBase]:
    """A knowledge base of its own, with an embedded server as users have it."""
    home = Path(tempfile.mkdtemp(prefix="kb-components-"))
    (home / "corpus").mkdir()
    (home / "kb.toml").write_text(f'[[sources]]\nname = "docs"\nuri = "corpus"\n{embedding}')
    try:
        with KnowledgeBase.open(home / "kb.toml") as kb:
            kb.upgrade()
            yield kb
    finally:
        leave_embedded(kb.settings.home_folder)
        shutil.rmtree(home, ignore_errors=True)


def random_vectors(count: int) -> tuple[list[bytes], Vectors]:
    hashes = [hashlib.sha256(str(number).encode()).digest() for number in range(count)]
    return hashes, VectorSpace.made().draw(numpy.random.default_rng(5), count)


def binary_rows(hashes: list[bytes], vectors: Vectors) -> bytes:
    """The rows as COPY wants them, by the description of the format; made before it is timed."""
    width = 4 + 2 * DIMENSIONS
    head = b"\x00\x02" + (32).to_bytes(4, "big")
    shape = width.to_bytes(4, "big") + DIMENSIONS.to_bytes(2, "big") + b"\x00\x00"
    halves = vectors.astype(">f2")
    pairs = zip(hashes, halves, strict=True)
    return b"".join(head + hash_ + shape + row.tobytes() for hash_, row in pairs)


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def space_of(kb: KnowledgeBase) -> Space:
    settings = kb.settings.embedding
    return ensure_space(kb.database, model_of(settings), settings.precision)


def empty(kb: KnowledgeBase, space: Space) -> None:
    with kb.database.transaction() as connection:
        connection.execute(f"truncate {'.'.join(space.table)}")


def count(kb: KnowledgeBase, space: Space) -> int:
    with kb.database.transaction() as connection:
        row = connection.execute(f"select count(*) from {'.'.join(space.table)}").fetchone()  # noqa: S608
    assert row is not None
    return int(row[0])


def vectors_into_the_table() -> list[Row]:
    hashes, vectors = random_vectors(VECTORS)
    rows = binary_rows(hashes, vectors)
    together = IN_FLIGHT * PER_REQUEST
    with opened() as kb:
        ensure_source(kb.database, kb.settings.source("docs"))
        space, run = space_of(kb), kb.run()
        with run.lease(kb.settings.shards[0]) as lease:
            conditions = embedding_conditions(kb.settings.embedding)
            store = VectorStore(kb.database, lease, space, conditions)

            def claims() -> None:
                for at in range(0, VECTORS, together):
                    some = hashes[at : at + together]
                    assert store.claim(some) == set(some)

            def product() -> None:
                for at in range(0, VECTORS, together):
                    some = slice(at, at + together)
                    calls = [Call(PER_REQUEST, 0, 0.0, 0.0, "answered")] * IN_FLIGHT
                    store.add(hashes[some], vectors[some], *calls)

            def raw() -> None:
                with kb.database.transaction() as connection:
                    copy_encoded(connection, space.table, ["input_hash", "vector"], [rows])

            times: dict[str, list[float]] = {"raw": [], "claims": [], "product": []}
            for _ in range(REPEATS):
                empty(kb, space)
                times["raw"].append(seconds(raw))
                assert count(kb, space) == VECTORS
                empty(kb, space)
                times["claims"].append(seconds(claims))
                times["product"].append(seconds(product))
                assert count(kb, space) == VECTORS
                release_claims(kb.database, lease)
    floor, ahead, own = (statistics.median(times[name]) for name in ("raw", "claims", "product"))
    row = Row(
        "vectors into the table",
        f"{floor / own:.2f} x a raw COPY",
        "≥ 0.8 x",
        floor / own >= 0.8,
        f"{VECTORS:,} halfvec({DIMENSIONS}) from numpy: {own:.2f} s, written down with their costs"
        f" and committed as {IN_FLIGHT} requests at a time bring them; one COPY of ready bytes"
        f" {floor:.2f} s; claiming them, ahead and while others are embedded, {ahead:.2f} s;"
        f" median of {REPEATS}, interleaved",
    )
    return [row]


def hnsw_build() -> list[Row]:
    hashes, vectors = random_vectors(GRAPH_VECTORS)
    with opened() as kb:
        space = space_of(kb)
        with kb.database.transaction() as connection:
            rows = binary_rows(hashes, vectors)
            copy_encoded(connection, space.table, ["input_hash", "vector"], [rows])
        index = f"{space.table[0]}.{index_name(space)}"

        def one_process() -> None:
            with kb.database.session() as connection:
                connection.execute("set max_parallel_maintenance_workers = 0")
                connection.execute("set maintenance_work_mem = '512MB'")
                connection.execute(
                    f"create index concurrently {index_name(space)} on {'.'.join(space.table)}"
                    " using hnsw (vector halfvec_cosine_ops)"
                )

        def product() -> None:
            (report,) = maintain_vector_indexes(kb.database)
            assert report.action == "built", report
            assert report.valid
            assert report.fits_memory

        times: dict[str, list[float]] = {"one": [], "product": []}
        for _ in range(BUILDS):
            for name, build in (("one", one_process), ("product", product)):
                times[name].append(seconds(build))
                with kb.database.session() as connection:
                    connection.execute(f"drop index {index}")
    one, two = (statistics.median(times[name]) for name in ("one", "product"))
    row = Row(
        "HNSW build",
        f"{one / two:.2f} x one process",
        "≥ 1.5 x",
        one / two >= 1.5,
        f"{GRAPH_VECTORS:,} halfvec({DIMENSIONS}): {two:.1f} s as the product builds it, "
        f"{one:.1f} s by one process; median of {BUILDS}, interleaved",
    )
    return [row]


def embedding_over_http() -> list[Row]:
    reports: list[EmbedReport] = []
    for _ in range(BUILDS):
        with running(REQUEST_SECONDS) as address:
            reports.append(_embed_over_http(address))
    report = sorted(reports, key=lambda one: one.seconds)[BUILDS // 2]
    fewest = -(-TEXTS // PER_REQUEST)
    ideal = -(-fewest // IN_FLIGHT) * REQUEST_SECONDS
    return [
        Row(
            "embedding over HTTP",
            f"{ideal / report.seconds:.2f} of the ideal",
            "≥ 0.9",
            ideal / report.seconds >= 0.9,
            f"{TEXTS:,} texts, {IN_FLIGHT} requests in flight, {REQUEST_SECONDS * 1000:.0f} ms"
            f" each: the whole stage took {report.seconds:.2f} s, ideally {ideal:.2f} s;"
            f" the server shares this machine; median of {BUILDS}",
        ),
        Row(
            "requests over HTTP",
            f"{report.requests / fewest:.2f} x the fewest possible",
            "≤ 1.1 x",
            report.requests <= 1.1 * fewest,
            f"{report.requests} requests; {TEXTS:,} texts, at most {PER_REQUEST} in each, need"
            f" {fewest}",
        ),
    ]


def _embed_over_http(address: str) -> EmbedReport:
    settings = EmbeddingSettings()
    assert (settings.texts_per_request, settings.requests_in_flight) == (PER_REQUEST, IN_FLIGHT)
    embedding = (
        '[splitting]\nstrategy = "fixed"\nunit = "characters"\nsize = 400\noverlap = 0\n'
        f'[embedding]\nprovider = "openai"\nmodel = "slow"\nbase_url = "{address}"\n'
        f"dimensions = {DIMENSIONS}\n"
    )
    with opened(embedding) as kb:
        _write_texts(kb.settings.root / "corpus")
        shard, run = kb.settings.shards[0], kb.run()
        read_documents(run, shard, recipe_of(kb.settings.splitting))
        assert chunk_documents(run, shard).chunks == TEXTS
        (report,) = embed_chunks(run, shard)
        assert (report.embedded, report.quarantined) == (TEXTS, 0)
        assert count(kb, space_of(kb)) == TEXTS
        _check_vectors(kb)
    return report


def _check_vectors(kb: KnowledgeBase) -> None:
    """What is stored for a text is what the provider gives for it."""
    table = ".".join(space_of(kb).table)
    with kb.database.transaction() as connection:
        found = connection.execute(
            "select r.title, c.heading_path, c.text, e.vector from kb.chunk c"  # noqa: S608
            " join kb.document_revision r on r.id = c.revision_id"
            f" join {table} e on e.input_hash = c.input_hash where c.ordinal % 50 = 7"
        ).fetchall()
    assert len(found) > TEXTS // 100
    for title, headings, text, vector in found:
        wanted, stored = vector_of(input_text(title, headings, text)), vector.to_numpy()
        lengths = numpy.linalg.norm(wanted) * numpy.linalg.norm(stored)
        assert wanted @ stored > 0.999 * lengths


def _write_texts(folder: Path) -> None:
    """Documents without headings, so that every piece of so many characters is a text."""
    random = numpy.random.default_rng(9)
    letters = numpy.frombuffer(b"abcdefghijklmnopqrst      ", dtype="S1")
    for number in range(TEXTS // 128):
        pieces = random.choice(letters, (128, 400)).astype(str)
        text = "".join("".join(piece[:-1]) + "." for piece in pieces)
        (folder / f"{number:04}.txt").write_text(text)


PARTS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "vectors": ("Storing vectors", vectors_into_the_table),
    "hnsw": ("Building the vector index", hnsw_build),
    "http": ("Embedding over HTTP", embedding_over_http),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    for part in parser.parse_args().parts or PARTS:
        title, measure = PARTS[part]
        record(f"components-{part}", title, measure())


if __name__ == "__main__":
    main()
