"""`kb search` and `kb explain`, as they are typed."""

import re

import pytest

from tests.acceptance.command_line import CommandLine, write
from tests.acceptance.test_cli_errors import assert_told

HIT = {
    *("source", "path", "title", "heading_path", "text", "byte_start", "byte_end", "tags"),
    *("metadata", "revision_id", "ordinal", "last_ordinal"),
    *("score", "vector_score", "lexical_score", "fused_score", "rerank_score"),
}
HOSTILE = "cranes\x1b[31m\n 1. 0.999  documents:false"
"""A file name that would colour the terminal, and look like another hit."""

AWAY = {
    "KB_EMBEDDING__PROVIDER": "openai",
    "KB_EMBEDDING__BASE_URL": "http://127.0.0.1:9/v1",
    "KB_EMBEDDING__MODEL": "m",
    "KB_EMBEDDING__DIMENSIONS": "512",
    "KB_EMBEDDING__RETRIES": "0",
    "OPENAI_API_KEY": "a-key",
}
"""A provider of embeddings that nobody can reach."""


@pytest.fixture
def filled(kb: CommandLine) -> CommandLine:
    """An indexed knowledge base with public and other documents, and two callers."""
    public = "---\ntags: [public]\nyear: 2024\n---\n"
    calls = "\n\n".join(f"## Call {number}\n\nPlovers whistle." for number in range(6))
    write(
        kb.folder / "documents",
        gulls=f"{public}# Gulls\n\nGulls follow boats and eat fish.",
        terns="---\ntags: [secret]\n---\n# Terns\n\nTerns dive for fish near boats.",
        plovers=calls,
    )
    write(kb.folder / "documents", **{HOSTILE: "Cranes dance."})
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
    about = {"question", "mode", "provider", "space", "notes", "seconds", "cached", "hits"}
    assert set(found) == about
    assert [set(hit) for hit in found["hits"]] == [HIT, HIT]
    assert found["question"] == "boats and fish"
    assert (found["mode"], found["provider"], found["notes"]) == ("hybrid", "hash", [])
    assert {"embed", "vector", "lexical", "fetch", "total"} <= set(found["seconds"])
    assert all(hit["lexical_score"] > 0 and hit["vector_score"] > 0 for hit in found["hits"])


def test_modes_and_bounds(filled: CommandLine) -> None:
    assert paths(filled.must("search", "turn their heads", "--mode", "lexical")) == ["owls.md"]
    only = filled.must("search", "turn their heads", "--mode", "vector", "--limit", "3")
    assert len(only["hits"]) == 3
    assert only["hits"][0]["lexical_score"] is None
    scores = [hit["score"] for hit in filled.must("search", "fish")["hits"]]
    enough = filled.must("search", "fish", "--min-score", str(scores[1]))["hits"]
    assert [hit["score"] for hit in enough] == scores[:2] != scores
    assert filled.must("search", "fish", "--min-score", "0.99")["hits"] == []
    assert "Nothing was found." in filled.text("search", "fish", "--min-score", "0.99")
    whistles = ("search", "whistle", "--mode", "lexical")
    assert paths(filled.must(*whistles)) == ["plovers.md"] * 2
    assert paths(filled.must(*whistles, "--per-document", "1")) == ["plovers.md"]
    assert paths(filled.must(*whistles, "--limit", "1")) == ["plovers.md"]


def test_conditions_and_callers(filled: CommandLine) -> None:
    where = 'tags has "public" and metadata.year >= 2024'
    assert paths(filled.must("search", "fish boats", "--where", where)) == ["gulls.md"]
    assert paths(filled.must("search", "fish boats", "--as", "guest")) == ["gulls.md"]
    assert paths(filled.must("search", "fish", "--as", "guest", "--tag", "secret")) == []
    (only,) = filled.must("explain", "fish boats", "--as", "guest")["hits"]
    assert only["hit"]["path"] == "gulls.md"
    for command in ("search", "explain"):
        assert_told(filled, 3, command, "fish", "--as", "nobody", words="kb.toml names: guest.")
    del filled.variables["KB_CALLER_DATABASE_URL"]
    assert_told(filled, 3, "search", "fish", "--as", "guest", words="KB_CALLER_DATABASE_URL")


def test_bounds_that_make_no_sense(filled: CommandLine) -> None:
    for limit in ("0", "-1", "1000000"):
        assert_told(filled, 3, "search", "fish", f"--limit={limit}", words="The limit is 1 to 1000")
    assert_told(filled, 3, "explain", "fish", "--limit=0", words="The limit is 1 to 1000")
    assert_told(filled, 3, "search", "fish", "--per-document=-1", words="0 for no bound")
    assert_told(filled, 3, "search", "fish", "--min-score=nan", words="not a number")
    assert_told(filled, 2, "search", "fish", "--mode=fuzzy", words="'fuzzy' is not one of")
    assert_told(filled, 2, "search", words="QUESTION")


