"""Bringing objects and their sidecars together while a listing streams by.

Stores list keys in order, so a sidecar comes soon after its document, and only the
documents whose sidecar may still come are held. Where a store keeps another order and a
sidecar comes too late, the listing fails: a sidecar is never lost in silence.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from kb_assets.documents.sidecar import SUFFIX, joint_token
from kb_assets.documents.source import Entry
from kb_assets.errors import SourceError


@dataclass(frozen=True, slots=True)
class Object:
    """What a listing says of one object.

    Attributes:
        path: Its key, after the source's prefix.
        token: Its version, if the store gives one.
        size_bytes: Its size.
    """

    path: str
    token: str | None
    size_bytes: int


def paired(objects: Iterable[Object], wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """Yield the documents among the objects, each with its sidecar.

    Args:
        objects: A listing, in the order of the UTF-8 bytes of the keys.
        wanted: Which paths are documents.

    Raises:
        SourceError: The order is another, and a sidecar came after its document was let go.
    """
    waiting: dict[str, Object] = {}
    unclaimed: dict[str, Object] = {}
    before = b""
    in_order = True
    for item in objects:
        key = item.path.encode()
        in_order &= before <= key
        before = key
        for path in [path for path in waiting if (path + SUFFIX).encode() < key]:
            yield _entry(waiting.pop(path), None)
        if item.path.endswith(SUFFIX):
            document = waiting.pop(item.path.removesuffix(SUFFIX), None)
            if document is not None:
                yield _entry(document, item)
            elif wanted(item.path.removesuffix(SUFFIX)):
                unclaimed[item.path] = item
        elif wanted(item.path):
            beside = unclaimed.pop(item.path + SUFFIX, None)
            if beside is None:
                waiting[item.path] = item
            else:
                yield _entry(item, beside)
    yield from (_entry(document, None) for document in waiting.values())
    if unclaimed and not in_order:
        raise _lost(next(iter(unclaimed)))


def _entry(document: Object, beside: Object | None) -> Entry:
    if beside is None:
        return Entry(document.path, document.token, document.size_bytes)
    token = joint_token(document.token, beside.token)
    return Entry(document.path, token, document.size_bytes, beside.path)


def _lost(path: str) -> SourceError:
    return SourceError(
        f"The sidecar {path} cannot be told to have a document.",
        why="This store lists objects in no order, and the sidecar came late.",
        fix="Use a bucket that lists keys in order, or put metadata into front matter.",
    )
