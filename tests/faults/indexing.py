"""Indexing as a process of its own, which a test can kill: `python -m tests.faults.indexing`.

Settings come as one line of JSON. Each step that is worth waiting for is a line on stdout.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings


def make_batches_small(documents: int) -> None:
    """Let a small corpus take as many transactions as a large one."""
    from kb_assets.chunks import store
    from kb_assets.documents import reading
    from kb_assets.index import publish

    reading.MAX_BATCH_DOCUMENTS = documents
    store.MAX_REVISIONS = documents
    publish.MAX_DOCUMENTS = documents


class IndexingProcess:
    """One run in a process of its own.

    Args:
        settings: The knowledge base's.
        shard: The only shard to index, by its key; all by default.
        batch: The most documents in one transaction.
        prefix: What the program is started by, such as `setpriv` with its options.
        command: Another program to run; it is given no settings.
        environment: Variables to set for it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        shard: str = "",
        batch: int = 1000,
        prefix: Sequence[str] = (),
        command: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [*prefix, *(command or [sys.executable, "-m", __name__, shard, str(batch)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        if command is None:
            assert self._process.stdin is not None
            self._process.stdin.write(settings.model_dump_json() + "\n")
            self._process.stdin.flush()

    def __enter__(self) -> "IndexingProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def wait_for_line(self, seconds: float = 60.0) -> str:
        """Return the next line it says, or nothing if it has ended."""
        pipe = self._process.stdout
        assert pipe is not None
        readable, _, _ = select.select([pipe], [], [], seconds)
        assert readable, "it said nothing in time"
        return pipe.readline().strip()

    def kill_when(self, reached: Callable[[], bool], seconds: float = 120.0) -> bool:
        """Send SIGKILL at the moment a condition holds; say whether it was still running."""
        give_up = time.monotonic() + seconds
        while not self.is_over and not reached():
            assert time.monotonic() < give_up, "the moment to kill never came"
            time.sleep(0.001)
        return self.kill()

    def kill(self) -> bool:
        """Send SIGKILL; say whether it was still running."""
        if self.is_over:
            return False
        os.kill(self._process.pid, signal.SIGKILL)
        return self._process.wait(30) == -signal.SIGKILL

    def finish(self, seconds: float = 120.0) -> None:
        """Wait until it ends well."""
        out, error = self._process.communicate(timeout=seconds)
        assert self._process.returncode == 0, f"{out}\n{error}"


def main() -> None:
    shard, batch = sys.argv[1], int(sys.argv[2])
    make_batches_small(batch)
    settings = Settings(**json.loads(sys.stdin.readline()))
    with KnowledgeBase(settings) as kb:
        _ = kb.database
        print("opened", flush=True)
        kb.index(tuple(one for one in kb.settings.shards if one.key == shard))
    print("indexed", flush=True)


if __name__ == "__main__":
    main()
