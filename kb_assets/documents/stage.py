"""From a source's listing to stored revisions: only what may have changed is read."""

import dataclasses
import time
from contextlib import ExitStack
from dataclasses import dataclass

from kb_assets.database.lease import Lease
from kb_assets.database.run import Run
from kb_assets.documents.batch import Batch
from kb_assets.documents.listing import Absence, Listed, Listing
from kb_assets.documents.open import open_source
from kb_assets.documents.reading import Reader
from kb_assets.documents.recipe import Recipe
from kb_assets.documents.source import DocumentSource
from kb_assets.documents.store import DocumentStore, ensure_recipe, ensure_source, find_state
from kb_assets.fingerprints import Shard, settings_fingerprint
from kb_assets.settings import Settings, SourceSettings


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What came of reading one shard.

    Attributes:
        found: Documents in the listing.
        unchanged: Documents whose version token was the known one; not opened.
        touched: Read, and found to be as they were.
        added: New documents.
        changed: Documents with a new revision.
        reverted: Documents whose content is what readers see, so that nothing waits any more.
        quarantined: Documents that could not be read or parsed by this run.
        returned: Documents that had been missed, and are there again.
        moved: Documents gone from one path whose content stands under another, now theirs if
            that is new.
        vanished: Documents gone; they leave search at the next publish.
        withheld: Documents gone, but too many of them: they stay until that is confirmed.
        bytes_read: Bytes of content that were read.
        seconds: How long it took.
    """

    found: int
    unchanged: int
    touched: int
    added: int
    changed: int
    reverted: int
    quarantined: int
    returned: int
    moved: int
    vanished: int
    withheld: int
    bytes_read: int
    seconds: float


@dataclass(slots=True)
class _Tally:
    touched: int = 0
    added: int = 0
    changed: int = 0
    reverted: int = 0
    quarantined: int = 0
    returned: int = 0
    moved: int = 0
    vanished: int = 0
    withheld: int = 0
    bytes_read: int = 0
    kept: int = 0
    """Those among the moved that are the same documents still."""
    is_certain: bool = True
    """Whether an equal listing would leave nothing to be done."""

    def add(self, batch: Batch) -> None:
        added = sum(one.read.candidate.document_id is None for one in batch.parsed)
        self.added += added
        self.changed += len(batch.parsed) - added
        self.touched += len(batch.touched)
        self.reverted += len(batch.reverted)
        self.quarantined += len(batch.refused)
        self.kept += len(batch.moved)
        # What was not read, or changed while it was, is read again next time.
        self.is_certain &= len(batch.read) == len(batch.candidates)
        self.is_certain &= all(one.token == one.candidate.entry.token for one in batch.read)

    def report(self, found: int, seconds: float) -> ReadReport:
        read = self.touched + self.added + self.changed + self.reverted + self.quarantined
        read += self.kept
        counts = dataclasses.asdict(self)
        del counts["is_certain"], counts["kept"]
        return ReadReport(found=found, unchanged=found - read, seconds=seconds, **counts)


def read_conditions(settings: Settings, source: SourceSettings, recipe: Recipe) -> bytes:
    """Return the fingerprint of all that decides, beside content, whether a document is refused."""
    return settings_fingerprint(
        {
            "recipe": recipe.fingerprint.hex(),
            "max_document_bytes": source.max_document_bytes,
            "parse_seconds": settings.limits.parse_seconds,
            "parse_memory_bytes": settings.limits.parse_memory_bytes,
        }
    )


def listing_fingerprint(listed: bytes, source: SourceSettings, conditions: bytes) -> bytes:
    """Return what is stored of a shard's listing once everything in it was read.

    Args:
        listed: The fingerprint of the entries.
        source: The settings of the shard's source.
        conditions: See `read_conditions`.
    """
    return settings_fingerprint(
        {
            "listing": listed.hex(),
            "source": source.model_dump(mode="json", exclude=set(source.BY_ITSELF)),
            "conditions": conditions.hex(),
        }
    )


def read_documents(run: Run, shard: Shard, recipe: Recipe) -> ReadReport:
    """Bring a shard's documents up to date with its source.

    New and changed documents get a revision that waits to be published; what readers see
    stays. What cannot be read or parsed is quarantined. Documents that are gone are marked,
    unless so many are gone that it looks like an accident. A listing that is what it was when
    all of it had been read is not looked into, and nothing is written.

    Raises:
        SourceError: The source is missing, or not ours to read.
        SourceUnavailableError: It could not be listed or read to the end.
        ShardBusyError: Another run holds the shard.
        LeaseLostError: Another run took the shard over.
    """
    started = time.monotonic()
    settings = run.settings.source(shard.source)
    source = open_source(settings, run.settings.root)
    conditions = read_conditions(run.settings, settings, recipe)
    before = find_state(run.database, shard)
    with ExitStack() as stack:
        listed = stack.enter_context(Listed(before.leave_out_erased(source.entries()), shard))
        known = before.listing is not None and not run.verify
        if known and before.listing == _fingerprint(listed, settings, conditions):
            return _Tally().report(listed.found, time.monotonic() - started)
        ensure_source(run.database, settings)
        lease = stack.enter_context(run.lease(shard))
        now = find_state(run.database, shard)
        others = now.leases != before.leases + 1 or now.erased != before.erased
        if others or lease.waited:
            # Another run was at work after we had listed: what it saw may be newer.
            listed = stack.enter_context(Listed(now.leave_out_erased(source.entries()), shard))
        store = DocumentStore(run.database, lease, conditions)
        store.forget_listing()
        tally = _bring_up_to_date(run, store, lease, source, listed, recipe)
        fingerprint = _fingerprint(listed, settings, conditions) if tally.is_certain else None
        store.record_listing(listed.found, fingerprint)
    return tally.report(listed.found, time.monotonic() - started)


def _fingerprint(listed: Listed, source: SourceSettings, conditions: bytes) -> bytes | None:
    """Return what the state of a shard's documents follows from, if it is known."""
    if listed.fingerprint is None:
        return None
    return listing_fingerprint(listed.fingerprint, source, conditions)


def _bring_up_to_date(
    run: Run,
    store: DocumentStore,
    lease: Lease,
    source: DocumentSource,
    listed: Listed,
    recipe: Recipe,
) -> _Tally:
    tally = _Tally()
    settings = run.settings.source(lease.shard.source)
    recipe_id = ensure_recipe(run.database, recipe)
    conditions = read_conditions(run.settings, settings, recipe)
    with run.database.session() as connection:
        listing = Listing(connection, lease.shard, source_id=lease.source_id)
        listing.fill(listed)
        tally.returned = listing.welcome_back(lease)
        moves = listing.moves(recipe_id)
        candidates = listing.to_read(recipe_id, conditions, everything=run.verify)
        with Reader(source, settings, run.settings.limits, recipe_id, moves) as reader:
            for batch in reader.read(candidates):
                store.save(batch)
                tally.add(batch)
            tally.bytes_read = reader.bytes_read
        _mark_absent(run, store, listing.absence(), tally)
    return tally


def _mark_absent(run: Run, store: DocumentStore, absence: Absence, tally: _Tally) -> None:
    guard = run.settings.limits.max_deleted_share
    withheld = () if run.confirm_deletes else absence.withheld(guard)
    gone = absence.unseen if withheld else (*absence.unseen, *absence.lost)
    store.mark_absent(vanished=(*absence.moved, *gone), withheld=withheld)
    tally.moved = tally.kept + len(absence.moved)
    tally.vanished, tally.withheld = len(gone), len(withheld)
    tally.is_certain &= not withheld
