"""A Dagster data platform for knowledge bases on PostgreSQL and pgvector.

    from kb_assets import KnowledgeBase

    with KnowledgeBase.open() as kb:
        kb.index()
        for hit in kb.search("How do I roll a deployment back?"):
            print(hit.score, hit.path, " > ".join(hit.heading_path))

What is named here is the public surface; everything else may change. Nothing is imported
before it is used, so that `kb --help` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kb_assets.embeddings.embedder import Answer, Embedder, Model
    from kb_assets.errors import KbError, PermanentError, TransientError
    from kb_assets.knowledge_base import KnowledgeBase
    from kb_assets.messages.message import Message
    from kb_assets.messages.window import Window
    from kb_assets.retrieval.answer import Reply
    from kb_assets.retrieval.hits import Hit
    from kb_assets.settings import Settings

__all__ = [
    "Answer",
    "Embedder",
    "Hit",
    "KbError",
    "KnowledgeBase",
    "Message",
    "Model",
    "PermanentError",
    "Reply",
    "Settings",
    "TransientError",
    "Window",
]

_HOMES = {
    "Answer": "kb_assets.embeddings.embedder",
    "Embedder": "kb_assets.embeddings.embedder",
    "Hit": "kb_assets.retrieval.hits",
    "KbError": "kb_assets.errors",
    "KnowledgeBase": "kb_assets.knowledge_base",
    "Message": "kb_assets.messages.message",
    "Model": "kb_assets.embeddings.embedder",
    "PermanentError": "kb_assets.errors",
    "Reply": "kb_assets.retrieval.answer",
    "Settings": "kb_assets.settings",
    "TransientError": "kb_assets.errors",
    "Window": "kb_assets.messages.window",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "__version__":
        # It takes longer to import than all that most commands need.
        from importlib.metadata import version

        return version("kb-assets")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
