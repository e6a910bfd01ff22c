"""kill -9 at any moment of an update: the next run goes on, and pays for almost nothing twice."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kb_assets.database.connect import DatabaseUrls
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults import corpus
from tests.faults.conftest import ServerProcess, openai_settings, openai_vector
from tests.faults.indexing import IndexingProcess
from tests.oracle import assert_same_index, assert_sound, repeated

DOCUMENTS = 160
SEED = int(os.environ.get("KB_FAULT_SEED", "20"))
IN_FLIGHT, TEXTS = 2, 4
BATCH = 20

WAITING = "select count(*) from kb.document where pending_revision_id is not null"
CHUNKED = "select count(*) from kb.document d join kb.document_revision r on"
CHUNKED += " r.id = d.pending_revision_id and r.state = 'chunked'"
REPLACED = "select count(*) from kb.document d where d.live_revision_id > %(before)s"
LAST_REVISION = "select max(id) from kb.document_revision"


@pytest.fixture
def server(provider_process: Callable[..., ServerProcess]) -> ServerProcess:
    return provider_process(delay_seconds=0.025)


@pytest.fixture
def settings(make_settings: Callable[..., Settings], server: ServerProcess) -> Settings:
    section = openai_settings(
        server.base_url, requests_in_flight=IN_FLIGHT, texts_per_request=TEXTS
    )
    return make_settings(splitting=corpus.SPLITTING, embedding=section)


@pytest.fixture
def updated(
    settings: Settings, folder: Path, open_settings: Callable[[Settings], KnowledgeBase]
) -> KnowledgeBase:
    """A knowledge base that has indexed the first corpus; the second lies in the folder."""
    kb = open_settings(settings)
    corpus.write(folder, corpus.first(DOCUMENTS))
    kb.index()
    corpus.write(folder, corpus.second(DOCUMENTS))
    return kb


@pytest.fixture
def count(database_urls: DatabaseUrls) -> Iterator[Callable[..., int]]:
    """Count rows, from beside."""
    with psycopg.connect(database_urls.writer, autocommit=True) as connection:

        def counted(query: str, **named: Any) -> int:
            row = connection.execute(query, named).fetchone()
            assert row is not None
            return int(row[0] or 0)

        yield counted


def moments(
    rng: random.Random, server: ServerProcess, count: Callable[..., int]
) -> Iterator[Callable[[], bool]]:
    """Yield when to kill: while reading, splitting, embedding, and publishing."""
    before = count(LAST_REVISION)
    for least in (1, rng.randint(BATCH + 1, 3 * BATCH)):
        yield lambda least=least: count(WAITING) >= least
    for least in (1, rng.randint(BATCH + 1, 4 * BATCH)):
        yield lambda least=least: count(CHUNKED) >= least
    for _ in range(7):
        reached = server.received() + rng.randint(3, 9)
        yield lambda reached=reached: server.received() >= reached and rng.random() < 0.1
    for least in (1, 2 * BATCH):
        yield lambda least=least: count(REPLACED, before=before) >= least


def test_a_run_killed_again_and_again_ends_as_if_it_had_never_been(
    updated: KnowledgeBase,
    settings: Settings,
    server: ServerProcess,
    count: Callable[..., int],
    fresh: Callable[[Settings], KnowledgeBase],
) -> None:
    kills = 0
    assert repeated(server.sent_texts) == 0
    for reached in moments(random.Random(SEED), server, count):
        with IndexingProcess(settings, batch=BATCH) as process:
            assert process.wait_for_line() == "opened"
            kills += process.kill_when(reached)
        assert repeated(server.sent_texts) <= kills * IN_FLIGHT * TEXTS
    assert kills >= 10

    updated.index()
    assert_sound(updated, openai_vector)
    assert repeated(server.sent_texts) <= kills * IN_FLIGHT * TEXTS
    paid = len(server.requests)
    report = updated.index()
    assert len(server.requests) == paid
    assert report.shards[0].published.replaced == report.shards[0].published.published == 0

    new = fresh(settings)
    new.index()
    assert_same_index(updated, new, corpus.paragraph("shared", 3), corpus.paragraph("new", 5, 1))


def test_a_run_that_is_not_killed_sends_no_text_twice(
    updated: KnowledgeBase, settings: Settings, server: ServerProcess
) -> None:
    with IndexingProcess(settings, batch=BATCH) as process:
        process.finish()
    assert repeated(server.sent_texts) == 0
    assert_sound(updated, openai_vector)


def test_the_kb_command_goes_on_where_it_was_killed(
    updated: KnowledgeBase,
    settings: Settings,
    server: ServerProcess,
    folder: Path,
    database_urls: DatabaseUrls,
) -> None:
    config = folder.parent / "killed" / "kb.toml"
    config.parent.mkdir()
    embedding = "\n".join(
        f"{key} = {str(value) if isinstance(value, int) else repr(value)}"
        for key, value in openai_settings(server.base_url).items()
    )
    splitting = "\n".join(f"{key} = {value!r}" for key, value in corpus.SPLITTING.items())
    config.write_text(
        f"[[sources]]\nname = 'notes'\nuri = '{folder}'\n"
        f"[splitting]\n{splitting}\n[embedding]\n{embedding}\n"
    )
    command = [sys.executable, "-m", "kb_assets.cli", "index", "--config", str(config)]
    urls = {
        "KB_DATABASE_URL": settings.database_url,
        "KB_READ_DATABASE_URL": settings.read_database_url,
        "KB_MIGRATION_DATABASE_URL": settings.migration_database_url,
        "KB_DAGSTER_DATABASE_URL": database_urls.dagster,
    }
    reached = server.received() + 6
    with IndexingProcess(settings, command=command, environment=urls) as process:
        assert process.kill_when(lambda: server.received() >= reached)
    assert not updated.status().is_settled
    with IndexingProcess(settings, command=command, environment=urls) as process:
        process.finish()
    assert repeated(server.sent_texts) <= IN_FLIGHT * TEXTS
    assert_sound(updated, openai_vector)
