"""The archive against its manifests: every object read back, whoever may have changed it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from kb_assets.archive.plan import manifest_key
from kb_assets.archive.relation import MESSAGES, Aging
from kb_assets.archive.store import Segment, find_segments
from kb_assets.archive.verify import fetch_verified
from kb_assets.database.connect import Database
from kb_assets.errors import ArchiveCorruptError, NotFoundError
from kb_assets.object_store import ObjectStore

AUDITED = ("committed", "restored")
"""The states of segments whose objects must be there."""

Watch = Callable[[int, int], None]
"""Told how many objects of how many were looked at."""


@dataclass(frozen=True, slots=True)
class SegmentVerdict:
    """What was found of one segment.

    Attributes:
        segment: Its number.
        month: The first day of its month.
        state: `committed`, or `restored`: its rows are hot again, its object is kept.
        url: Where its object is.
        rows: How many rows it must hold.
        object_bytes: How large it must be.
        damage: What is wrong with it; None if it is whole.
    """

    segment: int
    month: date
    state: str
    url: str
    rows: int
    object_bytes: int
    damage: ArchiveCorruptError | None


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found of every segment, by month."""

    segments: tuple[SegmentVerdict, ...]

    @property
    def damaged(self) -> tuple[SegmentVerdict, ...]:
        """Those that are not what they must be."""
        return tuple(one for one in self.segments if one.damage is not None)


def verify_archive(
    database: Database,
    store: ObjectStore,
    *,
    watch: Watch = lambda done, of: None,
    aging: Aging = MESSAGES,
) -> AuditReport:
    """Read every object back that is part of the archive, and recompute all its rows' hashes.

    Nothing comes from the local cache. A damaged object stops no others.

    Args:
        database: Where the manifests are.
        store: Where the objects are.
        watch: Told how far it is.
        aging: The table.

    Raises:
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    with database.transaction() as connection:
        segments = find_segments(connection, states=AUDITED, aging=aging)
    return verify_segments(store, segments, watch=watch, aging=aging)


def verify_segments(
    store: ObjectStore,
    segments: Sequence[Segment],
    *,
    watch: Watch = lambda done, of: None,
    aging: Aging = MESSAGES,
) -> AuditReport:
    """Read the objects of some segments back; see `verify_archive`.

    Raises:
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    verdicts = []
    for done, segment in enumerate(segments):
        watch(done, len(segments))
        with TemporaryDirectory(prefix="kb-verify-") as folder:
            verdicts.append(_verdict(store, segment, aging, Path(folder)))
    return AuditReport(tuple(verdicts))


def _verdict(store: ObjectStore, segment: Segment, aging: Aging, folder: Path) -> SegmentVerdict:
    damage = None
    try:
        fetch_verified(store, segment.facts, aging, folder)
        _compare_manifest(store, segment)
    except ArchiveCorruptError as error:
        damage = error
    return SegmentVerdict(
        segment.id,
        segment.month,
        segment.state,
        store.url(segment.object_key),
        segment.rows,
        segment.object_bytes,
        damage,
    )


def _compare_manifest(store: ObjectStore, segment: Segment) -> None:
    key = manifest_key(segment.object_key)
    try:
        found = json.loads(store.read(key))
    except NotFoundError:
        why = "It is not there."
    except ValueError:
        why = "It is not JSON."
    else:
        if found == segment.manifest:
            return
        why = "It says something else."
    raise ArchiveCorruptError(
        f"{store.url(key)} is not the manifest that the database has.",
        why=why,
        fix="Bring it back from a copy of the store, or write what the database has there: "
        f"the column `manifest` of segment {segment.id} in kb.archive_segment.",
    )
