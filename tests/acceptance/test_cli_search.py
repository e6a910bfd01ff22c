"""`kb search` and `kb explain`, as they are typed."""

import re

import pytest

from tests.acceptance.command_line import CommandLine, write


@pytest.fixture
def filled(kb: CommandLine) -> CommandLine:
    """An indexed knowledge base with public and other documents, and two callers."""
    public = "---\ntags: [public]\nyear: 2024\n---\n"
    write(
        kb.folder / "documents",
        gulls=f"{public}# Gulls\n\nGulls follow boats and eat fish.",
        terns="---\ntags: [secret]\n---\n# Terns\n\nTerns dive for fish near \x1b[31mboats.",
    )
    config = kb.folder / "kb.toml"
    config.write_text(
        config.read_text() + '\n[[callers]]\nname = "guest"\ntags = ["public"]\n', encoding="utf-8"
    )
    kb.must("index")
    return kb


def paths(document: dict) -> list[str]:
    return [hit["path"] for hit in document["hits"]]


def test_json_says_how_hits_were_found(filled: CommandLine) -> None:
    found = filled.must("search", "boats and fish", "--limit", "2")
    assert set(paths(found)) == {"gulls.md", "terns.md"}
    assert (found["mode"], found["provider"], found["notes"]) == ("hybrid", "hash", [])
    assert {"embed", "vector", "lexical", "fetch", "total"} <= set(found["seconds"])
    assert all(hit["lexical_score"] > 0 and hit["vector_score"] > 0 for hit in found["hits"])


def test_modes_and_bounds(filled: CommandLine) -> None:
    assert paths(filled.must("search", "turn their heads", "--mode", "lexical")) == ["owls.md"]
    only = filled.must("search", "turn their heads", "--mode", "vector", "--limit", "3")
    assert len(only["hits"]) == 3
    assert only["hits"][0]["lexical_score"] is None
    assert filled.must("search", "fish", "--min-score", "0.99")["hits"] == []
    assert len(paths(filled.must("search", "fish", "--per-document", "1"))) == 5


def test_conditions_and_callers(filled: CommandLine) -> None:
    where = 'tags has "public" and metadata.year >= 2024'
    assert paths(filled.must("search", "fish boats", "--where", where)) == ["gulls.md"]
    assert paths(filled.must("search", "fish boats", "--as", "guest")) == ["gulls.md"]
    assert paths(filled.must("search", "fish", "--as", "guest", "--tag", "secret")) == []
    error = filled.must("search", "fish", "--as", "nobody", code=3)["error"]
    assert "guest" in error["why"]


@pytest.mark.parametrize("limit", ["0", "-1", "1000000"])
def test_impossible_limits(filled: CommandLine, limit: str) -> None:
    error = filled.must("search", "fish", f"--limit={limit}", code=3)["error"]
    assert "1 to 1000" in error["why"]


def test_without_the_embedding_provider_words_are_found(filled: CommandLine) -> None:
    away = {
        "KB_EMBEDDING__PROVIDER": "openai",
        "KB_EMBEDDING__BASE_URL": "http://127.0.0.1:9/v1",
        "KB_EMBEDDING__MODEL": "m",
        "KB_EMBEDDING__DIMENSIONS": "512",
        "KB_EMBEDDING__RETRIES": "0",
        "OPENAI_API_KEY": "a-key",
    }
    filled("index", **away)
    (space,) = (
        one["space"]["name"]
        for one in filled.must("space", "list", **away)["spaces"]
        if one["space"]["model"]["provider"] == "openai"
    )
    filled.must("space", "promote", space, "--force", **away)
    found = filled.must("search", "gulls", **away)
    assert paths(found)[0] == "gulls.md"
    assert found["mode"] == "lexical"
    assert "words alone" in found["notes"][0]
    assert "words alone" in filled.text("search", "gulls", **away)
    assert filled("search", "gulls", "--mode", "vector", **away).code == 75


def test_explain_adds_up_and_names_the_origin(filled: CommandLine) -> None:
    told = filled.must("explain", "Do gulls follow boats?")
    assert set(told["terms"]["english"]) == {"gull", "follow", "boat"}
    first = told["hits"][0]
    hit, weight = first["hit"], told["vector_weight"]
    assert sum(first["terms"].values()) == pytest.approx(hit["lexical_score"], rel=1e-4)
    meaning, words = max(hit["vector_score"], 0), first["lexical_share"]
    assert hit["fused_score"] == pytest.approx(weight * meaning + (1 - weight) * words, abs=1e-5)
    (story,) = filled.must("why", hit["path"])["stories"]
    assert (story["live"]["id"], story["live"]["run_id"]) == (hit["revision_id"], first["run_id"])


def test_explain_is_readable_and_shows_no_escapes(filled: CommandLine) -> None:
    text = filled.text("explain", "Do terns dive?")
    assert "Words looked for (english): tern, dive" in text
    for line in ("meaning  cosine", "words    BM25", "fused    ", "from     revision"):
        assert line in text
    assert re.search(r"read 20\d\d-\d\d-\d\d \d\d:\d\d UTC by run \S+", text)
    assert "\x1b" not in filled.text("search", "terns", "--full")
