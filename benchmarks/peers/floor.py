"""What nobody can do without: list, read, hash, embed what is new, and COPY the rows.

Knows what it has from memory, guards against nothing, and cuts texts every 1,000 characters.
"""

import hashlib
import os
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import numpy.typing
import psycopg

from benchmarks.peers.embedding import DIMENSIONS, EMBEDDER
from benchmarks.peers.protocol import BATCH_TEXTS, CHUNK_CHARACTERS, Contestant, Texts, serve

TABLES = f"""
create table document (id integer primary key, path text not null, hash bytea not null);
create table chunk (document integer, ordinal integer, hash bytea not null, text text not null,
    primary key (document, ordinal));
create table embedding (hash bytea primary key, vector halfvec({DIMENSIONS}) not null);
"""

Stamp = tuple[int, int]
_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
_VECTOR = struct.Struct(f"!hi32sihh{2 * DIMENSIONS}s")
_CHUNK = struct.Struct("!hiiiii32si")
_DOCUMENT = struct.Struct("!hiii")
_HASH = struct.Struct("!i32s")


@dataclass(slots=True)
class _Known:
    id: int
    stamp: Stamp
    hash: bytes


@dataclass(slots=True)
class _Stopwatch:
    parts: dict[str, float] = field(default_factory=dict)
    at: float = field(default_factory=time.perf_counter)

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.at
        self.at = now


def listing(folder: str) -> Iterator[tuple[str, Stamp]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from listing(entry.path)
            else:
                stat = entry.stat(follow_symlinks=False)
                yield entry.path, (stat.st_size, stat.st_mtime_ns)


def pieces(content: bytes) -> list[str]:
    text = content.decode()
    return [text[at : at + CHUNK_CHARACTERS] for at in range(0, len(text), CHUNK_CHARACTERS)]


class Floor(Contestant):
    def open(self, folder: Path, home: Path, url: str) -> None:
        self.folder = str(folder)
        self.connection = psycopg.connect(url)
        self.connection.execute(TABLES)
        self.connection.commit()
        self.known: dict[str, _Known] = {}
        self.embedded: set[bytes] = set()
        self.next_id = 0

    def index(self) -> dict[str, float]:
        watch = _Stopwatch()
        found = dict(listing(self.folder))
        touched = [p for p, stamp in found.items() if self._stamp(p) != stamp]
        gone = [self.known.pop(p).id for p in self.known.keys() - found.keys()]
        watch.lap("scan and stat")
        changed = []
        for path in touched:
            content = Path(path).read_bytes()
            digest = hashlib.sha256(content).digest()
            known = self.known.get(path)
            if known is not None and known.hash == digest:
                known.stamp = found[path]
                continue
            if known is not None:
                gone.append(known.id)
            self.known[path] = _Known(self.next_id, found[path], digest)
            changed.append((self.known[path], path, content))
            self.next_id += 1
        watch.lap("read and hash")
        self._write(changed, gone, watch)
        return watch.parts

    def _stamp(self, path: str) -> Stamp | None:
        known = self.known.get(path)
        return None if known is None else known.stamp

    def _write(
        self, changed: list[tuple[_Known, str, bytes]], gone: list[int], watch: _Stopwatch
    ) -> None:
        chunks = [
            (known.id, ordinal, hashlib.sha256(text.encode()).digest(), text)
            for known, _, content in changed
            for ordinal, text in enumerate(pieces(content))
        ]
        new = {digest: text for _, _, digest, text in chunks if digest not in self.embedded}
        self.embedded |= new.keys()
        watch.lap("cut and hash")
        vectors: list[tuple[bytes, numpy.typing.NDArray[numpy.float16]]] = []
        digests, texts = list(new), list(new.values())
        for at in range(0, len(texts), BATCH_TEXTS):
            halves = EMBEDDER.embed(texts[at : at + BATCH_TEXTS]).astype(">f2")
            vectors += zip(digests[at : at + BATCH_TEXTS], halves, strict=True)
        watch.lap("embed")
        if not changed and not gone:
            return
        if gone:
            self.connection.execute("delete from chunk where document = any(%s)", (gone,))
            self.connection.execute("delete from document where id = any(%s)", (gone,))
        self._copy("document", (_document_row(known, path) for known, path, _ in changed))
        self._copy("chunk", (_chunk_row(*chunk) for chunk in chunks))
        self._copy("embedding", (_vector_row(digest, half.tobytes()) for digest, half in vectors))
        self.connection.commit()
        watch.lap("copy")

    def _copy(self, table: str, rows: Iterable[bytes]) -> None:
        statement = f"copy {table} from stdin (format binary)"
        with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(_HEADER + b"".join(rows) + _TRAILER)

    def stored(self) -> Texts:
        query = "select path, text from chunk join document on document.id = chunk.document"
        found: Texts = {}
        for path, text in self.connection.execute(query):
            found.setdefault(path, set()).add(text)
        self.connection.commit()
        return found

    def wanted(self) -> Texts:
        return {path: set(pieces(Path(path).read_bytes())) for path, _ in listing(self.folder)}


def _document_row(known: _Known, path: str) -> bytes:
    name = path.encode()
    return _DOCUMENT.pack(3, 4, known.id, len(name)) + name + _HASH.pack(32, known.hash)


def _chunk_row(document: int, ordinal: int, digest: bytes, text: str) -> bytes:
    encoded = text.encode()
    return _CHUNK.pack(4, 4, document, 4, ordinal, 32, digest, len(encoded)) + encoded


def _vector_row(digest: bytes, half: bytes) -> bytes:
    return _VECTOR.pack(2, 32, digest, len(half) + 4, DIMENSIONS, 0, half)


if __name__ == "__main__":
    serve(Floor())
