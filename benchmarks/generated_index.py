"""A large index made by rule, put into the tables directly: for measuring searches, not loading.

Texts have a vocabulary as natural language has it: frequencies fall as in Zipf's law, and the most
frequent words are the common ones of English, stop words included. Vectors lie around topics. The
lexical and the vector index are built by the project's own code.

One document in ten is of source `tenth`, one in a hundred of `hundredth`, one in a thousand of
`thousandth`, in between those of `rest`; `metadata.share` says the same, so that the same documents
can be asked for by a filter and by row-level security.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import psycopg
from pgvector import HalfVector
from psycopg.types.json import Jsonb

from kb_assets import Answer, KnowledgeBase, Model
from kb_assets.database.bulk import copy_rows
from kb_assets.embeddings.space import Space, ensure_space
from kb_assets.fingerprints import content_hash, input_hash, input_text, slot
from kb_assets.index.lexical import rebuild_source
from kb_assets.index.merge import merge_postings
from kb_assets.index.publish import lock_publishing
from kb_assets.index.vectors import maintain_vector_indexes

SHARES = {"tenth": 10, "hundredth": 100, "thousandth": 1000, "rest": 1}
CHUNKS_PER_DOCUMENT = 4
WORDS_PER_CHUNK = 120
DIMENSIONS = 384
TOPICS = 400
LATENT_DIMENSIONS = 24
VOCABULARY = 200_000
BATCH_DOCUMENTS = 2500

COMMON_WORDS = """
the of and to in a is that for it as was with be by on not he his but at are this have from or
had an they which one you were all her she there would their we him been has when who will no
more if out so up said what its about than into them can only other time new some could these
two may first then do any like my now over such our man me even most made after also did many
must years way well use work make people system data part between water under number long day
place back each different found where through much before line right too mean old see write look
order form
"""
SYLLABLES = """
ba ke li mo nu ra se ti vo zu pha tri lon der mar sel ven kor dis gat
"""


def vocabulary() -> list[str]:
    """Return words, the most frequent first."""
    rng, syllables = numpy.random.default_rng(7), SYLLABLES.split()
    made = dict.fromkeys(COMMON_WORDS.split())
    while len(made) < VOCABULARY:
        lengths = rng.integers(2, 6, size=VOCABULARY)
        picks = rng.integers(0, len(syllables), size=int(lengths.sum()))
        places = numpy.split(picks, numpy.cumsum(lengths)[:-1])
        made |= dict.fromkeys("".join(syllables[i] for i in one) for one in places)
    return list(made)[:VOCABULARY]


class Words:
    """Draws words as they come in natural language."""

    def __init__(self) -> None:
        self.known = numpy.array(vocabulary(), dtype=object)
        weights = 1 / (numpy.arange(VOCABULARY) + 2.7)
        self._sums = numpy.cumsum(weights / weights.sum())

    def draw(self, rng: numpy.random.Generator, count: int) -> numpy.ndarray:
        return self.known[numpy.searchsorted(self._sums, rng.random(count)).clip(0, VOCABULARY - 1)]


@dataclass(frozen=True)
class VectorSpace:
    """Vectors around topics, on a surface of as few dimensions as those of real models lie on.

    (The two-neighbour estimate is about 19 for all-MiniLM-L6-v2 over Cranfield, and here.)
    """

    centres: numpy.ndarray
    projection: numpy.ndarray

    @classmethod
    def made(cls) -> "VectorSpace":
        rng = numpy.random.default_rng(11)
        centres = rng.normal(size=(TOPICS, LATENT_DIMENSIONS))
        return cls(centres, rng.normal(size=(LATENT_DIMENSIONS, DIMENSIONS)))

    def draw(self, rng: numpy.random.Generator, count: int) -> numpy.ndarray:
        chosen = self.centres[rng.integers(0, TOPICS, size=count)]
        other = self.centres[rng.integers(0, TOPICS, size=count)]
        latent = chosen + 0.5 * other + 0.7 * rng.normal(size=(count, LATENT_DIMENSIONS))
        made = latent @ self.projection + 0.5 * rng.normal(size=(count, DIMENSIONS))
        made /= numpy.linalg.norm(made, axis=1, keepdims=True)
        return made.astype(numpy.float32)


class GeneratedEmbedder:
    """Gives every question a vector around a topic, at no cost: embedding is not what is timed."""

    model = Model("benchmarks.generated_index:embedder", "generated", DIMENSIONS)
    usd_per_million_tokens = 0.0

    def __init__(self) -> None:
        self._space = VectorSpace.made()

    def embed(self, texts: Sequence[str]) -> Answer:
        rows = [
            self._space.draw(numpy.random.default_rng(zlib.crc32(text.encode())), 1)
            for text in texts
        ]
        return Answer(numpy.concatenate(rows), 0)


def embedder(_: object) -> GeneratedEmbedder:
    return GeneratedEmbedder()


def open_generated(home: Path) -> KnowledgeBase:
    home.mkdir(parents=True, exist_ok=True)
    sources = "".join(f'[[sources]]\nname = "{name}"\nuri = "."\n' for name in SHARES)
    provider = GeneratedEmbedder.model.provider
    (home / "kb.toml").write_text(f'{sources}[embedding]\nprovider = "{provider}"\n')
    kb = KnowledgeBase.open(home / "kb.toml")
    kb.upgrade()
    return kb


@dataclass(frozen=True)
class _Batch:
    first: int
    texts: list[str]
    vectors: numpy.ndarray


def _batches(chunks: int) -> Iterator[_Batch]:
    words, space, rng = Words(), VectorSpace.made(), numpy.random.default_rng(3)
    size = BATCH_DOCUMENTS * CHUNKS_PER_DOCUMENT
    for first in range(0, chunks, size):
        count = min(size, chunks - first)
        drawn = words.draw(rng, count * WORDS_PER_CHUNK).reshape(count, WORDS_PER_CHUNK)
        yield _Batch(first, [" ".join(row) for row in drawn], space.draw(rng, count))


def source_of(document: int) -> str:
    for name in ("thousandth", "hundredth", "tenth"):
        if document % SHARES[name] == SHARES[name] // 2:
            return name
    return "rest"


def load(kb: KnowledgeBase, chunks: int) -> None:
    """Fill an empty knowledge base, and build both indexes."""
    space = ensure_space(kb.database, GeneratedEmbedder.model, "halfvec")
    with kb.database.transaction() as connection:
        recipe = connection.execute(
            "insert into kb.processing_recipe (fingerprint, settings) values ('\\x00', '{}')"
            " returning id"
        ).fetchone()
        ids = {
            name: connection.execute(
                "insert into kb.source (name, kind, uri) values (%s, 'files', '.') returning id",
                (name,),
            ).fetchone()[0]
            for name in SHARES
        }
    for batch in _batches(chunks):
        _store(kb, space, batch, ids, recipe[0])
    for source_id in ids.values():
        with kb.database.transaction() as connection:
            lock_publishing(connection)
            rebuild_source(connection, source_id, "english")
    merge_postings(kb.database)
    with kb.database.session() as connection:
        connection.execute("analyze")
    maintain_vector_indexes(kb.database)


def _store(
    kb: KnowledgeBase, space: Space, batch: _Batch, ids: dict[str, int], recipe: int
) -> None:
    hashes = [input_hash(input_text(None, (), text)) for text in batch.texts]
    first = batch.first // CHUNKS_PER_DOCUMENT
    documents = range(first, first + -(-len(batch.texts) // CHUNKS_PER_DOCUMENT))
    with kb.database.transaction() as connection:
        _copy(
            connection,
            "document",
            {"id": "int8", "source_id": "int4", "path": "text", "slot": "int2"}
            | {"live_revision_id": "int8"},
            (
                (one + 1, ids[source_of(one)], path_of(one), slot(path_of(one)), one + 1)
                for one in documents
            ),
        )
        _copy(
            connection,
            "document_revision",
            {"id": "int8", "document_id": "int8", "content_hash": "bytea", "recipe_id": "int4"}
            | {"text": "text", "metadata": "jsonb", "media_type": "text", "state": "text"},
            (
                (
                    one + 1,
                    one + 1,
                    content_hash(path_of(one).encode()),
                    recipe,
                    "",
                    Jsonb({"share": source_of(one)}),
                    "text/plain",
                    "chunked",
                )
                for one in documents
            ),
        )
        _copy(
            connection,
            "chunk",
            {"revision_id": "int8", "ordinal": "int4", "source_id": "int4", "input_hash": "bytea"}
            | {"byte_start": "int4", "byte_end": "int4", "token_count": "int4"}
            | {"heading_path": "text[]", "text": "text"},
            (
                (
                    document + 1,
                    ordinal,
                    ids[source_of(document)],
                    hash_,
                    0,
                    len(text),
                    WORDS_PER_CHUNK,
                    [],
                    text,
                )
                for (document, ordinal), hash_, text in zip(
                    (divmod(batch.first + at, CHUNKS_PER_DOCUMENT) for at in range(len(hashes))),
                    hashes,
                    batch.texts,
                    strict=True,
                )
            ),
        )
        vectors = zip(hashes, map(HalfVector, batch.vectors), strict=True)
        columns = ["input_hash", "vector"]
        copy_rows(connection, space.table, columns, ["bytea", "halfvec"], dict(vectors).items())


def _copy(
    connection: psycopg.Connection,
    table: str,
    columns: dict[str, str],
    rows: Iterator[tuple[Any, ...]],
) -> None:
    copy_rows(connection, ("kb", table), list(columns), list(columns.values()), rows)


def path_of(document: int) -> str:
    return f"{document % 97:02}/{document:07}.txt"
