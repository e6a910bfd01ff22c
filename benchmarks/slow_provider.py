"""A provider of embeddings that takes as long as one far away, and next to no computing.

    python -m benchmarks.slow_provider PORT_FILE SECONDS [TEXTS_PER_SECOND]

It speaks OpenAI's protocol. Vectors come from a stock made beforehand: which one is a function of
the text (`vector_of`), so that what was stored can be told from what should have been.
"""

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy

DIMENSIONS = 384
_KINDS = 1024


@cache
def _stock() -> numpy.ndarray:
    return numpy.random.default_rng(3).standard_normal((_KINDS, DIMENSIONS)).astype("<f4")


@cache
def _items() -> list[bytes]:
    return [
        b'{"object":"embedding","embedding":"%s","index":' % base64.b64encode(row.tobytes())
        for row in _stock()
    ]


def vector_of(text: str) -> numpy.ndarray:
    """Return what the provider gives for a text."""
    return _stock()[zlib.crc32(text.encode()) % _KINDS]


@contextmanager
def running(seconds: float, texts_per_second: float = 0) -> Iterator[str]:
    """Run a provider in a process of its own; yields its address.

    Args:
        seconds: What each request takes.
        texts_per_second: What all requests together may have; more wait. 0 for no limit.
    """
    folder = Path(tempfile.mkdtemp(prefix="kb-slow-provider-"))
    port = folder / "port"
    command = [sys.executable, "-m", "benchmarks.slow_provider", port, str(seconds)]
    command += [str(texts_per_second)]
    server = subprocess.Popen(command)
    try:
        while not port.exists():
            assert server.poll() is None, "the server did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text()}/v1"
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    seconds = 0.0
    seconds_per_text = 0.0
    one_at_a_time = threading.Lock()
    free_at = 0.0

    def do_POST(self) -> None:
        arrived = time.monotonic()
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        due = self._granted(arrived, len(texts)) + self.seconds
        items = _items()
        data = b",".join(
            items[zlib.crc32(text.encode()) % _KINDS] + b"%d}" % place
            for place, text in enumerate(texts)
        )
        body = (
            b'{"object":"list","model":"slow","usage":{"prompt_tokens":%d,"total_tokens":%d},'
            b'"data":[%s]}' % (len(texts), len(texts), data)
        )
        time.sleep(max(0.0, due - time.monotonic()))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _granted(self, arrived: float, texts: int) -> float:
        with self.one_at_a_time:
            _Handler.free_at = max(arrived, self.free_at) + texts * self.seconds_per_text
            return self.free_at

    def log_message(self, *_: object) -> None: ...


def main() -> None:
    _items()
    _Handler.seconds = float(sys.argv[2])
    texts_per_second = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    _Handler.seconds_per_text = 1 / texts_per_second if texts_per_second else 0.0
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    draft = Path(f"{sys.argv[1]}.draft")
    draft.write_text(str(server.server_address[1]))
    draft.rename(sys.argv[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
