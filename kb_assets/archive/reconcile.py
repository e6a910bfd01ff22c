"""The archive and a database that was restored to a state of before: made one again.

Since the backup, objects may have been replaced and removed; notes beside them say by what. And
there may be objects that the database has never heard of: of months that left after the backup,
and are hot again. Their month comes back as a whole, with what the backup did not have, and the
next run archives it anew. So nothing that was ever archived is lost, nothing is there twice, and
no object is left that erasures would not reach.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from kb_assets.archive.audit import AUDITED
from kb_assets.archive.contents import Contents, End
from kb_assets.archive.lease import MonthLease, month_lease
from kb_assets.archive.manifest import ObjectFacts
from kb_assets.archive.plan import Window, window_of
from kb_assets.archive.relation import MESSAGES, Aging
from kb_assets.archive.restore import copy_objects, fill_month
from kb_assets.archive.store import Segment, find_segments
from kb_assets.archive.verify import fetch_verified
from kb_assets.archive.workplace import remove_abandoned, workplace
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.errors import ArchiveCorruptError
from kb_assets.object_store import ObjectStore

_LEFT_OVER = "It is from after the backup that was restored, and nothing needs it any more."

_statements = Statements(Path(__file__).with_name("reconciling.sql"))


@dataclass(slots=True)
class ReconcileReport:
    """What a restored database was told of its archive.

    Attributes:
        replaced: Segments that were replaced since the backup, and are now again.
        months: Months that came back, because the archive had more of them than the database.
        rows: How many rows came back with them; others were in the database already.
        leftovers: Objects that nothing needs any more; a later run removes them.
        problems: What could not be done, month by month: nothing was changed there.
    """

    replaced: int = 0
    months: list[date] = field(default_factory=list)
    rows: int = 0
    leftovers: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Plan:
    """What is to be done in a month.

    Attributes:
        swaps: By segment: what is left of it, an object or nothing.
        retired: Objects whose rows are in others, which come back.
        returning: Objects that the database does not know.
        leftovers: Objects that it does not know, and need not.
    """

    swaps: list[tuple[Segment, str | None]] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    returning: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Work:
    run: Run
    store: ObjectStore
    aging: Aging
    contents: Contents
    lease: MonthLease
    folder: Path


def reconcile_archive(run: Run, store: ObjectStore, *, aging: Aging = MESSAGES) -> ReconcileReport:
    """Tell a restored database what became of its archive since the backup; safe to run again.

    From then on the archive is this database's: the one that was lost must not go on with it.
    What was erased since must be hidden already.

    Args:
        run: Who works.
        store: The archive's destination.
        aging: The table.

    Raises:
        ArchiveBusyError: Another run is at work in a month, and did not finish in time.
        ObjectStoreError: The store refuses us.
        TransientError: The database, the store or the disk failed; what is done stays done.
    """
    remove_abandoned(run.settings.home_folder)
    contents = Contents(store, aging)
    report = ReconcileReport()
    with run.archive.transaction() as connection:
        connection.execute(_statements("use_up_numbers"), {"highest": contents.highest})
        rows = connection.execute(_statements("find_known"), {"relation": aging.name})
        known = {key for (key,) in rows}
        cold: dict[date, list[Segment]] = defaultdict(list)
        for segment in find_segments(connection, None, AUDITED, aging):
            cold[segment.month].append(segment)
    for month in sorted(contents.noted.keys() | contents.objects.keys()):
        try:
            plan = _plan(contents, month, known, cold[month])
            if plan != _Plan():
                run.say(f"Comparing {month:%Y-%m} with its archive.")
                _reconcile_month(run, store, aging, contents, month, plan, report)
        except ArchiveCorruptError as error:
            report.problems.append(f"{month:%Y-%m}: {error}")
    return report


def _plan(contents: Contents, month: date, known: set[str], cold: Sequence[Segment]) -> _Plan:
    """Compare what the database knows of a month with what the archive holds of it.

    Raises:
        ArchiveCorruptError: A note is damaged; or an object is gone, and nothing took its place.
    """
    plan = _Plan()
    by_key = {segment.object_key: segment for segment in cold}
    unknown, noted = contents.objects[month] - known, contents.noted[month]
    ends = {key: contents.end(key) for key in (noted if unknown else noted & by_key.keys())}
    needed = {one for end in ends.values() if end is not None for one in end.keys}
    replaced = _replaced(contents, ends)
    taken = set[str]()
    for key in sorted(ends.keys() & by_key.keys()):
        end = ends[key]
        if end is None:
            raise ArchiveCorruptError(
                f"{key} is gone, and so is what was to take its place.",
                fix="Bring either back from a copy of the store.",
            )
        if not end.is_rewrite or len(end.keys) > 1:
            plan.retired.append(key)
        elif end.keys != (key,):
            plan.swaps.append((by_key[key], end.keys[0] if end.keys else None))
            taken.update(end.keys)
    for key in sorted(unknown - taken):
        is_needed = key in contents.described and key not in replaced - needed
        (plan.returning if is_needed else plan.leftovers).append(key)
    return plan


def _replaced(contents: Contents, ends: Mapping[str, End | None]) -> set[str]:
    """Return objects whose rows are elsewhere: of an attempt to rewrite one, too, that failed.

    What a month was archived in may have rows that came after those of the object it replaced.
    """
    found = set[str]()
    for key, end in ends.items():
        if end is not None:
            found.add(key)
            found.update(*(note.by for note in contents.notes(key) if note.is_rewrite))
    return found


def _reconcile_month(
    run: Run,
    store: ObjectStore,
    aging: Aging,
    contents: Contents,
    month: date,
    plan: _Plan,
    report: ReconcileReport,
) -> None:
    with run.archive.transaction() as connection:
        named = {"relation": aging.name, "month": month}
        if connection.execute(_statements("has_month"), named).fetchone() is None:
            connection.execute(_statements("add_month"), named)
    wait_seconds = run.settings.limits.lease_wait_seconds
    with (
        month_lease(
            run.archive, aging, month, run_id=run.run_id, wait_seconds=wait_seconds
        ) as lease,
        workplace(run.settings.home_folder, f"{aging.name}-{month:%Y-%m}") as folder,
    ):
        work = _Work(run, store, aging, contents, lease, folder)
        for segment, successor in plan.swaps:
            _swap(work, segment, successor)
            report.replaced += 1
        if plan.returning or plan.retired:
            report.rows += _bring_back(work, plan)
            report.months.append(month)
        _note_leftovers(work, plan.leftovers)
        report.leftovers += len(plan.leftovers)


def _swap(work: _Work, segment: Segment, successor: str | None) -> None:
    """Put what erasures left of a segment in its place."""
    found = [] if successor is None else [work.contents.manifest(successor)]
    for _, facts, _ in found:
        fetch_verified(work.store, facts, work.aging, work.folder).unlink()
    with work.run.archive.transaction() as connection:
        work.lease.guard(connection)
        _retire(connection, [segment.object_key])
        for one in found:
            _take_in(connection, work, segment.state, *one)


def _bring_back(work: _Work, plan: _Plan) -> int:
    """Fill the month from all of its objects, and return how many rows it did not have."""
    month, aging = work.lease.month, work.aging
    returning = [work.contents.manifest(key) for key in plan.returning]
    with work.run.archive.transaction() as connection:
        committed = find_segments(connection, [month], aging=aging)
    facts = [one.facts for one in committed if one.object_key not in plan.retired]
    facts += [one for _, one, _ in returning]
    files = [fetch_verified(work.store, one, aging, work.folder) for one in facts]
    with work.run.archive.transaction() as connection:
        work.lease.guard(connection)
        copied = copy_objects(connection, aging, files)
        connection.execute(_statements("widen_conversations", group=aging.group, time=aging.time))
        _retire(connection, plan.retired)
        for one in returning:
            _take_in(connection, work, "committed", *one)
        segments = find_segments(connection, [month], aging=aging)
        now = datetime.now(UTC)
        return fill_month(connection, work.lease, aging, segments, copied, now).rows


def _take_in(
    connection: psycopg.Connection,
    work: _Work,
    state: str,
    manifest: Mapping[str, Any],
    facts: ObjectFacts,
    window: Window,
) -> None:
    """Enter an object as a segment."""
    named = {
        **asdict(facts),
        "state": state,
        "manifest": Jsonb(dict(manifest)),
        "month_id": work.lease.month_id,
        "source": manifest["source"],
        "low": window.low,
        "high": window.high,
        "fence": work.lease.fence,
        "run_id": work.run.run_id,
    }
    if not connection.execute(_statements("take_up"), named).rowcount:
        connection.execute(_statements("take_in"), named)


def _retire(connection: psycopg.Connection, object_keys: Sequence[str]) -> None:
    connection.execute(_statements("retire"), {"object_keys": list(object_keys)})


def _note_leftovers(work: _Work, object_keys: Sequence[str]) -> None:
    """Enter objects that nothing needs, so that they are removed as other leftovers are."""
    window = window_of(work.lease.month)
    with work.run.archive.transaction() as connection:
        work.lease.guard(connection)
        for key in object_keys:
            named = {
                "month_id": work.lease.month_id,
                "low": window.low,
                "high": window.high,
                "fence": work.lease.fence,
                "run_id": work.run.run_id,
                "object_key": key,
                "reason": _LEFT_OVER,
            }
            connection.execute(_statements("add_leftover"), named)
