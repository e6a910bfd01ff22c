"""What every adapter does: search, and turn hits into what other frameworks keep of a passage."""

import logging
from typing import Any

from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.hits import Hit

_log = logging.getLogger(__name__)


def search(knowledge_base: KnowledgeBase, text: str, **chosen: Any) -> tuple[Hit, ...]:  # noqa: ANN401
    """Return the hits; what was not as it should be is logged, for no framework has a place for it.

    Raises:
        KbError: What `KnowledgeBase.search` raises.
    """
    results = knowledge_base.search(text, **chosen)
    for note in results.notes:
        _log.warning("%s", note)
    return results.hits


def id_of(hit: Hit) -> str:
    """Return the same id for the same passage as long as its document does not change.

    It is `source:path#revision:first-last`, the first and the last chunk of the passage.
    """
    return f"{hit.source}:{hit.path}#{hit.revision_id}:{hit.ordinal}-{hit.last_ordinal}"


def metadata_of(hit: Hit) -> dict[str, Any]:
    """Return where a passage stands; the document's own metadata stays apart, under `metadata`."""
    return {
        "source": hit.source,
        "path": hit.path,
        "title": hit.title,
        "heading_path": list(hit.heading_path),
        "byte_start": hit.byte_start,
        "byte_end": hit.byte_end,
        "tags": list(hit.tags),
        "revision_id": hit.revision_id,
        "ordinal": hit.ordinal,
        "last_ordinal": hit.last_ordinal,
        "metadata": dict(hit.metadata),
    }
