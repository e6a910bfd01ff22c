"""A run that has lost its shard, and does not know it, writes nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest

from kb_assets.chunks.plan import chunk_rows, recipe_of, split_settings
from kb_assets.chunks.stage import chunk_documents
from kb_assets.chunks.store import ChunkStore, unsplit_groups
from kb_assets.database.lease import Lease
from kb_assets.documents.batch import Batch, Refused
from kb_assets.documents.listing import Listed, Listing
from kb_assets.documents.open import open_source
from kb_assets.documents.plan import Candidate
from kb_assets.documents.reading import Reader
from kb_assets.documents.source import Entry
from kb_assets.documents.stage import read_documents
from kb_assets.documents.store import DocumentStore, ensure_recipe
from kb_assets.embeddings.space import live_space
from kb_assets.embeddings.stage import embed_chunks
from kb_assets.embeddings.store import Call, VectorStore
from kb_assets.errors import DocumentError, LeaseLostError, TextRefusedError
from kb_assets.fingerprints import Shard
from kb_assets.index.publish import publish_documents
from kb_assets.knowledge_base import KnowledgeBase
from tests.faults.conftest import hash_vector
from tests.faults.shim import StolenRun, stolen_lease
from tests.oracle import assert_sound, rows_of

NOTES = Shard("notes")
_TABLES = """
select format('%I.%I', schemaname, tablename) from pg_tables
where schemaname in ('kb', 'kb_space') and tablename <> 'shard' order by 1
"""


def contents(kb: KnowledgeBase) -> dict[str, list[str]]:
    """Return every row of every table but the leases."""
    tables = [table for (table,) in rows_of(kb, _TABLES)]
    return {table: sorted(map(repr, rows_of(kb, f"select * from {table}"))) for table in tables}


@pytest.fixture
def kb(knowledge_base: KnowledgeBase, folder: Path) -> KnowledgeBase:
    """Six documents live; one edit, one new document, one deletion and one return wait."""
    for number in range(6):
        (folder / f"{number}.md").write_text(f"# Number {number}\n\nAll about subject{number}.\n")
    knowledge_base.index()
    (folder / "5.md").rename(folder.parent / "5.md")
    run = knowledge_base.run()
    read_documents(run, NOTES, recipe_of(run.settings.splitting))
    (folder / "1.md").write_text("# Number 1\n\nNow about wombats.\n")
    (folder / "2.md").unlink()
    (folder / "6.md").write_text("# Number 6\n\nAll about subject6.\n")
    (folder.parent / "5.md").rename(folder / "5.md")
    return knowledge_base


def read(kb: KnowledgeBase) -> None:
    run = kb.run()
    read_documents(run, NOTES, recipe_of(run.settings.splitting))


def read_and_split(kb: KnowledgeBase) -> None:
    read(kb)
    chunk_documents(kb.run(), NOTES)


def read_split_and_embed(kb: KnowledgeBase) -> None:
    read_and_split(kb)
    embed_chunks(kb.run(), NOTES)


STAGES = {
    "read": (
        lambda kb: None,
        lambda run: read_documents(run, NOTES, recipe_of(run.settings.splitting)),
    ),
    "split": (read, lambda run: chunk_documents(run, NOTES)),
    "embed": (read_and_split, lambda run: embed_chunks(run, NOTES)),
    "publish": (read_split_and_embed, lambda run: publish_documents(run, NOTES)),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_zombie_does_nothing_in_any_stage(kb: KnowledgeBase, stage: str) -> None:
    prepare, work = STAGES[stage]
    prepare(kb)
    before = contents(kb)
    with pytest.raises(LeaseLostError):
        work(StolenRun.of(kb.run()))
    assert contents(kb) == before
    kb.index()
    assert_sound(kb, hash_vector)


@contextmanager
def listed(kb: KnowledgeBase, lease: Lease) -> Iterator[tuple[Batch, Listing]]:
    """Yield what reading the folder comes to, and its listing."""
    source = kb.settings.source("notes")
    recipe_id = ensure_recipe(kb.database, recipe_of(kb.settings.splitting))
    opened = open_source(source, kb.settings.root)
    with (
        kb.database.session() as connection,
        Reader(opened, source, kb.settings.limits, recipe_id) as reader,
    ):
        listing = Listing(connection, NOTES, source_id=lease.source_id)
        with Listed(opened.entries(), NOTES) as entries:
            listing.fill(entries)
        (batch,) = reader.read(listing.to_read(recipe_id, b"", everything=False))
        yield batch, listing


def save_documents(kb: KnowledgeBase, lease: Lease) -> None:
    with listed(kb, lease) as (batch, _):
        assert batch.parsed
        DocumentStore(kb.database, lease, b"").save(batch)


def quarantine_a_document(kb: KnowledgeBase, lease: Lease) -> None:
    candidate = Candidate(Entry("bad.md", None, 0))
    refused = Refused(candidate, None, DocumentError("binary", "It is not text."))
    DocumentStore(kb.database, lease, b"").save(Batch(refused=[refused]))


def welcome_back(kb: KnowledgeBase, lease: Lease) -> None:
    with listed(kb, lease) as (_, listing):
        listing.welcome_back(lease)


def mark_vanished(kb: KnowledgeBase, lease: Lease) -> None:
    ids = [id_ for (id_,) in rows_of(kb, "select id from kb.document")]
    DocumentStore(kb.database, lease, b"").mark_absent(vanished=ids, withheld=())


def mark_missing(kb: KnowledgeBase, lease: Lease) -> None:
    ids = [id_ for (id_,) in rows_of(kb, "select id from kb.document")]
    DocumentStore(kb.database, lease, b"").mark_absent(vanished=(), withheld=ids)


def record_listing(kb: KnowledgeBase, lease: Lease) -> None:
    try:
        DocumentStore(kb.database, lease, b"").record_listing(99, None)
    finally:
        assert rows_of(kb, "select found_documents from kb.shard") != [(99,)]


def save_chunks(kb: KnowledgeBase, lease: Lease) -> None:
    settings = split_settings(kb.settings.splitting)
    recipe = recipe_of(kb.settings.splitting)
    with kb.database.session() as connection:
        (unsplit,) = unsplit_groups(connection, lease, recipe, settings, max_bytes=2**20)
    assert unsplit
    split = [(one, chunk_rows(one.job)) for one in unsplit]
    ChunkStore(kb.database, lease, b"").save(split, [])


def quarantine_a_revision(kb: KnowledgeBase, lease: Lease) -> None:
    settings = split_settings(kb.settings.splitting)
    with kb.database.session() as connection:
        recipe = recipe_of(kb.settings.splitting)
        (unsplit,) = unsplit_groups(connection, lease, recipe, settings, max_bytes=2**20)
    refused = [(one, DocumentError("too_slow", "It took too long.")) for one in unsplit]
    ChunkStore(kb.database, lease, b"").save([], refused)


def vector_store(kb: KnowledgeBase, lease: Lease) -> VectorStore:
    space = live_space(kb.database)
    assert space is not None
    return VectorStore(kb.database, lease, space, b"other conditions")


HASHES = [bytes([number]) * 32 for number in range(3)]


def claim(kb: KnowledgeBase, lease: Lease) -> None:
    vector_store(kb, lease).claim(HASHES)


def add_vectors(kb: KnowledgeBase, lease: Lease) -> None:
    vectors = numpy.stack([hash_vector(str(number)) for number in range(3)])
    vector_store(kb, lease).add(HASHES, vectors, Call(3, 9, 0.0, 0.1, "answered"))


def refuse_texts(kb: KnowledgeBase, lease: Lease) -> None:
    vector_store(kb, lease).refuse([(HASHES[0], TextRefusedError("content", "It is refused."))])


def publish(kb: KnowledgeBase, lease: Lease) -> None:
    from kb_assets.index.publish import _publish_all, _publishable, _Tally

    _, publishable = _publishable(kb.database, lease, "english")
    assert publishable
    _publish_all(kb.run(), lease, publishable, "english", _Tally())


def analyse_all_words(kb: KnowledgeBase, lease: Lease) -> None:
    from kb_assets.index.publish import _make_lexical_current

    _make_lexical_current(kb.run(), lease, "german")


WRITES: list[tuple[Callable[[KnowledgeBase], None], Callable[[KnowledgeBase, Lease], None]]] = [
    (lambda kb: None, save_documents),
    (lambda kb: None, quarantine_a_document),
    (lambda kb: None, welcome_back),
    (lambda kb: None, mark_vanished),
    (lambda kb: None, mark_missing),
    (lambda kb: None, record_listing),
    (read, save_chunks),
    (read, quarantine_a_revision),
    (read_and_split, claim),
    (read_and_split, add_vectors),
    (read_and_split, refuse_texts),
    (read_split_and_embed, publish),
    (read_split_and_embed, analyse_all_words),
]


@pytest.mark.parametrize(("prepare", "write"), WRITES, ids=[write.__name__ for _, write in WRITES])
def test_no_write_of_a_zombie_takes_effect(
    kb: KnowledgeBase,
    prepare: Callable[[KnowledgeBase], None],
    write: Callable[[KnowledgeBase, Lease], None],
) -> None:
    prepare(kb)
    before = contents(kb)
    with stolen_lease(kb.database, NOTES) as lease, pytest.raises(LeaseLostError):
        write(kb, lease)
    assert contents(kb) == before
