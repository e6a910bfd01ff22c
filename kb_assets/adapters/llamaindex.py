"""A knowledge base as a LlamaIndex retriever; needs `pip install 'kb-assets[llamaindex]'`."""

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from kb_assets.adapters.passages import id_of, metadata_of, search
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.conditions import Condition
from kb_assets.retrieval.query import Caller, Mode

_NOT_TO_BE_READ = ["byte_start", "byte_end", "revision_id", "ordinal", "last_ordinal"]
"""Metadata that says nothing to a model: LlamaIndex puts the rest before the text."""


class KnowledgeBaseRetriever(BaseRetriever):
    """Finds nodes with `KnowledgeBase.search`; what is set here is what that takes."""

    def __init__(
        self,
        knowledge_base: KnowledgeBase,
        *,
        limit: int = 10,
        sources: tuple[str, ...] = (),
        path_prefix: str = "",
        tags: tuple[str, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        where: str | Mapping[str, Any] | Condition | None = None,
        mode: Mode | None = None,
        per_document: int = 0,
        min_score: float | None = None,
        caller: Caller | str | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        """Remember an open knowledge base, and how to search it; whoever opened it closes it."""
        super().__init__(callback_manager)
        self._knowledge_base = knowledge_base
        self._chosen = {
            "limit": limit,
            "sources": sources,
            "path_prefix": path_prefix,
            "tags": tags,
            "metadata": metadata,
            "where": where,
            "mode": mode,
            "per_document": per_document,
            "min_score": min_score,
            "caller": caller,
        }

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = search(self._knowledge_base, query_bundle.query_str, **self._chosen)
        return [
            NodeWithScore(
                node=TextNode(
                    id_=id_of(hit),
                    text=hit.text,
                    metadata=metadata_of(hit),
                    excluded_llm_metadata_keys=_NOT_TO_BE_READ,
                    excluded_embed_metadata_keys=_NOT_TO_BE_READ,
                ),
                score=hit.score,
            )
            for hit in hits
        ]
