"""CocoIndex: walk a folder, split, embed, declare rows of a Postgres table.

A file is the unit of its memory, as in its own examples; all texts of a file are embedded in one
call. Rows are keyed by path and position, which costs less than its generated ids.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import asyncpg
import cocoindex as coco
import numpy
from cocoindex.connectors import localfs, postgres
from cocoindex.ops.text import RecursiveSplitter
from cocoindex.resources.file import FileLike, PatternFilePathMatcher
from cocoindex.resources.schema import VectorSchema
from numpy.typing import NDArray

from benchmarks.peers.embedding import DIMENSIONS, EMBEDDER
from benchmarks.peers.protocol import (
    CHUNK_CHARACTERS,
    Contestant,
    Texts,
    markdown_files,
    serve,
)

DATABASE = coco.ContextKey[asyncpg.Pool]("benchmark")
VECTOR = VectorSchema(dtype=numpy.dtype(numpy.float16), size=DIMENSIONS)

_splitter = RecursiveSplitter()
_where: dict[str, str] = {}


@dataclass
class Row:
    path: str
    start: int
    text: str
    embedding: Annotated[NDArray[numpy.float16], VECTOR]


@coco.lifespan
async def lifespan(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    builder.settings.db_path = Path(_where["home"]) / "cocoindex.db"
    async with asyncpg.create_pool(_where["url"]) as pool:
        builder.provide(DATABASE, pool)
        yield


def split(text: str) -> list[tuple[int, str]]:
    chunks = _splitter.split(
        text, chunk_size=CHUNK_CHARACTERS, chunk_overlap=0, language="markdown"
    )
    return [(chunk.start.char_offset, chunk.text) for chunk in chunks]


@coco.fn(memo=True)
async def process(file: FileLike, table: postgres.TableTarget[Row]) -> None:
    chunks = split(await file.read_text())
    if not chunks:
        return
    halves = EMBEDDER.embed([text for _, text in chunks]).astype(numpy.float16)
    path = str(file.file_path.path.relative_to(_where["folder"]))
    for (start, text), half in zip(chunks, halves, strict=True):
        table.declare_row(row=Row(path, start, text, half))


@coco.fn
async def run(folder: Path) -> None:
    schema = await postgres.TableSchema.from_class(Row, primary_key=["path", "start"])
    table = await postgres.mount_table_target(DATABASE, "chunks", schema)
    files = localfs.walk_dir(
        folder,
        recursive=True,
        path_matcher=PatternFilePathMatcher(included_patterns=["**/*.md"]),
    )
    await coco.mount_each(process, files.items(), table)


class CocoIndex(Contestant):
    def open(self, folder: Path, home: Path, url: str) -> None:
        _where.update(folder=str(folder), home=str(home), url=url)
        self.folder, self.url = folder, url
        self.app = coco.App(coco.AppConfig(name="benchmark"), run, folder=folder)

    def index(self) -> dict[str, float]:
        self.app.update_blocking()
        return {}

    def stored(self) -> Texts:
        async def rows() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.url)
            try:
                return await connection.fetch("select path, text from chunks")
            finally:
                await connection.close()

        found: Texts = {}
        for path, text in asyncio.run(rows()):
            found.setdefault(path, set()).add(text)
        return found

    def wanted(self) -> Texts:
        return {
            path: {text for _, text in split((self.folder / path).read_text())}
            for path in markdown_files(self.folder)
        }


if __name__ == "__main__":
    serve(CocoIndex())
