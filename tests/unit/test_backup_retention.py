"""Which backups are kept: the last good one always is, whatever clocks say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_assets.backup.entry import DrillFacts, Entry, State
from kb_assets.backup.manifest import Manifest
from kb_assets.backup.place import BackupPlace
from kb_assets.backup.retention import Plan, plan_retention, prune
from kb_assets.errors import SettingsError
from kb_assets.object_store import ObjectStore
from kb_assets.settings import BackupSettings

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
DAY = timedelta(days=1)
STATES: tuple[State, ...] = ("whole", "unfinished", "damaged", "forged", "deleting")
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


def manifest(number: int, at: datetime) -> Manifest:
    moment = at.isoformat(timespec="microseconds")
    return Manifest(
        id=f"{at:%Y%m%dT%H%M%SZ}-{number:08x}", number=number,
        started_at=moment, snapshot_at=moment, finished_at=moment,
        kb_version="1", server="16.14", extensions={}, revision="1", database="kb",
        database_bytes=1, is_encrypted=False, files=(), tables=(), sequences=(), roles=(),
    )  # fmt: skip


def drilled(backup_id: str, *passed: bool) -> tuple[DrillFacts, ...]:
    moment = NOON.isoformat()
    return tuple(
        DrillFacts(backup_id, moment, moment, one, "scratch", {}, (), ()) for one in passed
    )


def entry(number: int, at: datetime, *passed: bool, state: State = "whole") -> Entry:
    made = manifest(number, at)
    held = made if state == "whole" else None
    return Entry(made.id, state, held, False, drilled(made.id, *passed), "", number)


@st.composite
def destinations(draw: st.DrawFn) -> tuple[Entry, ...]:
    """What a destination may hold, newest first; the clock was right at no backup."""
    size = draw(st.integers(0, 12))
    base = draw(MOMENTS)
    near = st.integers(-40 * 24, 40 * 24).map(lambda hours: base + timedelta(hours=hours))
    return tuple(
        entry(
            number,
            draw(st.one_of(near, MOMENTS)),
            *draw(st.lists(st.booleans(), max_size=2)),
            state=draw(st.sampled_from(("whole", *STATES))),
        )
        for number in range(size, 0, -1)
    )


POLICIES = st.builds(
    BackupSettings,
    keep_daily=st.integers(1, 4),
    keep_weekly=st.integers(0, 3),
    keep_monthly=st.integers(0, 3),
    timezone=st.sampled_from(("UTC", "Pacific/Auckland", "America/St_Johns")),
)


def plan_or_none(entries: tuple[Entry, ...], policy: BackupSettings, now: datetime) -> Plan | None:
    try:
        return plan_retention(entries, policy, now)
    except SettingsError:
        return None


@given(destinations(), POLICIES, MOMENTS)
def test_the_last_good_and_the_newest_stay_whatever_the_clock(
    entries: tuple[Entry, ...], policy: BackupSettings, now: datetime
) -> None:
    plan = plan_or_none(entries, policy, now)
    whole = [one for one in entries if one.state == "whole"]
    if plan is None:
        assert datetime.fromisoformat(manifest_of(whole[0]).snapshot_at) > now + DAY
        return
    assert sorted([*plan.keep, *plan.delete]) == sorted(one.id for one in entries)
    good = [one for one in whole if one.is_good]
    assert {one.id for one in (*good[:1], *whole[:1])} <= set(plan.keep)
    assert {one.id for one in entries if one.state in ("damaged", "forged")} <= set(plan.keep)
    assert {one.id for one in entries if one.state == "deleting"} <= set(plan.delete)
    assert all(plan.keep.values())
    assert all(plan.delete.values())


@given(destinations(), POLICIES, MOMENTS, MOMENTS)
def test_which_whole_ones_go_does_not_depend_on_the_clock(
    entries: tuple[Entry, ...], policy: BackupSettings, now: datetime, other: datetime
) -> None:
    whole = {one.id for one in entries if one.state == "whole"}
    plans = [plan_or_none(entries, policy, moment) for moment in (now, other)]
    gone = {frozenset(whole & set(plan.delete)) for plan in plans if plan is not None}
    assert len(gone) <= 1


@given(destinations(), POLICIES, MOMENTS)
def test_what_a_plan_leaves_stays_in_the_next(
    entries: tuple[Entry, ...], policy: BackupSettings, now: datetime
) -> None:
    plan = plan_or_none(entries, policy, now)
    if plan is not None:
        left = tuple(one for one in entries if one.id in plan.keep)
        assert not plan_retention(left, policy, now).delete


@given(st.data(), POLICIES)
def test_a_good_one_is_there_at_every_moment_of_a_history(
    data: st.DataObject, policy: BackupSettings
) -> None:
    """Backups, drills and prunings follow each other while the clock jumps."""
    held: tuple[Entry, ...] = ()
    was_good = False
    for number in range(1, 16):
        at = NOON + timedelta(hours=data.draw(st.integers(-2000, 2000)))
        held = (entry(number, at, *data.draw(st.lists(st.booleans(), max_size=1))), *held)
        was_good = any(one.is_good for one in held)
        plan = plan_or_none(held, policy, at + timedelta(hours=data.draw(st.integers(-30, 3000))))
        if plan is not None:
            held = tuple(one for one in held if one.id in plan.keep)
        assert any(one.is_good for one in held) == was_good


def test_a_year_leaves_days_weeks_and_months() -> None:
    entries = tuple(entry(366 - age, NOON - age * DAY, True) for age in range(366))
    plan = plan_retention(entries, BackupSettings(), NOON)
    days = [f"202611{day}" for day in range(22, 29)]
    sundays, months = ["20261122", "20261115", "20261108"], ["1031", "0930", "0831", "0731", "0630"]
    expected = {*days, *sundays, *(f"2026{month}" for month in months)}
    assert {one[:8] for one in plan.keep} == expected
    assert len(plan.keep) == len(expected)


def test_of_a_day_the_highest_number_is_kept_not_the_latest_time() -> None:
    early, late = entry(2, NOON - timedelta(hours=5), True), entry(1, NOON, True)
    plan = plan_retention((early, late), BackupSettings(), NOON)
    assert set(plan.keep) == {early.id}
    assert set(plan.delete) == {late.id}


def test_a_good_one_of_long_ago_outlives_those_that_fail() -> None:
    policy = BackupSettings(keep_daily=1, keep_weekly=0, keep_monthly=0)
    old = entry(1, NOON - 400 * DAY, True)
    older = entry(0, NOON - 401 * DAY, True)
    fresh = (entry(4, NOON, False), entry(3, NOON - DAY), entry(2, NOON - 2 * DAY, False, True))
    assert set(plan_retention((*fresh, old, older), policy, NOON).keep) == {fresh[0].id, old.id}


def test_damaged_and_forged_ones_take_no_place() -> None:
    policy = BackupSettings(keep_daily=1, keep_weekly=0, keep_monthly=0)
    bad = (entry(3, NOON, state="damaged"), entry(2, NOON, state="forged"))
    whole = entry(1, NOON - 9 * DAY)
    assert set(plan_retention((*bad, whole), policy, NOON).keep) == {
        one.id for one in (*bad, whole)
    }


def test_unfinished_ones_go_after_three_days() -> None:
    old, new = (
        entry(number, NOON - timedelta(days=3, seconds=seconds), state="unfinished")
        for number, seconds in ((1, 60), (2, -60))
    )
    plan = plan_retention((new, old), BackupSettings(), NOON)
    assert set(plan.keep) == {new.id}
    assert set(plan.delete) == {old.id}


def test_a_clock_that_moved_back_deletes_nothing() -> None:
    newest = entry(2, NOON)
    plan_retention((newest,), BackupSettings(), NOON - timedelta(hours=23))
    with pytest.raises(SettingsError, match="of the future"):
        plan_retention((newest, entry(1, NOON - 9 * DAY)), BackupSettings(), NOON - 1.1 * DAY)


def manifest_of(one: Entry) -> Manifest:
    assert one.manifest is not None
    return one.manifest


def put(place: BackupPlace, folder: Path, number: int, at: datetime, *, passed: bool) -> Manifest:
    files = folder / f"files-{number}"
    files.mkdir()
    (files / "schema.sql").write_text(f"select {number}")
    made = place.put(manifest(number, at), files)
    place.note_drill(replace(drilled(made.id, passed)[0], started_at=at.isoformat()))
    return made


def test_pruning_deletes_what_was_planned_and_nothing_beside_it(tmp_path: Path) -> None:
    place = BackupPlace(ObjectStore(str(tmp_path / "backups")), None)
    policy = BackupSettings(keep_daily=1, keep_weekly=0, keep_monthly=0)
    spare = put(place, tmp_path, 1, NOON - 3 * DAY, passed=True)
    good = put(place, tmp_path, 2, NOON - 2 * DAY, passed=True)
    newest = put(place, tmp_path, 3, NOON - DAY, passed=False)
    ours = {file for file in place.store.list() if not file.startswith(spare.id)}
    strange = {f"{spare.id}/not-ours", "elsewhere/not-ours"}
    for key in strange:
        place.store.put_bytes(key, b"of somebody else")
    prune(place, policy, NOON)
    assert set(place.store.list()) == ours | strange
    assert not place.verify(good)
    assert not place.verify(newest)


def test_a_deletion_that_was_broken_off_is_ended(tmp_path: Path) -> None:
    place = BackupPlace(ObjectStore(str(tmp_path / "backups")), None)
    doomed = put(place, tmp_path, 1, NOON - 3 * DAY, passed=True)
    place.store.put_bytes(f"{doomed.id}/deleted.json", b"{}\n")
    place.store.delete([doomed.files[0].pieces[0].key])
    assert place.entries()[0].state == "deleting"
    prune(place, BackupSettings(), NOON)
    assert not list(place.store.list())
