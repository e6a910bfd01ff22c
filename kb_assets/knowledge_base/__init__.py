"""A knowledge base as a library, in parts that build on one another.

::

    KnowledgeBase
    ├── Erasing          a conversation, a user or a document, for good
    │   └── Archiving    old messages: moved, queried, verified, brought back
    │       └── Indexing read, split, embed, publish; where every document is
    └── Judging          golden questions, verdicts, which space answers
        └── Searching    search, explain, ask
            └── Connections
"""

from kb_assets.knowledge_base.indexing import (
    SECONDS_PER_DAY,
    IndexReport,
    ShardReport,
    ShardStatus,
    Status,
)
from kb_assets.knowledge_base.knowledge_base import KnowledgeBase

__all__ = [
    "SECONDS_PER_DAY",
    "IndexReport",
    "KnowledgeBase",
    "ShardReport",
    "ShardStatus",
    "Status",
]
