"""What a user does, from an empty folder to an index that follows its documents."""

from pathlib import Path

from tests.acceptance.command_line import CommandLine, write


def paths(found: dict) -> list[str]:
    return [hit["path"] for hit in found["hits"]]


def test_the_index_follows_its_documents(kb: CommandLine, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    forecast = kb.must("plan")
    assert [shard["added"] for shard in forecast["shards"]] == [3]
    assert forecast["new_space"]

    first = kb.must("index")
    assert first["error"] is None
    assert first["reports"]["raw_documents"]["documents"]["added"] == 3
    assert first["reports"]["published_documents"]["documents"]["published"] == 3
    assert paths(kb.must("search", "owls hunt at night"))[0] == "owls.md"

    write(documents, owls="# Owls\n\nOwls swallow mice whole and cast pellets.")
    (documents / "herons.md").unlink()
    (documents / "field" / "swifts.md").rename(documents / "swifts.md")
    changes = kb.must("plan", "--verify")["shards"][0]
    assert (changes["added"], changes["changed"], changes["gone"]) == (0, 1, 1)

    second = kb.must("index", "--confirm-deletes")
    read = second["reports"]["raw_documents"]["documents"]
    assert (read["added"], read["changed"], read["moved"], read["vanished"]) == (0, 1, 1, 1)
    embedded = second["reports"]["chunk_embeddings"]["documents"]["spaces"][0]
    assert embedded["embedded"] == 1, "what was only moved is not embedded again"

    found = kb.must("search", "owls swallow mice", "--limit", "50")
    assert sorted(paths(found)) == ["owls.md", "swifts.md"]
    texts = " ".join(hit["text"] for hit in found["hits"])
    assert "pellets" in texts
    assert "turn their heads" not in texts

    status = kb.must("status")
    assert status["settled"]
    assert status["reasons"] == []
    assert status["totals"]["listed"] == status["totals"]["live"] == 2
    assert status["totals"]["documents"] == 2

    third = kb.must("index", "--verify")
    assert third["reports"]["chunk_embeddings"]["documents"]["spaces"][0]["embedded"] == 0
    assert third["reports"]["raw_documents"]["documents"]["touched"] == 2


def test_what_cannot_be_used_is_told_and_counted(kb: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "documents" / "broken.md").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert kb.must("index")["quarantined"] == 1
    assert kb("index", "--strict").code == 10

    status = kb.must("status")
    assert status["settled"], "a document in quarantine is accounted for"
    assert status["totals"]["live"] + status["totals"]["quarantined"] == 4
    [refused] = status["quarantine"]
    assert (refused["path"], refused["reason"]) == ("broken.md", "binary")
    assert refused["detail"]

    told = kb.text("status", "--quarantine")
    assert "documents:broken.md" in told
    assert "binary" in told
    [story] = kb.must("why", "broken.md")["stories"]
    assert story["verdict"].startswith("quarantined")
    assert story["refusal"]["reason"] == "binary"


def test_an_emptied_source_loses_nothing_until_that_is_confirmed(
    kb: CommandLine, tmp_path: Path
) -> None:
    kb.must("index")
    for document in (tmp_path / "documents").rglob("*.md"):
        document.unlink()

    forecast = kb.text("plan")
    assert "--confirm-deletes" in forecast
    guarded = kb("--text", "index")
    assert guarded.code == 11
    assert "3 documents gone from the source" in guarded.out
    assert "--confirm-deletes" in guarded.out
    assert len(paths(kb.must("search", "owls"))) == 3
    status = kb.must("status")
    assert not status["settled"]
    assert status["totals"]["missing"] == 3
    assert "mass-delete guard" in status["reasons"][0]
    assert "guard" in kb.must("why", "owls.md")["stories"][0]["verdict"]

    assert kb.must("index", "--confirm-deletes")["withheld"] == 0
    assert paths(kb.must("search", "owls")) == []
    assert "Nothing was found." in kb.text("search", "owls")


def test_search_filters(kb: CommandLine, tmp_path: Path) -> None:
    tagged = "---\ntags: [bird, river]\nyear: 2024\nstate: draft\n---\n# Dippers\n\nThey dive."
    write(tmp_path / "documents", field__dippers=tagged)
    kb.must("index")
    everything = ("search", "birds", "--limit", "9")
    assert len(paths(kb.must(*everything))) == 4
    assert len(paths(kb.must(*everything, "--path-prefix", "field/"))) == 2
    assert paths(kb.must(*everything, "--tag", "bird", "--tag", "river")) == ["field/dippers.md"]
    assert paths(kb.must(*everything, "--tag", "bird", "--tag", "sea")) == []
    assert paths(kb.must(*everything, "--meta", "year=2024")) == ["field/dippers.md"]
    assert paths(kb.must(*everything, "--meta", 'year="2024"')) == []
    assert paths(kb.must(*everything, "--meta", "state=draft")) == ["field/dippers.md"]
    assert len(paths(kb.must(*everything, "--source", "documents"))) == 4


def test_shards_one_at_a_time(kb: CommandLine, tmp_path: Path) -> None:
    config = tmp_path / "kb.toml"
    config.write_text(config.read_text().replace("# shards = 4", "shards = 2  #"))
    kb.must("index", "--shard", "documents-01-of-02")
    status = kb.must("status")
    assert [shard["account"]["listed"] is None for shard in status["shards"]] == [False, True]
    assert "documents-02-of-02: never listed" in status["reasons"][0]
    kb.must("index", "--source", "documents")
    status = kb.must("status")
    assert status["settled"]
    assert status["totals"]["live"] == 3
    assert kb("index", "--shard", "documents").code == 3


def test_spaces_are_built_promoted_and_dropped(kb: CommandLine) -> None:
    kb.must("index")
    kb.must("index", KB_EMBEDDING__DIMENSIONS="64")
    old, new = kb.must("space", "list")["spaces"]
    assert (old["space"]["state"], new["space"]["state"]) == ("live", "building")
    assert new["missing"] == 0
    kb.must("space", "promote", new["space"]["name"])
    assert kb("space", "drop", new["space"]["name"], "--yes").code == 7
    assert kb("space", "drop", str(old["space"]["id"])).code == 2, "nobody is there to be asked"
    kb.must("space", "drop", str(old["space"]["id"]), "--yes")
    assert len(kb.must("space", "list")["spaces"]) == 1
    assert paths(kb.must("search", "owls hunt"))[0] == "owls.md"
    assert kb("space", "promote", "unknown").code == 9
