"""What killed runs leave behind: found, and removed in time, and nothing else is."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from kb_assets.archive.clean import KEPT
from kb_assets.archive.workplace import workplace
from kb_assets.errors import DiskError
from tests.faults.archiving import ArchivingProcess, Shelf, wait_until_free
from tests.servers.s3_servers import FolderObjects


def kill_at(shelf: Shelf, step: str) -> None:
    with ArchivingProcess(shelf.kb.settings, shelf.months, step) as process:
        assert process.wait() == "stopped"
        process.kill()
    wait_until_free(shelf.connections)


def objects(shelf: Shelf) -> list[str]:
    return FolderObjects(Path(shelf.kb.archive_store.uri)).keys()


def let_days_pass(shelf: Shelf, days: timedelta) -> None:
    shelf.oracle.execute("update kb.archive_segment set started_at = started_at - %s", days)


def work_folder(shelf: Shelf) -> Path:
    return shelf.kb.settings.home_folder / "archive-work"


def test_a_copy_that_nobody_needs_any_more_is_given_up_and_its_object_removed(
    shelf: Shelf,
) -> None:
    """The rows it was of are erased: no month is due, and still it must not stay."""
    shelf.archive()
    shelf.append(40, 41)
    kill_at(shelf, "uploaded")
    (killed,) = [name for name in objects(shelf) if "0000000002" in name]
    shelf.oracle.erase("c10", lambda: shelf.kb.erase(conversation="c10"))
    shelf.kb.archive_messages()
    assert killed in objects(shelf)
    let_days_pass(shelf, KEPT + timedelta(minutes=1))
    shelf.kb.archive_messages()
    assert shelf.states() == ["committed", "stale"]
    shelf.kb.archive_messages()
    assert shelf.states() == ["committed", "removed"]
    assert killed not in objects(shelf)
    shelf.settle()


def test_objects_of_failed_runs_stay_for_days_and_those_in_use_forever(shelf: Shelf) -> None:
    kill_at(shelf, "proven")
    shelf.archive()
    failed = [name for name in objects(shelf) if "0000000001" in name]
    assert len(failed) == 2
    let_days_pass(shelf, KEPT - timedelta(minutes=1))
    shelf.archive()
    assert set(failed) < set(objects(shelf))
    let_days_pass(shelf, timedelta(minutes=2))
    shelf.archive()
    assert not set(failed) & set(objects(shelf))
    assert len(objects(shelf)) == 2
    shelf.settle()


def test_a_replaced_object_stays_for_days(shelf: Shelf) -> None:
    shelf.archive()
    before = objects(shelf)
    shelf.kb.restore_month(date(2025, 3, 1), 0)
    shelf.archive()
    shelf.archive()
    assert shelf.states() == ["retired", "committed"]
    assert set(before) < set(objects(shelf))
    days = KEPT + timedelta(minutes=1)
    shelf.oracle.execute("update kb.archive_segment set retired_at = retired_at - %s", days)
    shelf.archive()
    assert not set(before) & set(objects(shelf))
    shelf.settle()


@pytest.mark.parametrize("step", ["copied", "verified", "committed"])
def test_files_of_a_killed_run_are_removed_by_the_next_one_of_any_month(
    shelf: Shelf, step: str
) -> None:
    kill_at(shelf, step)
    (left,) = work_folder(shelf).iterdir()
    assert [*left.iterdir()]
    shelf.kb.archive_messages([date(2020, 1, 1)])
    assert [*work_folder(shelf).iterdir()] == []


def test_files_of_a_run_that_is_alive_are_left_alone(shelf: Shelf) -> None:
    with ArchivingProcess(shelf.kb.settings, shelf.months, "copied") as process:
        assert process.wait() == "stopped"
        (work,) = work_folder(shelf).iterdir()
        with workplace(shelf.kb.settings.home_folder, "other") as other:
            assert other.is_dir()
            assert work.is_dir()
        shelf.kb.archive_messages([date(2020, 1, 1)])
        assert [*work_folder(shelf).iterdir()] == [work]
        process.kill()
    shelf.settle()


def test_a_place_to_work_that_cannot_be_made_says_so(shelf: Shelf) -> None:
    work_folder(shelf).parent.mkdir(parents=True, exist_ok=True)
    work_folder(shelf).write_text("This is a file.")
    with pytest.raises(DiskError, match="archive-work"):
        shelf.archive()
    shelf.oracle.check()
    work_folder(shelf).unlink()
    shelf.settle()
