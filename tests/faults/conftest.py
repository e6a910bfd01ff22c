"""What the fault tests share: providers that fail as told, and knowledge bases side by side."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest

from kb_assets.embeddings.providers.hash import DIMENSIONS as HASH_DIMENSIONS
from kb_assets.embeddings.providers.hash import HashEmbedder
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults import corpus
from tests.faults.archiving import Shelf
from tests.servers.openai_server import OpenAIServer, Request, expected_vector, read_log

DIMENSIONS = 64


def hash_vector(text: str, dimensions: int = HASH_DIMENSIONS) -> numpy.ndarray:
    """E of the built-in hash provider."""
    return HashEmbedder(dimensions).embed([text]).vectors[0]


def openai_vector(text: str, dimensions: int = DIMENSIONS) -> numpy.ndarray:
    """E of the test server, whatever its model is called."""
    return expected_vector(text, dimensions)


@dataclass(frozen=True)
class ServerProcess:
    """The embeddings server in a process of its own; its log outlives whoever talks to it."""

    base_url: str
    log: Path

    @property
    def requests(self) -> list[Request]:
        return read_log(self.log)

    @property
    def sent_texts(self) -> list[str]:
        """Every text that reached the server, once for each time."""
        return [text for request in self.requests for text in request.texts]

    def received(self) -> int:
        """Count requests, quickly: this is asked every millisecond."""
        return self.log.read_bytes().count(b'"event": "received"')


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    """An embeddings server in this process, which can be told to fail."""
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def provider_process(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start the embeddings server as a process of its own."""
    with ExitStack() as stack:

        def start(delay_seconds: float) -> ServerProcess:
            port, log = tmp_path / "provider.port", tmp_path / "provider.log"
            log.touch()
            command = [sys.executable, "-m", "tests.servers.openai_server"]
            options = ["--port-file", str(port), "--log-file", str(log)]
            delay = ["--delay-seconds", str(delay_seconds)]
            process = stack.enter_context(subprocess.Popen([*command, *options, *delay]))
            stack.callback(process.kill)
            give_up = time.monotonic() + 60
            while not port.exists():
                assert time.monotonic() < give_up
                time.sleep(0.01)
            return ServerProcess(f"http://127.0.0.1:{port.read_text()}/v1", log)

        yield start


def openai_settings(base_url: str, **overrides: Any) -> dict[str, Any]:
    """Return the embedding section for the test server."""
    section = {
        "provider": "openai",
        "model": "tiny",
        "dimensions": DIMENSIONS,
        "base_url": base_url,
        "requests_in_flight": 2,
        "texts_per_request": 4,
        "retries": 0,
        "timeout_seconds": 20,
    }
    return section | overrides


@pytest.fixture
def open_settings() -> Iterator[Callable[[Settings], KnowledgeBase]]:
    """Open knowledge bases that are closed when the test ends."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(KnowledgeBase(settings))


@pytest.fixture
def fresh(servers: Any) -> Iterator[Callable[[Settings], KnowledgeBase]]:
    """Open a knowledge base with the same settings, over an empty database of its own."""
    with ExitStack() as stack:

        def make(settings: Settings) -> KnowledgeBase:
            urls = servers(16).urls(stack.enter_context(servers(16).new_database()))
            moved = {
                "database_url": urls.writer,
                "read_database_url": urls.reader,
                "archive_database_url": urls.archiver,
                "migration_database_url": urls.migrator,
            }
            return stack.enter_context(KnowledgeBase(settings.model_copy(update=moved)))

        yield make


@pytest.fixture
def openai_kb(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    provider: OpenAIServer,
) -> Callable[..., KnowledgeBase]:
    """Open knowledge bases over `folder` and the same database that ask `provider`."""

    def make(
        *, base_url: str = "", limits: Any = None, sources: Any = None, **embedding: Any
    ) -> Any:
        more: dict[str, Any] = {"splitting": corpus.SPLITTING}
        if limits:
            more["limits"] = limits
        if sources:
            more["sources"] = sources
        section = openai_settings(base_url or provider.base_url, **embedding)
        return open_settings(make_settings(embedding=section, **more))

    return make


@pytest.fixture
def shelf(
    make_settings: Callable[..., Settings],
    open_settings: Callable[[Settings], KnowledgeBase],
    tmp_path: Path,
) -> Iterator[Shelf]:
    """A knowledge base whose archive is a folder, with eight messages of an old month."""
    with Shelf(open_settings(make_settings(archive={"uri": str(tmp_path / "cold")}))) as shelf:
        shelf.append(*range(8))
        yield shelf
