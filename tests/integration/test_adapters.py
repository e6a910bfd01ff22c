"""The knowledge base inside LangChain, LlamaIndex and DuckDB: the real packages."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableLambda
from llama_index.core.schema import MetadataMode, QueryBundle
from pydantic import ValidationError

from kb_assets.adapters import langchain, llamaindex
from kb_assets.database.connect import Database
from kb_assets.errors import ProviderUnavailableError, SettingsError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.arrow import SCHEMA
from kb_assets.retrieval.conditions import Comparison
from kb_assets.settings import CallerSettings, Settings
from tests.servers.openai_server import OpenAIServer

HERONS = """---
title: Of herons
tags: [birds, water]
path: an own path
score: 7
year: 2024
---
# Herons

Herons stand in shallow water.

## What they eat

Herons eat fish, and wait for them.
"""
Found = list[tuple[str, str, float, dict[str, Any]]]
"""Id, text, score and metadata of what was found, whichever framework found it."""


@pytest.fixture
def filled(
    folder: Path, make_settings: Callable[..., Settings], database_urls: object
) -> Iterator[KnowledgeBase]:
    (folder / "water").mkdir()
    (folder / "water/herons.md").write_text(HERONS)
    (folder / "owls.md").write_text("---\ntags: [birds, night]\n---\n# Owls\n\nOwls eat mice.\n")
    (folder / "secret.md").write_text("---\ntags: secret\n---\nHerons and owls eat secretly.\n")
    callers = (CallerSettings(name="guest", tags=("birds",)),)
    with KnowledgeBase(make_settings(callers=callers)) as kb:
        kb.index()
        yield kb


def by_langchain(kb: KnowledgeBase, question: str, **chosen: Any) -> Found:
    retriever = langchain.KnowledgeBaseRetriever(knowledge_base=kb, **chosen)
    return [
        (
            document.id or "",
            document.page_content,
            document.metadata["score"],
            {name: value for name, value in document.metadata.items() if name != "score"},
        )
        for document in retriever.invoke(question)
    ]


def by_llamaindex(kb: KnowledgeBase, question: str, **chosen: Any) -> Found:
    retriever = llamaindex.KnowledgeBaseRetriever(kb, **chosen)
    return [
        (found.node.node_id, found.node.get_content(), found.get_score(), found.node.metadata)
        for found in retriever.retrieve(question)
    ]


either = pytest.mark.parametrize("find", [by_langchain, by_llamaindex])


@either
def test_passages_are_those_of_a_search(filled: KnowledgeBase, find: Callable[..., Found]) -> None:
    hits = filled.search("what do herons eat?")
    found = find(filled, "what do herons eat?")
    assert [(text, score) for _, text, score, _ in found] == [(hit.text, hit.score) for hit in hits]
    place, _, _, metadata = next(one for one in found if one[3]["path"] == "water/herons.md")
    hit = next(hit for hit in hits if hit.path == "water/herons.md")
    assert place == f"notes:water/herons.md#{hit.revision_id}:{hit.ordinal}-{hit.last_ordinal}"
    assert metadata == {
        "source": "notes",
        "path": "water/herons.md",
        "title": "Of herons",
        "heading_path": list(hit.heading_path),
        "byte_start": hit.byte_start,
        "byte_end": hit.byte_end,
        "tags": ["birds", "water"],
        "revision_id": hit.revision_id,
        "ordinal": hit.ordinal,
        "last_ordinal": hit.last_ordinal,
        "metadata": hit.metadata,
    }
    own = metadata["metadata"]
    assert (own["path"], own["score"], own["year"]) == ("an own path", 7, 2024)
    assert json.loads(json.dumps(metadata)) == metadata


@either
def test_ids_change_only_with_the_document(
    filled: KnowledgeBase, find: Callable[..., Found], folder: Path, an_hour_later: None
) -> None:
    def ids() -> dict[str, str]:
        return {metadata["path"]: id_ for id_, _, _, metadata in find(filled, "owls and herons")}

    before = ids()
    assert len(set(before.values())) == 3
    (folder / "owls.md").write_text("Owls and others are quiet.\n")
    filled.index()
    after = ids()
    assert after.pop("owls.md") != before.pop("owls.md")
    assert after == before


@either
def test_everything_that_narrows_a_search(
    filled: KnowledgeBase, find: Callable[..., Found]
) -> None:
    def paths(**chosen: Any) -> list[str]:
        return sorted(found[3]["path"] for found in find(filled, "herons eat", **chosen))

    assert set(paths()) == {"owls.md", "secret.md", "water/herons.md"}
    assert len(paths(limit=1)) == 1
    assert set(paths(tags=("birds", "water"))) == {"water/herons.md"}
    assert set(paths(metadata={"year": 2024})) == {"water/herons.md"}
    assert set(paths(path_prefix="water/")) == {"water/herons.md"}
    assert paths(where='tags has "night"') == ["owls.md"]
    assert paths(where={"field": "path", "operator": "=", "value": "owls.md"}) == ["owls.md"]
    assert paths(where=Comparison("tags", "has", "night")) == ["owls.md"]
    assert set(paths(caller="guest")) == {"owls.md", "water/herons.md"}
    assert paths(mode="lexical", where='tags has "secret"', min_score=0.01) == ["secret.md"]
    assert paths(per_document=1).count("water/herons.md") == 1
    assert paths(min_score=10) == []
    assert paths(where="metadata.year > 2024") == []
    assert set(paths(sources=("notes",))) == set(paths())


@either
def test_what_cannot_be_searched_for_is_refused(
    filled: KnowledgeBase, find: Callable[..., Found]
) -> None:
    for chosen in ({"sources": ("nowhere",)}, {"limit": 0}, {"where": "a ="}, {"caller": "nobody"}):
        with pytest.raises(SettingsError):
            find(filled, "herons", **chosen)
    with pytest.raises(SettingsError, match="nothing to search for"):
        find(filled, " ")
    # An option with a slip in its name must not be dropped: it might be the caller.
    with pytest.raises((TypeError, ValidationError)):
        find(filled, "herons", caler="guest")


@either
def test_what_is_missing_is_logged(
    make_settings: Callable[..., Settings],
    folder: Path,
    find: Callable[..., Found],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    (folder / "owls.md").write_text("Owls eat mice.")
    with OpenAIServer() as server:
        embedding = {"provider": "openai", "base_url": server.base_url, "model": "m", "retries": 0}
        embedding["dimensions"] = 64
        kb = KnowledgeBase(make_settings(embedding=embedding))
        kb.index()
    with kb:
        assert [text for _, text, _, _ in find(kb, "owls")] == ["Owls eat mice."]
        assert "found by words alone" in caplog.text
        with pytest.raises(ProviderUnavailableError):
            find(kb, "owls", mode="vector")


def test_a_langchain_chain(filled: KnowledgeBase) -> None:
    def together(documents: list[Document]) -> str:
        return " / ".join(document.metadata["path"] for document in documents)

    retriever = langchain.KnowledgeBaseRetriever(
        knowledge_base=filled, limit=1, tags=["birds"], mode="lexical"
    )
    chain = retriever | RunnableLambda(together)
    assert chain.invoke("do owls eat mice?") == "owls.md"
    questions = ["herons in water", "owls and mice"] * 4
    assert chain.batch(questions) == ["water/herons.md", "owls.md"] * 4
    assert asyncio.run(chain.ainvoke("herons in water")) == "water/herons.md"
    assert chain.invoke("unheard-of") == ""
    more = retriever.configurable_fields(limit=ConfigurableField(id="limit"))
    assert len(more.invoke("herons or owls", {"configurable": {"limit": 2}})) == 2
    labelled = retriever.with_config(tags=["a label"], metadata={"run": 1})
    assert len(labelled.invoke("do owls eat mice?")) == 1


def test_many_threads_start_with_one_set_of_connections(
    make_settings: Callable[..., Settings], database: Database
) -> None:
    opened = "select count(*) from pg_stat_activity where application_name = 'kb_assets search'"
    kb = KnowledgeBase(make_settings())
    kb.index()
    kb.close()
    retriever = langchain.KnowledgeBaseRetriever(knowledge_base=kb)
    assert retriever.batch(["owls"] * 8) == [[]] * 8
    kb.close()
    with database.transaction() as connection:
        for _ in range(50):
            (left,) = connection.execute(opened + " and datname = current_database()").fetchone()
            if not left:
                break
            time.sleep(0.1)
    assert left == 0


def test_a_llamaindex_query(filled: KnowledgeBase) -> None:
    retriever = llamaindex.KnowledgeBaseRetriever(filled, limit=1, mode="lexical", tags=("birds",))
    assert retriever.retrieve("unheard-of") == []
    (found,) = retriever.retrieve(QueryBundle("do owls eat mice?"))
    assert found.node.metadata["path"] == "owls.md"
    (same,) = asyncio.run(retriever.aretrieve("do owls eat mice?"))
    assert (same.node_id, same.score) == (found.node_id, found.score)
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        read = found.node.get_content(metadata_mode=mode)
        assert "owls.md" in read
        assert "Owls eat mice." in read
        assert "byte_start" not in read
        assert "revision_id" not in read


def test_hits_as_an_arrow_table(filled: KnowledgeBase) -> None:
    results = filled.search("what do herons eat?")
    table = results.to_arrow()
    assert table.schema == SCHEMA
    table.validate(full=True)
    rows = table.to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, len(results) + 1))
    for row, hit in zip(rows, results, strict=True):
        for name in set(SCHEMA.names) - {"rank", "metadata", "heading_path", "tags"}:
            assert row[name] == getattr(hit, name), name
        assert row["heading_path"] == list(hit.heading_path)
        assert row["tags"] == list(hit.tags)
        assert json.loads(row["metadata"]) == hit.metadata
    assert any(row["metadata"] != "{}" for row in rows)
    words = filled.search("herons", mode="lexical").to_arrow()
    assert words.column("vector_score").null_count == len(words) > 0
    assert words.column("lexical_score").null_count == 0


def test_duckdb_queries_hits(filled: KnowledgeBase) -> None:
    hits = filled.search("what do herons eat?").to_arrow()
    rows = duckdb.sql(
        "select path, (metadata->>'year')::int, score from hits "
        "where list_contains(tags, 'water') order by rank limit 1"
    ).fetchall()
    best = next(hit for hit in filled.search("what do herons eat?") if "water" in hit.tags)
    assert rows == [("water/herons.md", 2024, best.score)]
    assert hits.num_rows >= 3


def test_no_hits_are_an_empty_table(filled: KnowledgeBase) -> None:
    nothing = filled.search("unheard-of", mode="lexical").to_arrow()
    assert nothing.num_rows == 0
    assert nothing.schema == SCHEMA
    assert duckdb.sql("select count(*), max(score) from nothing").fetchall() == [(0, None)]
    some = filled.search("herons", mode="lexical").to_arrow()
    assert pyarrow.concat_tables([nothing, some]).num_rows == some.num_rows > 0
