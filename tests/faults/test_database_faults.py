"""The database is lost at any transaction of an update: the run says so, and the next one goes on."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from kb_assets.chunks.plan import recipe_of
from kb_assets.chunks.stage import chunk_documents
from kb_assets.database.cluster import ServerAddress
from kb_assets.database.connect import Database
from kb_assets.documents.stage import read_documents
from kb_assets.embeddings.stage import embed_chunks
from kb_assets.errors import DatabaseUnavailableError, KbError
from kb_assets.fingerprints import Shard
from kb_assets.index.publish import publish_documents
from kb_assets.index.vectors import maintain_vector_indexes
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults import corpus
from tests.faults.conftest import hash_vector
from tests.faults.indexing import make_batches_small
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
        "chunks.stage.MAX_BATCH_REVISIONS",
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
    assert failures >= (3 if loss == "beside" else at - 1)
    new = fresh(kb.settings)
    new.index()
    assert_same_index(kb, new, corpus.paragraph("own", 3, 1))