def test_without_the_embedding_provider_words_are_found(filled: CommandLine) -> None:
    filled("index", **AWAY)
    (space,) = (
        one["space"]["name"]
        for one in filled.must("space", "list", **AWAY)["spaces"]
        if one["space"]["model"]["provider"] == "openai"
    )
    filled.must("space", "promote", space, "--force", **AWAY)
    found = filled.must("search", "gulls", **AWAY)
    assert paths(found)[0] == "gulls.md"
    assert found["mode"] == "lexical"
    assert "words alone" in found["notes"][0]
    assert "words alone" in filled.text("search", "gulls", **AWAY)
    explained = filled.must("explain", "gulls", **AWAY)
    assert (explained["mode"], explained["notes"]) == (found["mode"], found["notes"])
    assert "fused" not in filled.text("explain", "gulls", **AWAY)
    error = filled.must("search", "gulls", "--mode", "vector", code=75, **AWAY)["error"]
    assert error["kind"] == "ProviderUnavailableError"


def test_explain_adds_up_and_names_the_origin(filled: CommandLine) -> None:
    told = filled.must("explain", "Do gulls follow boats?")
    assert set(told) == {
        *("question", "mode", "provider", "space", "fusion", "vector_weight", "terms", "notes"),
        *("seconds", "hits"),
    }
    assert set(told["terms"]["english"]) == {"gull", "follow", "boat"}
    first = told["hits"][0]
    assert set(first) == {
        *("hit", "terms", "lexical_share", "vector_rank", "lexical_rank", "run_id", "read_at")
    }
    assert set(first["hit"]) == HIT
    hit, weight = first["hit"], told["vector_weight"]
    assert sum(first["terms"].values()) == pytest.approx(hit["lexical_score"], rel=1e-4)
    meaning, words = max(hit["vector_score"], 0), first["lexical_share"]
    assert hit["fused_score"] == pytest.approx(weight * meaning + (1 - weight) * words, abs=1e-5)
    (story,) = filled.must("why", hit["path"])["stories"]
    assert (story["live"]["id"], story["live"]["run_id"]) == (hit["revision_id"], first["run_id"])


def test_explain_is_readable(filled: CommandLine) -> None:
    text = filled.text("explain", "Do terns dive?", "--limit", "1")
    assert "Words looked for (english): tern, dive" in text
    assert re.search(r"^    meaning  cosine 0\.\d{3}, rank 1$", text, re.MULTILINE)
    assert re.search(r"^    words    BM25 \d+\.\d\d, \d+% of what .*, rank 1$", text, re.MULTILINE)
    assert re.search(r"^             tern \d+\.\d\d, dive \d+\.\d\d$", text, re.MULTILINE)
    sum_ = re.search(
        r"^    fused    ([\d.]+) = ([\d.]+) \u00d7 ([\d.]+) \+ ([\d.]+) \u00d7 ([\d.]+)$",
        text,
        re.MULTILINE,
    )
    assert sum_ is not None
    fused, weight, meaning, rest, words = map(float, sum_.groups())
    assert weight + rest == pytest.approx(1)
    assert fused == pytest.approx(weight * meaning + rest * words, abs=0.0011)
    origin = re.search(r"from     (revision \d+), .*, (read \S+ \d\d:\d\d)", text)
    run = re.search(r" UTC (by run \S+)", text)
    assert origin is not None
    assert run is not None
    why = filled.text("why", "terns.md")
    for words_ in (*origin.groups(), run[1]):
        assert words_ in why


def test_names_of_files_neither_steer_the_terminal_nor_look_like_hits(filled: CommandLine) -> None:
    for command in (("search",), ("search", "--full"), ("explain",)):
        text = filled.text(*command, "cranes dance", "--mode", "lexical")
        assert "\x1b" not in text
        (head,) = (line for line in text.splitlines() if re.match(" *[0-9]+[.] ", line))
        assert "documents:cranes\ufffd[31m\ufffd 1. 0.999  documents:false.md" in head


def test_help_says_what_can_be_asked(bare: CommandLine) -> None:
    for command in ("search", "explain"):
        told = " ".join(bare(command, "--help").out.split())
        assert "[hybrid|vector|lexical]" in told
        assert "1 to 1000. [default: 10]" in told
        assert "0 for any number" in told
        assert "one of [[callers]] in kb.toml" in told
        assert "--where CONDITION" in told
        assert "--min-score" in told
