"""Late rows are looked for among what is archived of their own time, and nowhere else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from kb_assets.archive.plan import Window
from kb_assets.archive.relation import MESSAGES, ROW_HASH
from kb_assets.archive.repeats import Known, part_repeats

START = datetime(2025, 3, 1, tzinfo=UTC)
HOURS = [START + timedelta(hours=hour) for hour in range(6)]


def rows(*hours: int) -> Any:
    return pa.table(
        {
            "id": [f"message-{hour}" for hour in hours],
            "created_at": pa.array([HOURS[hour] for hour in hours], pa.timestamp("us", tz="UTC")),
            ROW_HASH: [bytes([hour]) * 32 for hour in hours],
        }
    )


def archived(folder: Path, low: int, high: int, *hours: int) -> Known:
    file = folder / f"{low}.parquet"
    parquet.write_table(rows(*hours), file)
    return Known(Window(HOURS[low], HOURS[high]), lambda: file)


def not_wanted(low: int, high: int) -> Known:
    def fetch() -> Path:
        raise AssertionError("fetched")

    return Known(Window(HOURS[low], HOURS[high]), fetch)


def test_rows_of_the_first_and_last_moment_of_a_segment_are_found(tmp_path: Path) -> None:
    known = [archived(tmp_path, 0, 2, 0), archived(tmp_path, 2, 4, 2, 3)]
    left, repeated = part_repeats(rows(0, 1, 2, 4), MESSAGES, known)
    assert left["id"].to_pylist() == ["message-1", "message-4"]
    assert repeated["id"].to_pylist() == ["message-0", "message-2"]


@pytest.mark.parametrize(("low", "high"), [(0, 2), (4, 5)])
def test_segments_of_another_time_are_not_fetched(low: int, high: int) -> None:
    left, repeated = part_repeats(rows(2, 3), MESSAGES, [not_wanted(low, high)])
    assert (left, repeated) == (rows(2, 3), None)


def test_nothing_is_fetched_for_no_rows() -> None:
    assert part_repeats(rows(), MESSAGES, [not_wanted(0, 5)]) == (rows(), None)


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    file, times = archived(tmp_path, 0, 2, 0).file, []

    def fetch() -> Path:
        times.append(file)
        return file

    known = Known(Window(HOURS[0], HOURS[2]), fetch)
    for _ in range(2):
        part_repeats(rows(0), MESSAGES, [known])
    assert times == [file]
