"""Two runs at once: the work is done once, and each text is paid for once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kb_assets.database.connect import DatabaseUrls
from kb_assets.embeddings.space import live_space
from kb_assets.embeddings.store import Call, VectorStore, release_claims
from kb_assets.errors import ProviderRefusedError
from kb_assets.fingerprints import Shard, shards_of
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults import corpus
from tests.faults.conftest import openai_vector
from tests.faults.indexing import IndexingProcess
from tests.faults.shim import Background, wait_until_blocked
from tests.oracle import assert_same_index, assert_sound, repeated, rows_of
from tests.servers.openai_server import Fault, OpenAIServer

TWO = shards_of("notes", 2)


@pytest.fixture
def two_shards(folder: Path) -> list[dict[str, Any]]:
    """The folder as a source of two shards that hold the same twelve texts, and nothing else."""
    texts = [corpus.paragraph("both", number) for number in range(12)]
    sides: list[list[str]] = [[], []]
    number = 0
    while min(map(len, sides)) < 6:
        path = f"{number:03}.txt"
        number += 1
        side = sides[0] if TWO[0].owns(path) else sides[1]
        if len(side) < 6:
            side.append(path)
            mine = texts[2 * (len(side) - 1) : 2 * len(side)]
            (folder / path).write_text(corpus.document(*mine))
    return [{"name": "notes", "uri": str(folder), "shards": 2}]


def index_together(*work: Callable[[], object]) -> list[Background]:
    """Start at the same moment."""
    barrier = threading.Barrier(len(work))

    def started(one: Callable[[], object]) -> object:
        barrier.wait(30)
        return one()

    return [Background(lambda one=one: started(one)) for one in work]


def first_request(server: OpenAIServer) -> None:
    """Wait until a request has arrived."""
    tick = threading.Event()
    for _ in range(6000):
        if server.requests:
            return
        tick.wait(0.01)
    raise AssertionError("no request arrived")


def test_two_runs_on_one_shard_do_the_work_once(
    openai_kb: Callable[..., KnowledgeBase],
    provider: OpenAIServer,
    folder: Path,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    corpus.write(folder, corpus.first(40))
    provider.always = Fault(delay_seconds=0.02)
    one, two = openai_kb(), openai_kb()
    reports = [run.result() for run in index_together(one.index, two.index)]
    published = [report.shards[0].published.published for report in reports]
    assert sum(published) == 40
    assert repeated(provider.answered_texts) == 0
    assert_sound(one, openai_vector)
    new = fresh(one.settings)
    new.index()
    assert_same_index(one, new, corpus.paragraph("own", 3, 1))


def test_a_text_that_two_shards_want_at_once_is_paid_for_once(
    openai_kb: Callable[..., KnowledgeBase],
    provider: OpenAIServer,
    two_shards: list[dict[str, Any]],
) -> None:
    provider.always = Fault(delay_seconds=0.1)
    kbs = [openai_kb(sources=two_shards, texts_per_request=1) for _ in TWO]
    runs = index_together(
        lambda: kbs[0].index((TWO[0],)),
        lambda: kbs[1].index((TWO[1],)),
    )
    reports = [run.result().shards[0] for run in runs]
    assert len(provider.answered_texts) == 12
    assert repeated(provider.answered_texts) == 0
    assert sum(report.embedded[0].embedded for report in reports) == 12
    assert [report.published.published for report in reports] == [6, 6]
    assert_sound(kbs[0], openai_vector)


def test_texts_of_a_killed_run_are_taken_over_by_the_shard_that_waits_for_them(
    openai_kb: Callable[..., KnowledgeBase],
    provider: OpenAIServer,
    two_shards: list[dict[str, Any]],
) -> None:
    provider.script(Fault(delay_seconds=300), Fault(delay_seconds=300))
    kb = openai_kb(sources=two_shards)
    waits = threading.Event()
    run = kb.run(say=lambda _: waits.set())
    with IndexingProcess(kb.settings, shard=TWO[0].key) as victim:
        first_request(provider)
        survivor = Background(lambda: kb.index((TWO[1],), run=run))
        assert waits.wait(60)
        assert survivor.is_alive()
        assert victim.kill()
    report = survivor.result().shards[0]
    assert report.published.published == 6
    assert repeated(provider.answered_texts) == 0

    kb.index((TWO[0],))
    assert_sound(kb, openai_vector)
    assert len(provider.answered_texts) == 12


def test_a_refused_run_gives_its_texts_up_to_the_shard_that_waits_for_them(
    openai_kb: Callable[..., KnowledgeBase],
    provider: OpenAIServer,
    two_shards: list[dict[str, Any]],
) -> None:
    refused, other = (openai_kb(sources=two_shards, requests_in_flight=1) for _ in TWO)
    hold = threading.Event()
    original = provider.standing_fault
    wait_then_refuse = [Fault(status=401, code="invalid_api_key")]

    def refuse_first(request: Any) -> Fault | None:
        if wait_then_refuse:
            fault = wait_then_refuse.pop()
            assert hold.wait(60)
            return fault
        return original(request)

    provider.standing_fault = refuse_first  # type: ignore[method-assign]
    waits = threading.Event()
    failing = Background(lambda: refused.index((TWO[0],)))
    first_request(provider)
    going_on = Background(lambda: other.index((TWO[1],), run=other.run(say=lambda _: waits.set())))
    assert waits.wait(60)
    hold.set()
    with pytest.raises(ProviderRefusedError):
        failing.result()
    assert going_on.result().shards[0].published.published == 6
    assert rows_of(other, "select * from kb.embedding_claim") == []
    assert rows_of(other, "select * from kb.quarantine") == []

    other.index()
    assert_sound(other, openai_vector)
    assert repeated(provider.answered_texts) == 0


LOW, HIGH = b"a" * 32, b"b" * 32


def test_a_text_answered_while_it_is_being_claimed_is_not_asked_for_again(
    openai_kb: Callable[..., KnowledgeBase],
    two_shards: list[dict[str, Any]],
    database_urls: DatabaseUrls,
) -> None:
    kb = openai_kb(sources=two_shards)
    kb.index()
    vector = openai_vector("h")[None, :]
    let_go = "delete from kb.embedding_claim where input_hash = %s returning input_hash"
    with two_stores(kb) as (mine, others), psycopg.connect(database_urls.writer) as holding:
        others.claim([LOW, HIGH])
        holding.execute(let_go, [LOW])
        claiming = Background(lambda: mine.claim([LOW, HIGH]))
        wait_until_blocked(kb)
        others.add([HIGH], vector, Call(1, 1, 0.0, 0.1, "answered"))
        assert rows_of(kb, let_go, HIGH)
        holding.commit()
        assert claiming.result() == {LOW}
        assert mine.answered_elsewhere([LOW, HIGH]) == {HIGH}


def test_claims_of_others_are_not_waited_for(
    openai_kb: Callable[..., KnowledgeBase],
    two_shards: list[dict[str, Any]],
    database_urls: DatabaseUrls,
) -> None:
    kb = openai_kb(sources=two_shards)
    kb.index()
    with two_stores(kb) as (mine, others), psycopg.connect(database_urls.writer) as holding:
        others.claim([HIGH])
        holding.execute("select from kb.embedding_claim for update")
        claiming = Background(lambda: mine.claim([LOW, HIGH]))
        assert claiming.result() == {LOW}


def test_letting_go_of_texts_and_wanting_them_at_once_is_no_deadlock(
    openai_kb: Callable[..., KnowledgeBase],
    two_shards: list[dict[str, Any]],
    database_urls: DatabaseUrls,
) -> None:
    kb = openai_kb(sources=two_shards)
    kb.index()
    lock = "select from kb.embedding_claim where input_hash = %s for update"
    with two_stores(kb) as (mine, others), psycopg.connect(database_urls.writer) as holding:
        others.claim([HIGH])
        others.claim([LOW])
        holding.execute(lock, [LOW])
        release = Background(lambda: release_claims(kb.database, others._lease))
        wait_until_blocked(kb, sessions=1)
        claiming = Background(lambda: mine.claim([LOW, HIGH]))
        wait_until_blocked(kb, sessions=2)
        holding.rollback()
        release.result()
        assert claiming.result() == {HIGH}
        assert mine.claim([LOW]) == {LOW}


@contextmanager
def two_stores(kb: KnowledgeBase) -> Iterator[list[VectorStore]]:
    """Yield a store of vectors for each of two shards that are held."""
    space = live_space(kb.database)
    assert space is not None
    with ExitStack() as stack:
        leases = [stack.enter_context(kb.run().lease(shard)) for shard in TWO]
        yield [VectorStore(kb.database, lease, space, b"same") for lease in leases]


def test_four_shards_with_the_same_texts_index_at_once_without_a_deadlock(
    openai_kb: Callable[..., KnowledgeBase],
    provider: OpenAIServer,
    folder: Path,
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    sources = [{"name": "notes", "uri": str(folder), "shards": 4}]
    settings = openai_kb(sources=sources).settings
    for documents in (corpus.first(80), corpus.second(80), corpus.first(80)):
        corpus.write(folder, documents)
        kbs = [openai_kb(sources=sources) for _ in range(4)]
        runs = index_together(
            *(
                lambda kb=kb, shard=shard: kb.index((shard,))
                for kb, shard in zip(kbs, shards_of("notes", 4), strict=True)
            )
        )
        for run in runs:
            run.result(120)
        kbs[0].index()
        assert_sound(kbs[0], openai_vector)
    assert repeated(provider.answered_texts) == 0
    new = fresh(settings)
    new.index()
    assert_same_index(kbs[0], new, corpus.paragraph("shared", 3))


def test_a_shard_of_the_old_layout_and_one_of_the_new_do_not_work_at_once(
    openai_kb: Callable[..., KnowledgeBase], provider: OpenAIServer, folder: Path
) -> None:
    corpus.write(folder, corpus.first(24))
    provider.always = Fault(delay_seconds=0.02)
    whole = openai_kb()
    halves = openai_kb(sources=[{"name": "notes", "uri": str(folder), "shards": 2}])
    runs = index_together(
        lambda: whole.index((Shard("notes"),)),
        lambda: halves.index((TWO[0],)),
        lambda: halves.index((TWO[1],)),
    )
    for run in runs:
        run.result()
    assert repeated(provider.answered_texts) == 0
    halves.index()
    assert_sound(halves, openai_vector)
