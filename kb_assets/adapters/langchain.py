"""A knowledge base as a LangChain retriever; needs `pip install 'kb-assets[langchain]'`."""

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from kb_assets.adapters.passages import id_of, metadata_of, search
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.query import Caller, Mode


class KnowledgeBaseRetriever(BaseRetriever):
    """Finds documents with `KnowledgeBase.search`; what is set here is what that takes.

    So `tags` and `metadata` say which documents are found. LangChain's traces show them as well;
    to label traces only, use `retriever.with_config(tags=…, metadata=…)`.

    Attributes:
        knowledge_base: An open one; whoever opened it closes it.
        where: A condition as text, as JSON or as a value.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    knowledge_base: KnowledgeBase
    limit: int = 10
    sources: tuple[str, ...] = ()
    path_prefix: str = ""
    where: Any = None
    mode: Mode | None = None
    per_document: int = 0
    min_score: float | None = None
    caller: Caller | str | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        hits = search(
            self.knowledge_base,
            query,
            limit=self.limit,
            sources=self.sources,
            path_prefix=self.path_prefix,
            tags=tuple(self.tags or ()),
            metadata=self.metadata,
            where=self.where,
            mode=self.mode,
            per_document=self.per_document,
            min_score=self.min_score,
            caller=self.caller,
        )
        return [
            Document(
                page_content=hit.text,
                id=id_of(hit),
                metadata={"score": hit.score, **metadata_of(hit)},
            )
            for hit in hits
        ]
