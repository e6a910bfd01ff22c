"""`kb messages` as a person and as a script use it."""

import json
import subprocess
from pathlib import Path

from tests.acceptance.command_line import COMMAND, CommandLine


def line(id_: str, conversation: str = "talk", minute: int = 0, **others: object) -> str:
    at = f"2025-03-01T12:{minute:02}:00+01:00"
    fields = {"created_at": at, "role": "user", "content": f"This is {id_}.", **others}
    return json.dumps({"id": id_, "conversation": conversation, **fields}) + "\n"


def save(kb: CommandLine, *lines: str) -> Path:
    file = kb.folder / "talks.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    return file


def test_a_file_is_imported_twice_and_read_back(kb: CommandLine) -> None:
    lines = [line(f"m{n}", minute=n, user="ann", metadata={"n": n}) for n in range(5)]
    file = save(kb, *lines, line("other", "elsewhere", role="assistant", token_count=7))
    assert kb.must("messages", "import", str(file)) == {
        "added": 6,
        "repeated": 0,
        "late": 0,
        "erased": 0,
        "lines": 6,
        "rejected": 0,
        "rejected_file": None,
        "reasons_file": None,
    }
    assert kb.text("messages", "import", str(file)) == (
        "0 messages stored.\n6 messages stored already.\n"
    )
    found = kb.must("messages", "window", "talk", "--bytes", "24")
    assert found["earlier"] == 3
    assert found["messages"][0] == {
        "id": "m3",
        "created_at": "2025-03-01T11:03:00+00:00",
        "role": "user",
        "content": "This is m3.",
        "language": None,
        "intent": None,
        "metadata": {"n": 3},
        "token_count": 5,
    }
    told = kb.text("messages", "window", "elsewhere", "--tokens", "7")
    assert told == "assistant  2025-03-01 11:00:00 UTC  7 tokens\n    This is other.\n\n"
    assert "\n2 earlier" not in told
    told = kb.text("messages", "window", "talk", "--tokens", "5")
    assert told.startswith("4 earlier messages\n\nuser  2025-03-01 11:04:00 UTC")


def test_lines_that_are_rejected_stop_no_others(kb: CommandLine) -> None:
    bad = [line("x", role="robot"), "{\n", line("y", user="bob", minute=9)]
    file = save(kb, line("a", user="ann"), *bad, line("b"))
    found = kb.must("messages", "import", str(file), code=5)
    assert (found["added"], found["rejected"], found["lines"]) == (2, 3, 5)
    assert found["rejected_file"] == f"{file}.rejected"
    assert sorted(Path(found["rejected_file"]).read_text().splitlines(keepends=True)) == sorted(bad)
    reasons = [json.loads(each) for each in Path(found["reasons_file"]).read_text().splitlines()]
    assert {each["line"]: each["reason"] for each in reasons} == {
        2: "unknown_role",
        3: "not_json",
        4: "other_user",
    }
    assert "system, developer, user" in next(each["fix"] for each in reasons if each["line"] == 2)
    result = kb("--text", "messages", "import", str(file))
    assert result.code == 5
    assert "3 lines rejected" in result.out
    assert f"{file}.rejected.2" in result.out.replace("\n", "")


def test_standard_input(kb: CommandLine) -> None:
    done = subprocess.run(
        [*COMMAND, "messages", "import", "-"],
        cwd=kb.folder,
        env=kb.environment(),
        input=(line("a") + "no\n").encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert json.loads(done.stdout)["added"] == 1
    assert (kb.folder / "stdin.jsonl.rejected").read_text() == "no\n"


def test_what_cannot_be_asked_for(kb: CommandLine) -> None:
    save(kb, line("a"))
    for arguments in (
        ("import", "nowhere.jsonl"),
        ("import", "documents"),
        ("window", "talk"),
        ("window", "talk", "--tokens", "1", "--bytes", "1"),
        ("window", "talk", "--tokens", "-1"),
    ):
        assert kb("messages", *arguments).code == 2
    error = kb.must("messages", "window", "nobody", "--tokens", "1", code=9)["error"]
    assert "nobody" in error["what"]


def test_nobody_steers_the_terminal(kb: CommandLine) -> None:
    sly = "\x1b[2Jgone \u202e[bold]x[/bold] \x07\n\nlast"
    kb.must("messages", "import", str(save(kb, line("a", content=sly))))
    told = kb.text("messages", "window", "talk", "--tokens", "1000")
    assert not set("\x1b\x07\u202e") & set(told)
    assert "[bold]x[/bold]" in told
    result = kb("--text", "messages", "window", "\x1b[2J", "--tokens", "1")
    assert (result.code, "\x1b" in result.err) == (9, False)
