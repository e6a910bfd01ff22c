"""How vectors get into PostgreSQL, and what embedding does when there is nothing to embed."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import psycopg
import pytest

from kb_assets.database.connect import Database
from kb_assets.embeddings.embedder import Model, Vectors
from kb_assets.embeddings.space import Space, ensure_space
from kb_assets.embeddings.stage import embed_chunks
from kb_assets.embeddings.store import Call, VectorStore
from kb_assets.errors import TextRefusedError
from kb_assets.fingerprints import Shard
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.oracle import rows_of, vectors_of

NOTES = Shard("notes")
CONDITIONS = b"same"


def hashes(count: int) -> list[bytes]:
    return [hashlib.sha256(bytes([number])).digest() for number in range(count)]


def vectors(count: int) -> Vectors:
    drawn = numpy.random.default_rng(1).standard_normal((count, 5))
    return drawn.astype(numpy.float32)


def call(texts: int) -> Call:
    return Call(texts, 10 * texts, 0.125 * texts, 0.5, "answered")


@pytest.fixture
def kb(knowledge_base: KnowledgeBase, folder: Path) -> KnowledgeBase:
    (folder / "one.md").write_text("# One\n\nAll about one.\n")
    knowledge_base.index()
    return knowledge_base


@contextmanager
def store(kb: KnowledgeBase, precision: Any = "halfvec") -> Iterator[tuple[VectorStore, Space]]:
    """A store of vectors of five dimensions, in a space of its own."""
    space = ensure_space(kb.database, Model("test", "five", 5), precision)
    with kb.run().lease(NOTES) as lease:
        yield VectorStore(kb.database, lease, space, CONDITIONS), space


@pytest.mark.parametrize("precision", ["halfvec", "vector"])
def test_vectors_are_stored_as_they_are(kb: KnowledgeBase, precision: str) -> None:
    with store(kb, precision) as (mine, space):
        mine.add(hashes(9), vectors(9), call(9))
    stored = vectors_of(kb, space)
    expected = vectors(9).astype("f2" if precision == "halfvec" else "f4")
    assert stored.keys() == set(hashes(9))
    for hash_, vector in zip(hashes(9), expected, strict=True):
        numpy.testing.assert_array_equal(stored[hash_], vector)


def test_vectors_that_somebody_else_has_stored_are_kept(kb: KnowledgeBase) -> None:
    with store(kb) as (mine, space):
        mine.add(hashes(2), vectors(2), call(2))
        mine.add(hashes(4), -vectors(4), call(4))
    stored = vectors_of(kb, space)
    assert len(stored) == 4
    for place, sign in enumerate((1, 1, -1, -1)):
        expected = sign * vectors(4)[place].astype("f2")
        numpy.testing.assert_array_equal(stored[hashes(4)[place]], expected)
    texts = rows_of(kb, "select texts from kb.embedding_call where space_id = %s", space.id)
    assert sorted(texts) == [(2,), (4,)]


def test_each_request_of_several_that_are_stored_at_once_is_written_down(
    kb: KnowledgeBase,
) -> None:
    with store(kb) as (mine, space):
        mine.add(hashes(3), vectors(3), call(2), call(1), call(0))
    columns = "texts, tokens, cost_usd::float8, seconds, outcome"
    query = f"select {columns} from kb.embedding_call where space_id = %s order by texts"
    assert rows_of(kb, query, space.id) == [
        (0, 0, 0.0, 0.5, "answered"),
        (1, 10, 0.125, 0.5, "answered"),
        (2, 20, 0.25, 0.5, "answered"),
    ]


def test_an_answer_without_a_usable_row_is_written_down(kb: KnowledgeBase) -> None:
    with store(kb) as (mine, space):
        mine.add([], vectors(0), call(0))
    assert vectors_of(kb, space) == {}
    assert len(rows_of(kb, "select 1 from kb.embedding_call where space_id = %s", space.id)) == 1


def test_a_text_that_is_embedded_after_all_leaves_the_quarantine(kb: KnowledgeBase) -> None:
    refused, answered = hashes(2)
    with store(kb) as (mine, _):
        for hash_ in (refused, answered):
            mine.refuse([(hash_, TextRefusedError("content", "It is refused."))])
        mine.add([answered], vectors(1), call(1))
    assert rows_of(kb, "select content_hash from kb.quarantine") == [(refused,)]


class CountingDatabase(Database):
    """The writer's database, which counts what it is asked for."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.transactions = self.sessions = 0

    @contextmanager
    def transaction(self, **named: float) -> Iterator[psycopg.Connection]:
        self.transactions += 1
        with super().transaction(**named) as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        self.sessions += 1
        with super().session() as connection:
            yield connection


def test_when_nothing_waits_one_question_is_asked_and_nothing_is_written(
    kb: KnowledgeBase,
) -> None:
    everything = "select h.xmin::text, s.xmin::text, h.*, s.* from kb.shard h, kb.embedding_space s"
    before = rows_of(kb, everything)
    with CountingDatabase(kb.settings.database_url) as counting:
        kb.__dict__["database"].close()
        kb.__dict__["database"] = counting
        (report,) = embed_chunks(kb.run(), NOTES)
        assert (counting.transactions, counting.sessions) == (1, 0)
        assert rows_of(kb, everything) == before
    assert (report.texts, report.had, report.embedded) == (0, 0, 0)


def test_the_first_space_is_made_though_nothing_waits(knowledge_base: KnowledgeBase) -> None:
    knowledge_base.index()
    assert rows_of(knowledge_base, "select state from kb.embedding_space") == [("live",)]


def test_claims_that_a_dead_run_left_behind_are_dropped_though_nothing_waits(
    kb: KnowledgeBase,
) -> None:
    left = "insert into kb.embedding_claim (space_id, input_hash, shard_id, fence)"
    left += " select s.id, %s, h.id, h.fence from kb.embedding_space s, kb.shard h returning 1"
    assert rows_of(kb, left, hashes(1)[0]) == [(1,)]
    kb.index()
    assert rows_of(kb, "select * from kb.embedding_claim") == []


def test_a_text_that_is_had_already_is_counted_and_not_asked_for(
    kb: KnowledgeBase, folder: Path
) -> None:
    (folder / "two.md").write_text("# One\n\nAll about one.\n")
    (folder / "three.md").write_text("# Three\n\nAll about three.\n")
    (report,) = kb.index().shards[0].embedded
    assert (report.texts, report.had, report.embedded, report.requests) == (2, 1, 1, 1)


def test_texts_of_several_windows_are_each_embedded_once(
    make_settings: Callable[..., Settings], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb_assets.embeddings.stage.MAX_WINDOW_TEXTS", 7)
    for number in range(30):
        (folder / f"{number}.md").write_text(f"# Number {number}\n\nAll about subject{number}.\n")
    embedding = {"texts_per_request": 2, "requests_in_flight": 2}
    with KnowledgeBase(make_settings(embedding=embedding)) as kb:
        (report,) = kb.index().shards[0].embedded
        assert (report.texts, report.embedded) == (30, 30)
        # Windows of 4, 7, 7, 7 and 5.
        assert report.requests == 2 + 4 + 4 + 4 + 3
        counted = rows_of(kb, "select count(*), sum(texts) from kb.embedding_call")
        assert counted == [(report.requests, 30)]
