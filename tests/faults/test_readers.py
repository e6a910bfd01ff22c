"""Whoever reads during an update sees each document whole: all old, or all new."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kb_assets.index import publish
from kb_assets.knowledge_base import KnowledgeBase
from tests.faults import corpus
from tests.faults.conftest import hash_vector
from tests.oracle import assert_sound

DOCUMENTS, PARTS = 20, 6


def versions(version: int) -> dict[str, str]:
    """Every chunk says which document, version and part it is; later versions have a part more."""
    parts = PARTS + version
    return {
        f"{number}.txt": corpus.document(
            *(
                f"This is document {number} version {version} part {part} of {parts}: "
                + corpus.paragraph(number, version, part)
                for part in range(parts)
            )
        )
        for number in range(DOCUMENTS)
    }


WHOLE = [sorted(f"{v}/{part}/{PARTS + v}" for part in range(PARTS + v)) for v in (0, 1)]


class Reader:
    """The reading process; `poll` waits until it has looked again, from start to end."""

    def __init__(self, kb: KnowledgeBase) -> None:
        command = [sys.executable, "-m", "tests.faults.reading"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(kb.settings.model_dump_json() + "\n")
        self._process.stdin.flush()
        self.polls: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def poll(self) -> None:
        """Wait for a look that began after this call: the one under way may have begun before."""
        with self._changed:
            wanted = len(self.polls) + 2
            assert self._changed.wait_for(lambda: len(self.polls) >= wanted, 60)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.polls.append(json.loads(line))
                self._changed.notify_all()


@pytest.fixture
def kb(
    make_settings: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KnowledgeBase]:
    monkeypatch.setattr(publish, "MAX_DOCUMENTS", 5)
    corpus.write(folder, versions(0))
    with KnowledgeBase(make_settings(splitting=corpus.SPLITTING | {"size": 90})) as opened:
        opened.index()
        yield opened


@pytest.fixture
def reader(kb: KnowledgeBase) -> Iterator[Reader]:
    reading = Reader(kb)
    yield reading
    reading.close()


def test_a_reader_sees_each_document_whole_at_every_moment_of_an_update(
    kb: KnowledgeBase, reader: Reader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = publish._publish

    def looked_at_between_batches(*arguments: Any) -> Any:
        batch = original(*arguments)
        reader.poll()
        return batch

    monkeypatch.setattr(publish, "_publish", looked_at_between_batches)
    reader.poll()
    corpus.write(folder, versions(1))
    report = kb.index().shards[0]
    assert report.published.replaced == DOCUMENTS
    reader.poll()

    by_count: set[int] = set()
    for poll in reader.polls:
        for documents in (poll["search"], poll["tables"]):
            assert len(documents) == DOCUMENTS
            for marks in documents.values():
                assert marks in WHOLE
        assert sum(map(len, poll["nearest"].values())) == 60
        for marks in poll["nearest"].values():
            assert set(marks) <= set(WHOLE[0]) or set(marks) <= set(WHOLE[1])
        by_count.add(sum(marks == WHOLE[1] for marks in poll["search"].values()))
    assert by_count >= {0, 5, 10, 15, 20}
    assert_sound(kb, hash_vector)
