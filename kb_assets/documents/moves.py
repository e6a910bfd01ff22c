"""Which new paths hold a document that is known under a path that is gone."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from kb_assets.documents.plan import Candidate, State

_Content = tuple[State, str]


class Moves:
    """Documents that are missing and may turn up under another path.

    The ending of a path says how its content is read, so only a path with the same ending holds
    the same document.
    """

    def __init__(self, missing: Iterable[tuple[int, str, State]]) -> None:
        """Take ids, paths and contents of the missing documents; read when one may be needed."""
        self._missing = missing
        self._ids: defaultdict[_Content, list[int]] | None = None

    def take(self, candidate: Candidate, content: State) -> int | None:
        """Return the missing document that a new path holds, if it does; each is taken once."""
        if candidate.document_id is not None:
            return None
        if self._ids is None:
            self._ids = defaultdict(list)
            for id_, path, state in self._missing:
                self._ids[state, _ending(path)].append(id_)
        ids = self._ids.get((content, _ending(candidate.entry.path)))
        return ids.pop() if ids else None


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
