"""LlamaIndex's `IngestionPipeline` into PGVectorStore, with UPSERTS_AND_DELETE.

What it knows of documents is in its docstore: in Postgres, or with `--file` in memory and
written out whole after each run. Texts are kept in it, because deleting needs them. Chunks are
cut by LangChain's splitter through LlamaIndex's own wrapper, because its own splitters count
tokens with a downloaded vocabulary.
"""

import sys
from pathlib import Path

import psycopg2
from langchain_text_splitters import RecursiveCharacterTextSplitter
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import LangchainNodeParser
from llama_index.core.schema import Document
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.storage.docstore.postgres import PostgresDocumentStore
from llama_index.storage.kvstore.postgres import PostgresKVStore
from llama_index.vector_stores.postgres import PGVectorStore

from benchmarks.peers.embedding import DIMENSIONS, EMBEDDER
from benchmarks.peers.protocol import (
    BATCH_TEXTS,
    CHUNK_CHARACTERS,
    Contestant,
    Texts,
    markdown_files,
    serve,
)


class Trivial(BaseEmbedding):
    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return EMBEDDER.embed(texts).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def in_postgres(connections: dict[str, str]) -> PostgresDocumentStore:
    """Return its docstore in Postgres, which writes many rows at once; one by default."""
    values = PostgresKVStore.from_params(**connections, table_name="docstore", use_jsonb=True)
    return PostgresDocumentStore(values, batch_size=BATCH_TEXTS)


class LlamaIndex(Contestant):
    def __init__(self, *, file: bool) -> None:
        self.file = file

    def open(self, folder: Path, home: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.docstore_file = str(home / "docstore.json")
        connections = {
            "connection_string": url.replace("postgresql:", "postgresql+psycopg2:"),
            "async_connection_string": url.replace("postgresql:", "postgresql+asyncpg:"),
        }
        self.splitter = RecursiveCharacterTextSplitter(chunk_size=CHUNK_CHARACTERS, chunk_overlap=0)
        self.pipeline = IngestionPipeline(
            transformations=[
                LangchainNodeParser(self.splitter),
                Trivial(embed_batch_size=BATCH_TEXTS),
            ],
            vector_store=PGVectorStore.from_params(
                **connections,
                table_name="chunks",
                embed_dim=DIMENSIONS,
                use_halfvec=True,
                use_jsonb=True,
            ),
            docstore=SimpleDocumentStore() if self.file else in_postgres(connections),
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
            disable_cache=True,
        )

    def index(self) -> dict[str, float]:
        documents = [
            Document(text=(self.folder / path).read_text(), id_=path)
            for path in markdown_files(self.folder)
        ]
        self.pipeline.run(documents=documents)
        if self.file:
            self.pipeline.docstore.persist(self.docstore_file)
        return {}

    def stored(self) -> Texts:
        found: Texts = {}
        with psycopg2.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute("select metadata_->>'ref_doc_id', text from data_chunks")
            for path, chunk in cursor:
                found.setdefault(path, set()).add(chunk)
        return found

    def wanted(self) -> Texts:
        return {
            path: set(self.splitter.split_text((self.folder / path).read_text()))
            for path in markdown_files(self.folder)
        }


if __name__ == "__main__":
    serve(LlamaIndex(file="--file" in sys.argv))
