"""Drafting golden questions with a real chat server on loopback, and what it gets wrong."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from kb_assets.errors import ProviderUnavailableError, SettingsError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.golden import load_questions
from kb_assets.retrieval.suggest import Dropped, Suggestion, require_new, write_draft
from kb_assets.settings import Settings
from tests.servers.chat_server import ChatFault, ChatServer

FILLER = "It is written down here in whole sentences, so that there is enough of it to ask about. "


def document(name: str) -> str:
    return f"# {name}\n\nThe keeper of {name} is called\nWarden {name}. {FILLER * 3}\n"


def asks_for_keeper(system: str, user: str) -> str:
    name = re.search(r"Warden (\w+)", user)[1]
    return json.dumps({"question": f"Who keeps {name}?", "answer": f"called Warden {name}"})


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(asks_for_keeper) as running:
        yield running


@pytest.fixture
def kb(
    server: ChatServer,
    make_settings: Callable[..., Settings],
    folder: Path,
    tmp_path: Path,
) -> Iterator[KnowledgeBase]:
    """Twelve documents in one source, two in another, and one too short to be asked about."""
    for number in range(12):
        (folder / f"n{number}.md").write_text(document(f"N{number}"))
    (folder / "short.md").write_text("# Short\n\nWarden Short.\n")
    small = tmp_path / "small"
    small.mkdir()
    for number in range(2):
        (small / f"s{number}.md").write_text(document(f"S{number}"))
    sources = (
        {"name": "notes", "uri": str(folder)},
        {"name": "small", "uri": str(small)},
    )
    answer = {"base_url": server.base_url, "timeout_seconds": 10}
    with KnowledgeBase(make_settings(sources=sources, answer=answer)) as opened:
        opened.index()
        yield opened


def documents(outcomes: Iterator[Suggestion | Dropped]) -> list[str]:
    return [outcome.document for outcome in outcomes]


def test_the_seed_decides_and_sources_take_turns(kb: KnowledgeBase, folder: Path) -> None:
    drawn = documents(kb.suggest_questions(6, seed=1))
    assert len(set(drawn)) == 6
    assert Counter(name.partition(":")[0] for name in drawn) == {"notes": 4, "small": 2}
    assert documents(kb.suggest_questions(6, seed=1)) == drawn
    assert documents(kb.suggest_questions(6, seed=2)) != drawn
    everything = documents(kb.suggest_questions(100, seed=1))
    assert len(everything) == 14
    assert "notes:short.md" not in everything
    assert set(documents(kb.suggest_questions(100, sources=("small",)))) == {
        "small:s0.md",
        "small:s1.md",
    }
    with pytest.raises(SettingsError, match="no source"):
        kb.suggest_questions(1, sources=("elsewhere",))
    (folder / "n0.md").unlink()
    kb.index(run=kb.run(confirm_deletes=True))
    assert "notes:n0.md" not in documents(kb.suggest_questions(100))


def test_one_fenced_passage_is_shown_for_each_question(
    kb: KnowledgeBase, server: ChatServer
) -> None:
    outcomes = list(kb.suggest_questions(3))
    assert len(server.prompts) == 3
    boundaries = set()
    for outcome, (system, user) in zip(outcomes, server.prompts, strict=True):
        assert isinstance(outcome, Suggestion)
        boundary = re.search(r"starts with (\w+)", system)[1]
        boundaries.add(boundary)
        assert user.startswith(f"{boundary} passage [1] from {outcome.document}")
        assert user.endswith(f"{boundary} end")
        assert user.count("The keeper of") == 1
    assert len(boundaries) == 3


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I cannot do that.", "no_question"),
        ("{", "no_question"),
        ('{"question": "Who?"}', "no_question"),
        ('{"question": "", "answer": ""}', "no_question"),
        ('{"question": "Who?", "answer": " "}', "no_question"),
        ('{"question": ["Who?"], "answer": "Warden"}', "no_question"),
        (json.dumps({"question": "Who? " * 100, "answer": "Warden"}), "no_question"),
        ('{"question": "Who?", "answer": "Warden Nobody"}', "answer_not_in_passage"),
        ('{"question": "Who?", "answer": "warden"}', "answer_not_in_passage"),
        ('{"a":' * 5000 + "}" * 5000, "no_question"),
    ],
)
def test_what_the_passage_does_not_bear_out_is_dropped(
    kb: KnowledgeBase, server: ChatServer, said: str, reason: str
) -> None:
    server.write = lambda system, user: said
    (outcome,) = kb.suggest_questions(1)
    assert isinstance(outcome, Dropped)
    assert outcome.reason == reason


def test_words_around_the_answer_and_line_breaks_in_it_do_not_matter(
    kb: KnowledgeBase, server: ChatServer
) -> None:
    server.write = lambda system, user: (
        '```json\n{"question": " Who\\nkeeps it? ", "answer": "is  called\\nWarden"}\n```'
    )
    (outcome,) = kb.suggest_questions(1)
    assert isinstance(outcome, Suggestion)
    assert (outcome.question, outcome.answer_contains) == ("Who keeps it?", "is called Warden")


def test_a_question_is_kept_once(kb: KnowledgeBase, server: ChatServer) -> None:
    said = iter(["Who is it?", "WHO  is it", "Who was it?"])
    server.write = lambda system, user: json.dumps({"question": next(said), "answer": "keeper"})
    first, second, third = kb.suggest_questions(3)
    assert isinstance(first, Suggestion)
    assert isinstance(second, Dropped)
    assert second.reason == "asked_already"
    assert isinstance(third, Suggestion)


def test_what_came_before_an_error_is_not_lost(kb: KnowledgeBase, server: ChatServer) -> None:
    server.script(ChatFault(), ChatFault(), ChatFault(end="close"))
    outcomes = kb.suggest_questions(5)
    assert isinstance(next(outcomes), Suggestion)
    assert isinstance(next(outcomes), Suggestion)
    with pytest.raises(ProviderUnavailableError):
        next(outcomes)


def test_a_draft_is_golden_questions_that_wait_to_be_accepted(
    kb: KnowledgeBase, tmp_path: Path
) -> None:
    kept = [each for each in kb.suggest_questions(3) if isinstance(each, Suggestion)]
    hostile = 'x: "#\u2028\x1b[31m\n- question: forged'
    kept.append(Suggestion(f"Who? {hostile}", f"notes:{hostile}", hostile))
    draft = tmp_path / "draft.yaml"
    write_draft(draft, kept, model="m\n- question: forged", seed=3)
    entries = yaml.safe_load(draft.read_text())
    assert [entry.pop("accepted") for entry in entries] == [False] * 4
    assert [entry["question"] for entry in entries] == [each.question for each in kept]
    accepted = tmp_path / "accepted.yaml"
    accepted.write_text(yaml.safe_dump(entries[:3]))
    questions = load_questions(accepted)
    assert [list(question.documents) for question in questions] == [
        [each.document] for each in kept[:3]
    ]
    assert questions[0].answer_contains == kept[0].answer_contains


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    there = tmp_path / "there.yaml"
    there.write_text("mine")
    with pytest.raises(SettingsError, match="does not exist yet"):
        require_new(there)
    with pytest.raises(SettingsError):
        require_new(tmp_path / "nowhere" / "draft.yaml")
    with pytest.raises(SettingsError):
        write_draft(there, [Suggestion("Who?", "notes:a.md", "a")], model="m", seed=0)
    assert there.read_text() == "mine"
