"""LangChain's `index()` into PGVector, with its records in the same database.

`cleanup="full"`, because the other modes leave the chunks of deleted files behind. Files are
read directly: its own `DirectoryLoader` is slower.
"""

from collections.abc import Iterator
from pathlib import Path

from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_postgres import PGVector
from langchain_text_splitters import RecursiveCharacterTextSplitter
from sqlalchemy import create_engine, text

from benchmarks.peers.embedding import DIMENSIONS, EMBEDDER
from benchmarks.peers.protocol import (
    BATCH_TEXTS,
    CHUNK_CHARACTERS,
    Contestant,
    Texts,
    markdown_files,
    serve,
)


class Trivial(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return EMBEDDER.embed(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class LangChain(Contestant):
    def open(self, folder: Path, home: Path, url: str) -> None:
        self.folder = folder
        self.engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        self.splitter = RecursiveCharacterTextSplitter(chunk_size=CHUNK_CHARACTERS, chunk_overlap=0)
        self.store = PGVector(
            Trivial(),
            connection=self.engine,
            embedding_length=DIMENSIONS,
            create_extension=False,
        )
        self.records = SQLRecordManager("benchmark", engine=self.engine)
        self.records.create_schema()

    def index(self) -> dict[str, float]:
        index(
            self._chunks(),
            self.records,
            self.store,
            batch_size=BATCH_TEXTS,
            cleanup="full",
            cleanup_batch_size=BATCH_TEXTS,
            source_id_key="source",
            key_encoder="sha256",
        )
        return {}

    def _chunks(self) -> Iterator[Document]:
        for path in markdown_files(self.folder):
            for chunk in self.splitter.split_text((self.folder / path).read_text()):
                yield Document(page_content=chunk, metadata={"source": path})

    def stored(self) -> Texts:
        query = "select cmetadata->>'source', document from langchain_pg_embedding"
        found: Texts = {}
        with self.engine.connect() as connection:
            for path, chunk in connection.execute(text(query)):
                found.setdefault(path, set()).add(chunk)
        return found

    def wanted(self) -> Texts:
        found: Texts = {}
        for chunk in self._chunks():
            found.setdefault(chunk.metadata["source"], set()).add(chunk.page_content)
        return found


if __name__ == "__main__":
    serve(LangChain())
