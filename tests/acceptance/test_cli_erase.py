"""`kb erase` as a person and as a script use it."""

import hashlib
import json

import pytest

from tests.acceptance.command_line import CommandLine


@pytest.fixture
def talks(kb: CommandLine) -> CommandLine:
    """Two people's messages, of which one month is archived and one is not."""
    with (kb.folder / "kb.toml").open("a") as file:
        file.write('\n[archive]\nuri = "shelf"\nretention_days = 1\n')
    lines = [
        {
            "id": f"{user}-{month}-{number}",
            "conversation": f"talk-of-{user}",
            "user": user,
            "created_at": f"2025-{month:02}-05T12:00:{number:02}Z",
            "role": "user",
            "content": f"This is {user}.",
        }
        for user in ("ann", "bob")
        for month in (1, 2)
        for number in range(3)
    ]
    (kb.folder / "talks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kb.must("messages", "import", "talks.jsonl")
    kb.must("archive", "run", "--month", "2025-01")
    return kb


def users(kb: CommandLine) -> list[list[object]]:
    sql = "select distinct conversation_id from messages order by all"
    return kb.must("archive", "query", sql)["rows"]


def test_a_person_is_gone_and_the_receipt_says_what_went(talks: CommandLine) -> None:
    plan = talks.must("erase", "--user", "ann", "--dry-run")
    assert plan["counts"] == {"conversations": 1, "hot_rows": 3, "late_rows": 0}
    assert plan["segments"] == 1
    told = talks.text("erase", "--user", "ann", "--dry-run")
    assert told.startswith("user ann: 1 conversation, 3 messages in the database.\n1 object ")
    assert talks("erase", "--user", "ann").code == 2, "nobody is there to be asked"
    assert users(talks) == [["talk-of-ann"], ["talk-of-bob"]]

    erased = talks.must("erase", "--user", "ann", "--yes")
    assert users(talks) == [["talk-of-bob"]]
    assert erased["subject_hash"] == hashlib.sha256(b"ann").hexdigest()
    assert (erased["receipt"]["hot_rows"], erased["receipt"]["cold_rows"]) == (3, 3)
    ledger = talks.folder / "shelf" / erased["receipt"]["ledger"]
    assert json.loads(ledger.read_text())["conversations"] == ["talk-of-ann"]
    assert talks.must("erase", "--list") == {"erasures": [erased]}
    assert talks.must("archive", "verify")["damaged"] == 0

    imported = talks.must("messages", "import", "talks.jsonl")
    assert (imported["added"], imported["late"], imported["erased"]) == (3, 3, 6)
    assert users(talks) == [["talk-of-bob"]]
    assert talks.must("erase", "--user", "ann", "--yes") == erased
    assert talks.must("erase", "--resume") == {"erasures": []}


def test_what_is_told_to_a_person(talks: CommandLine) -> None:
    told = talks.text("erase", "--conversation", "talk-of-bob", "--yes")
    assert told.startswith("Erased: 1 conversation, 3 messages, 3 messages of the archive.\n")
    assert "1 replaced object of the archive: removed by its next run after 20" in told
    assert "Receipt 1 of `kb erase --list`; outside of the database: erasures/0000000001-" in told
    again = talks.text("erase", "--conversation", "talk-of-bob", "--yes")
    assert again.startswith("Erased on 20")
    listed = " ".join(talks.text("erase", "--list").split())
    assert "1 conversation, 3 messages, 3 messages of the archive" in listed
    assert "talk-of-bob" not in listed


def test_a_document_is_gone_and_its_story_says_so(kb: CommandLine) -> None:
    kb.must("index")
    told = kb.text("erase", "--document", "documents/owls.md", "--yes")
    assert told.startswith("Erased: 1 revision, 1 chunk, 1 vector.\n")
    for _ in range(2):
        found = kb.must("search", "owls hunt at night")
        assert "owls.md" not in [hit["path"] for hit in found["hits"]]
        status = kb.must("status")
        assert (status["settled"], status["totals"]["erased"]) == (True, 1)
        assert (status["totals"]["listed"], status["totals"]["live"]) == (2, 2)
        assert kb.must("index")["error"] is None
    assert "Erased" in kb.text("status")
    story = kb.text("why", "owls.md")
    assert "erased: it is not read any more, even if its source still has it" in story
    assert "erasure 1 of `kb erase --list`" in story
    assert kb.must("plan")["shards"][0]["added"] == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("--user", "ann", "--conversation", "talk"), 2),
        (("--list", "--resume"), 2),
        (("--user", "nobody", "--yes"), 9),
        (("--conversation", "none", "--dry-run"), 9),
        (("--document", "documents/none.md", "--yes"), 9),
        (("--document", "owls.md", "--yes"), 3),
    ],
)
def test_what_cannot_be_erased_is_told(
    kb: CommandLine, arguments: tuple[str, ...], code: int
) -> None:
    assert kb.must("erase", *arguments, code=code)["error"]["exit_code"] == code
