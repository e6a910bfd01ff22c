"""Has a source changed since it was read? Its listing alone tells, for all its shards at once."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.documents.listing import row_of
from kb_assets.documents.open import open_source
from kb_assets.documents.recipe import Recipe
from kb_assets.documents.source import Entry
from kb_assets.documents.stage import listing_fingerprint, read_conditions
from kb_assets.errors import KbError, SourceUnavailableError
from kb_assets.fingerprints import Shard, slot
from kb_assets.settings import Settings, SourceSettings

_statements = Statements.beside(__file__)

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a source says of a shard.

    Attributes:
        shard: The shard.
        fingerprint: Of all that its documents follow from.
        is_read: Whether the last run read the very same, to the end.
        fence: Rises with every run that works on the shard.
    """

    shard: Shard
    fingerprint: bytes
    is_read: bool
    fence: int


class Watcher:
    """Looks at sources, side by side, and waits for none longer than it may."""

    def __init__(self, settings: Settings, recipe: Recipe) -> None:
        """Remember what is watched; nothing is looked at yet.

        Args:
            settings: Of the knowledge base.
            recipe: How its documents are processed.
        """
        self.sources = tuple(source for source in settings.sources if source.is_watched)
        self._settings = settings
        self._recipe = recipe
        self._listings = SideBySide[dict[Shard, bytes]]()

    def look(self, database: Database, seconds: float) -> dict[str, tuple[Look, ...] | KbError]:
        """Return what can be said of each source: its shards, or why it could not be listed.

        Args:
            database: Where it says what was read.
            seconds: How long to wait for listings.
        """
        erased = {source.name: _erased(database, source) for source in self.sources}
        found = self._listings.run(
            {source.name: self._listing(source, erased[source.name]) for source in self.sources},
            seconds,
        )
        looks: dict[str, tuple[Look, ...] | KbError] = {}
        for source in self.sources:
            listed = found.get(source.name) or _slow(source, seconds)
            looks[source.name] = (
                listed if isinstance(listed, KbError) else self._compare(database, source, listed)
            )
        return looks

    def _listing(
        self, source: SourceSettings, erased: frozenset[str]
    ) -> Callable[[], dict[Shard, bytes]]:
        def listing() -> dict[Shard, bytes]:
            entries = open_source(source, self._settings.root).entries()
            kept = (entry for entry in entries if entry.path not in erased)
            return fingerprints(kept if erased else entries, source.all_shards)

        return listing

    def _compare(
        self, database: Database, source: SourceSettings, listed: Mapping[Shard, bytes]
    ) -> tuple[Look, ...]:
        conditions = read_conditions(self._settings, source, self._recipe)
        with database.transaction() as connection:
            rows = connection.execute(
                _statements("find_listings"), {"source": source.name}
            ).fetchall()
        known = {(low, high): (fence, read) for low, high, fence, read in rows}
        looks = []
        for shard, entries in listed.items():
            fence, read = known.get((shard.slot_low, shard.slot_high), (0, None))
            seen = listing_fingerprint(entries, source, conditions)
            looks.append(Look(shard, seen, read == seen, fence))
        return tuple(looks)


class SideBySide(Generic[Found]):
    """Calls that may hang, each in a thread of its own.

    One that takes too long is left to itself, and not called again before it ended: the server
    of a folder that is gone holds whoever asks for it, for as long as it likes.
    """

    def __init__(self) -> None:
        self._going: dict[str, threading.Thread] = {}

    def run(
        self, calls: Mapping[str, Callable[[], Found]], seconds: float
    ) -> dict[str, Found | KbError]:
        """Return what those calls returned, or raised, that ended in time.

        Raises:
            Exception: What a call raised that nobody raises on purpose.
        """
        ended: dict[str, Found | Exception] = {}
        deadline = time.monotonic() + seconds
        for name, call in calls.items():
            if name not in self._going or not self._going[name].is_alive():
                self._going[name] = threading.Thread(
                    target=_note, args=(ended, name, call), name=f"listing {name}", daemon=True
                )
                self._going[name].start()
        for name in calls:
            self._going[name].join(max(0.0, deadline - time.monotonic()))
        results: dict[str, Found | KbError] = {}
        for name, result in list(ended.items()):
            if isinstance(result, Exception) and not isinstance(result, KbError):
                raise result
            results[name] = result
        return results


def fingerprints(entries: Iterable[Entry], shards: Sequence[Shard]) -> dict[Shard, bytes]:
    """Return the fingerprint of each shard's entries, as `Listed` has it.

    An entry without a version token counts, too, so that it is told from none.

    Args:
        entries: The listing of a source.
        shards: All of the source's shards, in order.
    """
    digests = [hashlib.sha256() for _ in shards]
    if len(digests) == 1:
        for entry in entries:
            digests[0].update(row_of(entry, own=True))
    else:
        owners = [
            digest
            for shard, digest in zip(shards, digests, strict=True)
            for _ in range(shard.slot_low, shard.slot_high)
        ]
        for entry in entries:
            owners[slot(entry.path)].update(row_of(entry, own=True))
    return {shard: digest.digest() for shard, digest in zip(shards, digests, strict=True)}


def _erased(database: Database, source: SourceSettings) -> frozenset[str]:
    with database.transaction() as connection:
        rows = connection.execute(_statements("find_erased_paths"), {"source": source.name})
        return frozenset(path for (path,) in rows)


def _note(ended: dict[str, Found | Exception], name: str, call: Callable[[], Found]) -> None:
    try:
        ended[name] = call()
    except Exception as error:
        ended[name] = error


def _slow(source: SourceSettings, seconds: float) -> KbError:
    return SourceUnavailableError(
        f"The source {source.name} was not listed within {seconds:.0f} seconds.",
        why="It is very large, or what serves it hangs.",
        fix="Set `watch = false` for it, so that the schedule alone looks at it, or see to "
        "its server.",
    )
