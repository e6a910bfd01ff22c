"""What a run does is counted: a change that makes it do more fails here, on any machine.

Numbers are what was seen when they were written down. Fewer is always welcome; more needs a reason.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults import corpus
from tests.faults.conftest import openai_settings
from tests.faults.counting import Work, counted
from tests.servers.openai_server import OpenAIServer

PER_REQUEST = 16
SMALL, LARGE = 20, 60

Index = Callable[[], Work]


@pytest.fixture(params=[SMALL, LARGE])
def documents(request: pytest.FixtureRequest) -> int:
    """How many documents there are: what a change costs does not depend on it."""
    return int(request.param)


@pytest.fixture
def index(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    provider: OpenAIServer,
    folder: Path,
    documents: int,
    an_hour_later: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Index:
    """Index the folder, in which the documents are, and return what was done."""
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    embedding = openai_settings(provider.base_url, texts_per_request=PER_REQUEST)
    kb = open_settings(make_settings(splitting=corpus.SPLITTING, embedding=embedding))
    corpus.write(folder, corpus.first(documents))

    def index() -> Work:
        with counted(kb, provider, monkeypatch) as work:
            kb.index()
        return work

    return index


def size_bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def test_a_first_load_opens_each_file_once_and_pays_for_each_text_once(
    index: Index, folder: Path, documents: int
) -> None:
    work = index()
    texts = {
        text for document in corpus.first(documents).values() for text in document.split("\n\n")
    }
    assert work.files == documents
    assert work.bytes_read == size_bytes(list(folder.rglob("*.txt")))
    assert work.texts == len({text.strip() for text in texts})
    assert work.requests == -(-work.texts // PER_REQUEST)
    assert work.statements <= 125 + 10 * work.requests


def test_nothing_changed_opens_no_file_and_writes_no_row(index: Index) -> None:
    index()
    work = index()
    assert (work.files, work.bytes_read, work.rows, work.texts) == (0, 0, 0, 0)
    assert work.statements <= 12, work.sent
    assert work.connections <= 2


def test_touched_files_are_read_and_only_their_tokens_are_written(
    index: Index, folder: Path, documents: int
) -> None:
    index()
    for file in folder.rglob("*.txt"):
        os.utime(file)
    work = index()
    assert work.files == documents
    assert work.rows == documents + 3, "a version each, the fence, the listing forgotten and new"
    assert work.texts == 0
    assert work.statements <= 40, work.sent


def test_an_edit_costs_what_was_edited(index: Index, folder: Path) -> None:
    index()
    edited = sorted(folder.rglob("*.txt"))[:3]
    for number, file in enumerate(edited):
        text = file.read_text()
        file.write_text(f"{text}\n{corpus.paragraph('edited', number)}\n")
    work = index()
    assert (work.files, work.bytes_read) == (3, size_bytes(edited))
    assert (work.requests, work.texts) == (1, 3)
    assert work.statements <= 100, work.sent
    assert work.rows <= 250, "most of them postings"


def test_a_deletion_reads_nothing(index: Index, folder: Path) -> None:
    index()
    (folder / "part-1" / "005.txt").unlink()
    work = index()
    assert (work.files, work.texts) == (0, 0)
    assert work.statements <= 70, work.sent
    assert work.rows <= 30


def test_a_renamed_folder_is_read_and_nothing_else(
    index: Index, folder: Path, documents: int
) -> None:
    index()
    (folder / "part-1").rename(folder / "renamed")
    work = index()
    assert work.files == documents // 4
    assert work.texts == 0
    assert work.rows == 2 * work.files + 4, "a path and a token each; fence, listing, generation"
    assert work.statements <= 45, work.sent
