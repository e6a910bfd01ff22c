"""The database is lost at any transaction: the run says so, and the next one goes on."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kb_assets.chunks.plan import recipe_of
from kb_assets.chunks.stage import chunk_documents
from kb_assets.database.cluster import Cluster
from kb_assets.database.embedded import leave_embedded, start_embedded
from kb_assets.documents.stage import read_documents
from kb_assets.embeddings.stage import embed_chunks
from kb_assets.errors import DatabaseUnavailableError
from kb_assets.fingerprints import Shard
from kb_assets.index.publish import publish_documents
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults import corpus
from tests.faults.conftest import hash_vector
from tests.faults.shim import FaultyDatabase, Loss, end_other_sessions
from tests.oracle import assert_same_index, assert_sound

NOTES = Shard("notes")
DOCUMENTS = 10


@pytest.fixture
def kb(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> KnowledgeBase:
    for limit in (
        "documents.reading.MAX_BATCH_DOCUMENTS",
        "chunks.store.MAX_REVISIONS",
        "index.publish.MAX_DOCUMENTS",
    ):
        monkeypatch.setattr(f"kb_assets.{limit}", 5)
    embedding = {"texts_per_request": 8, "requests_in_flight": 2}
    opened = open_settings(make_settings(splitting=corpus.SPLITTING, embedding=embedding))
    corpus.write(folder, corpus.first(DOCUMENTS))
    opened.index()
    return opened


def index_with(kb: KnowledgeBase, loss: Loss, at: int) -> tuple[bool, int]:
    """Index with a fault at the n-th transaction; return whether it failed, and how many began."""
    sound = kb.database
    with FaultyDatabase(kb.settings.database_url, loss, at) as faulty:
        kb.__dict__["database"] = faulty
        try:
            kb.index(run=kb.run(confirm_deletes=True))
            return False, faulty.transactions
        except DatabaseUnavailableError:
            return True, faulty.transactions
        finally:
            kb.__dict__["database"] = sound
            kb.close()


@pytest.mark.parametrize("loss", ["after", "during", "beside"])
def test_a_connection_lost_at_any_transaction_is_said_and_the_next_run_completes(
    kb: KnowledgeBase, folder: Path, fresh: Callable[[Settings], KnowledgeBase], loss: Loss
) -> None:
    at = failures = 0
    while True:
        at += 1
        corpus.write(folder, (corpus.second, corpus.first)[at % 2](DOCUMENTS))
        failed, transactions = index_with(kb, loss, at)
        failures += failed
        if at > transactions:
            break
        assert failed or loss == "beside"
        kb.index(run=kb.run(confirm_deletes=True))
        assert_sound(kb, hash_vector)
    assert at > 15
    assert failures >= (2 if loss == "beside" else at - 1)
    new = fresh(kb.settings)
    new.index()
    assert_same_index(kb, new, corpus.paragraph("own", 3, 1))


def test_sessions_that_end_between_the_stages_are_not_noticed(
    kb: KnowledgeBase, folder: Path
) -> None:
    corpus.write(folder, corpus.second(DOCUMENTS))
    run = kb.run(confirm_deletes=True)
    read_documents(run, NOTES, recipe_of(run.settings.splitting))
    end_other_sessions(kb.database, spared=0)
    chunk_documents(run, NOTES)
    end_other_sessions(kb.database, spared=0)
    embed_chunks(run, NOTES)
    end_other_sessions(kb.database, spared=0)
    publish_documents(run, NOTES)
    end_other_sessions(kb.database, spared=0)
    assert kb.search(corpus.paragraph("new", 5, 1))[0].path == "part-1/005.txt"
    assert_sound(kb, hash_vector)


@pytest.fixture
def server_home() -> Iterator[Path]:
    """A folder for a server of the test's own; not below pytest's, where only root may go."""
    home = Path(tempfile.mkdtemp(prefix="kb-restart-"))
    home.chmod(0o711)
    yield home
    leave_embedded(home)
    shutil.rmtree(home, ignore_errors=True)


def test_a_server_that_is_restarted_between_the_stages_is_not_noticed(
    make_settings: Callable[..., Settings], folder: Path, server_home: Path
) -> None:
    corpus.write(folder, corpus.first(DOCUMENTS))
    start_embedded(server_home)

    def restart() -> None:
        Cluster(server_home / "postgres", 16).stop()
        start_embedded(server_home)

    given = make_settings(splitting=corpus.SPLITTING)
    own = {"database_url": "", "read_database_url": "", "migration_database_url": ""}
    with KnowledgeBase(given.model_copy(update={**own, "home": server_home})) as kb:
        kb.upgrade()
        run = kb.run()
        read_documents(run, NOTES, recipe_of(run.settings.splitting))
        restart()
        chunk_documents(run, NOTES)
        embed_chunks(run, NOTES)
        restart()
        publish_documents(run, NOTES)
        restart()
        kb.index()
        assert_sound(kb, hash_vector)
        assert kb.search(corpus.paragraph("own", 5, 1))[0].path == "part-1/005.txt"
