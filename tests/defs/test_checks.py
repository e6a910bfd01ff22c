"""Each check is green after a run, and red when what it asserts is not so."""

import secrets

import dagster as dg
import psycopg
import pytest

from kb_assets import KnowledgeBase
from kb_assets.chunks.plan import recipe_of
from kb_assets.chunks.stage import chunk_documents
from kb_assets.database.lease import shard_lease
from kb_assets.documents.stage import read_documents
from kb_assets.embeddings.space import live_space
from kb_assets.embeddings.stage import embed_chunks
from tests.defs.conftest import evaluate, evaluate_all, write_documents


@pytest.fixture
def indexed(kb: KnowledgeBase) -> KnowledgeBase:
    kb.index()
    return kb


def table(kb: KnowledgeBase) -> str:
    space = live_space(kb.database)
    assert space is not None
    return ".".join(space.table)


def execute(kb: KnowledgeBase, statement: str) -> None:
    with psycopg.connect(kb.urls.migrator, autocommit=True) as connection:
        connection.execute(statement.encode())


ALL = [
    ("raw_documents", "no_document_vanished_by_accident"),
    ("chunk_embeddings", "vectors_are_sound"),
    ("published_documents", "every_document_is_accounted_for"),
    ("published_documents", "every_chunk_is_embedded"),
    ("chunk_embeddings", "new_space_is_filled"),
    ("vector_index", "index_is_valid"),
]


def test_green_after_a_run(indexed: KnowledgeBase) -> None:
    assert all(one.passed for one in evaluate_all(indexed, *ALL).values())


def test_before_the_first_run_only_the_account_is_open(kb: KnowledgeBase) -> None:
    red = {name for name, one in evaluate_all(kb, *ALL).items() if not one.passed}

    assert red == {"every_document_is_accounted_for"}


def test_documents_the_guard_withholds_are_red_until_confirmed(indexed: KnowledgeBase) -> None:
    for file in (indexed.settings.root / "wiki").glob("*.md"):
        file.unlink()
    indexed.index()

    red = evaluate(indexed, "raw_documents", "no_document_vanished_by_accident")
    indexed.index(run=indexed.run(confirm_deletes=True))
    green = evaluate(indexed, "raw_documents", "no_document_vanished_by_accident")

    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.ERROR
    assert not red.blocking
    assert red.metadata["withheld"].value == 12
    assert "--confirm-deletes" in (red.description or "")
    assert green.passed


def test_a_document_that_waits_is_not_accounted_for(indexed: KnowledgeBase) -> None:
    (indexed.settings.root / "wiki" / "new.md").write_text("# New\n\nNot published yet.\n")
    for shard in indexed.settings.shards:
        read_documents(indexed.run(), shard, recipe_of(indexed.settings.splitting))

    red = evaluate(indexed, "published_documents", "every_document_is_accounted_for")

    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.ERROR


def test_a_document_that_was_lost_is_not_accounted_for(indexed: KnowledgeBase) -> None:
    execute(indexed, "delete from kb.document where path = 'document-3.md'")

    assert not evaluate(indexed, "published_documents", "every_document_is_accounted_for").passed


def test_a_live_text_without_a_vector_is_red(indexed: KnowledgeBase) -> None:
    execute(indexed, f"delete from {table(indexed)}")

    red = evaluate(indexed, "published_documents", "every_chunk_is_embedded")

    assert not red.passed
    assert red.metadata["missing"].value > 0


def test_a_zero_vector_that_is_live_is_red_and_does_not_block(indexed: KnowledgeBase) -> None:
    zero = "[" + ",".join(["0"] * 384) + "]"
    execute(indexed, f"update {table(indexed)} set vector = '{zero}'")

    red = evaluate(indexed, "chunk_embeddings", "vectors_are_sound")

    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.WARN


def test_a_zero_vector_about_to_be_published_blocks(indexed: KnowledgeBase) -> None:
    write_documents(indexed.settings.root / "wiki", 14, words="new things")
    run = indexed.run(verify=True)
    for shard in indexed.settings.shards:
        read_documents(run, shard, recipe_of(indexed.settings.splitting))
        chunk_documents(run, shard)
        embed_chunks(run, shard)
    zero = "[" + ",".join(["0"] * 384) + "]"
    execute(indexed, f"update {table(indexed)} set vector = '{zero}'")

    red = evaluate(indexed, "chunk_embeddings", "vectors_are_sound")

    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.ERROR
    assert red.blocking


def test_a_missing_index_is_red(indexed: KnowledgeBase) -> None:
    execute(indexed, f"drop index {table(indexed)}_hnsw")

    red = evaluate(indexed, "vector_index", "index_is_valid")

    assert not red.passed
    assert red.metadata["usable"].value is False


def test_an_index_that_finds_nothing_is_red(
    indexed: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb_assets.index.checks._search_for_some", lambda *_: (20, 3))

    assert not evaluate(indexed, "vector_index", "index_is_valid").passed


def test_a_check_counts_the_shards_of_its_run(indexed: KnowledgeBase) -> None:
    execute(indexed, "delete from kb.document where path = 'document-3.md'")
    (lost,) = [shard.key for shard in indexed.settings.shards if shard.owns("document-3.md")]

    verdicts = {
        shard.key: evaluate(
            indexed,
            "published_documents",
            "every_document_is_accounted_for",
            dagster_partition=shard.key,
        ).passed
        for shard in indexed.settings.shards
    }

    assert verdicts == {shard.key: shard.key != lost for shard in indexed.settings.shards}


def test_a_check_leaves_out_shards_another_run_works_on(indexed: KnowledgeBase) -> None:
    execute(indexed, "delete from kb.document where path = 'document-3.md'")
    (lost,) = [shard for shard in indexed.settings.shards if shard.owns("document-3.md")]

    with shard_lease(indexed.database, lost, run_id=secrets.token_hex(4), wait_seconds=0):
        green = evaluate(indexed, "published_documents", "every_document_is_accounted_for")
    red = evaluate(indexed, "published_documents", "every_document_is_accounted_for")

    assert green.passed
    assert lost.key not in green.metadata["shards"].value
    assert not red.passed
