"""`kb ask` as a person and as a script use it, against a real chat server on loopback."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.acceptance.command_line import CommandLine, write
from tests.servers.chat_server import ChatFault, ChatServer

KEY = "sk-canary-0b5e55ed"
QUESTION = "When do owls hunt?"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(cites_owls) as running:
        running.expected_key = KEY
        yield running


@pytest.fixture
def indexed(kb: CommandLine, server: ChatServer) -> CommandLine:
    kb.variables |= {
        "KB_ANSWER__BASE_URL": server.base_url,
        "KB_ANSWER__MIN_SCORE": "0",
        "OPENAI_API_KEY": KEY,
    }
    kb.must("index")
    return kb


def cites_owls(system: str, user: str) -> str:
    number = re.search(r"passage (\[\d+\]) from documents:owls", user)[1]
    return f"At night {number}."


def test_an_answer_and_its_sources(indexed: CommandLine) -> None:
    told = indexed.text("ask", QUESTION, COLUMNS="60").splitlines()
    assert re.fullmatch(r"At night \[\d\]\.", told[0])
    assert told[1] == ""
    assert re.fullmatch(r"\[\d\] documents:owls\.md > Owls  bytes \d+-\d+", told[2])
    assert len(told) == 3
    found = indexed.must("ask", QUESTION)
    assert found["question"] == QUESTION
    assert found["answered"] is True
    assert found["text"] == told[0]
    (citation,) = found["citations"]
    assert (citation["source"], citation["path"]) == ("documents", "owls.md")
    assert citation["byte_start"] < citation["byte_end"]
    assert found["unknown_citations"] == []
    assert found["tokens"]["completion"] == 3
    assert found["hits"][citation["number"] - 1]["path"] == "owls.md"


def test_what_is_not_there_exits_nine(indexed: CommandLine, server: ChatServer) -> None:
    result = indexed("--text", "ask", QUESTION, KB_ANSWER__MIN_SCORE="1")
    assert result.code == 9
    assert result.out.startswith("This is not in the knowledge base.")
    assert not server.requests
    found = indexed.must("ask", QUESTION, code=9, KB_ANSWER__MIN_SCORE="1")
    assert found["answered"] is False
    assert found["citations"] == []
    server.write = lambda system, user: "This is not in the knowledge base."
    assert indexed.must("ask", QUESTION, code=9)["answered"] is False


def test_the_filters_are_those_of_search(indexed: CommandLine, server: ChatServer) -> None:
    searched, asked = (indexed(command, "--help").out for command in ("search", "ask"))
    options = set(re.findall(r"--[a-z-]+", asked))
    assert {"--source", "--path-prefix", "--tag", "--meta"} <= options
    assert options <= set(re.findall(r"--[a-z-]+", searched))
    server.write = lambda system, user: "Yes [1]."
    found = indexed.must("ask", QUESTION, "--path-prefix", "owls")
    assert [hit["path"] for hit in found["hits"]] == ["owls.md"]
    assert indexed("ask", QUESTION, "--source", "elsewhere").code == 3
    assert indexed("ask", " ").code == 3


def test_nobody_steers_the_terminal(indexed: CommandLine, server: ChatServer) -> None:
    write(
        indexed.folder / "documents", sly="# Sly \x1b[31m\n\nSly owls hunt \x1b]0;title\x07 by day."
    )
    indexed.must("index")
    server.write = lambda system, user: (
        "\x1b[2Jcleared \u202e[bold]x[/bold] [1][2][3][4] \x1b]52;c;AAAA\x07"
    )
    told = indexed.text("ask", "sly owls hunt")
    assert not set("\x1b\x07\u202e") & set(told)
    assert "[bold]x[/bold]" in told
    assert "sly.md" in told


def test_sources_that_do_not_exist_are_not_listed(indexed: CommandLine, server: ChatServer) -> None:
    server.write = lambda system, user: "At night [1][9]."
    told = indexed.text("ask", QUESTION)
    assert "\n[9]" not in told
    assert "passages that do not exist: 9" in told
    assert indexed.must("ask", QUESTION)["unknown_citations"] == [9]


def test_an_answer_that_breaks_off(indexed: CommandLine, server: ChatServer) -> None:
    server.script(ChatFault(end="close"), ChatFault(end="close"))
    result = indexed("--text", "ask", QUESTION)
    assert result.code == 75
    assert result.out == "At nigh\n"
    assert "broke off" in result.err
    result = indexed("ask", QUESTION)
    assert result.code == 75
    assert list(result.json) == ["error"], "no part of an answer passes for one"


def test_the_model_refuses_or_has_no_key(indexed: CommandLine, server: ChatServer) -> None:
    result = indexed("ask", QUESTION, OPENAI_API_KEY="wrong")
    assert result.code == 6
    assert "OPENAI_API_KEY" in result.json["error"]["fix"]
    del indexed.variables["KB_ANSWER__BASE_URL"]
    result = indexed("ask", QUESTION, OPENAI_API_KEY="")
    assert result.code == 6
    error = result.json["error"]
    assert error["kind"] == "ProviderRefusedError"
    assert "There is no key" in error["what"]
    assert "export OPENAI_API_KEY" in error["fix"]


def test_keys_may_stand_in_the_file_beside_kb_toml(
    indexed: CommandLine, server: ChatServer
) -> None:
    del indexed.variables["OPENAI_API_KEY"]
    indexed.variables["KB_ANSWER__API_KEY_VARIABLE"] = "CHAT_KEY"
    assert indexed("ask", QUESTION).code == 6
    (indexed.folder / ".env").write_text(f"CHAT_KEY={KEY}\n")
    assert indexed.must("ask", QUESTION)["answered"]


def test_the_keys_are_told_to_nobody(indexed: CommandLine, server: ChatServer) -> None:
    said = []
    for fault in (
        ChatFault(status=400, message=f"you sent {KEY}"),
        ChatFault(status=401, message=KEY),
        ChatFault(end="error"),
        ChatFault(),
    ):
        server.script(fault, fault)
        for form in ("--text", "--json"):
            result = indexed(form, "ask", QUESTION, KB_DEBUG="1", OPENAI_LOG="debug")
            said += [result.out, result.err]
    assert len(server.requests) == 8
    assert KEY not in "\n".join(said)
    assert KEY not in json.dumps(server.prompts)


def test_golden_questions_are_drafted(indexed: CommandLine, server: ChatServer) -> None:
    for name in ("herons", "owls"):
        text = f"# {name}\n\nThe {name} of this place are seven. {'They are counted. ' * 20}\n"
        write(indexed.folder / "documents", **{name: text})
    indexed.must("index")
    said = iter(["How many are there?", "How many are counted?"] * 9)
    server.write = lambda system, user: json.dumps({"question": next(said), "answer": "seven"})
    arguments = ("eval", "suggest", "--output", "draft.yaml")
    told = indexed.text(*arguments)
    assert "How many are there?  (documents:" in told
    assert "2 questions from 2 passages." in told
    draft = indexed.folder / "draft.yaml"
    drafted = draft.read_text()
    assert drafted.count("accepted: false") == 2
    result = indexed(*arguments)
    assert result.code == 3
    assert "draft.yaml" in result.json["error"]["what"]
    assert draft.read_text() == drafted
    assert len(server.requests) == 2, "nothing was paid for in vain"
    server.script(ChatFault(), ChatFault(end="close"))
    assert indexed("eval", "suggest", "--output", "half.yaml").code == 75
    assert (indexed.folder / "half.yaml").read_text().count("accepted: false") == 1
    server.write = lambda system, user: "no"
    found = indexed.must("eval", "suggest", "--output", "none.yaml", code=9)
    assert found == {"output": None, "suggestions": [], "dropped": {"no_question": 2}}
    assert not (indexed.folder / "none.yaml").exists()
