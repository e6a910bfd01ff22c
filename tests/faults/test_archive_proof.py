"""What was written wrong, or changed past every rule, is not committed: the proof finds it."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from kb_assets.archive import segment
from kb_assets.archive.copy import Written
from kb_assets.archive.relation import MESSAGES, ROW_HASH
from kb_assets.archive.row_hash import row_hashes
from kb_assets.errors import ArchiveCorruptError, ArchiveStaleError
from tests.faults.archiving import MARCH, Shelf, interrupt, key_of


def hashed(table: pa.Table) -> pa.Table:
    """Return a table whose hashes are those of its rows, whatever these are."""
    (batch,) = table.combine_chunks().to_batches()
    hashes = row_hashes(batch, MESSAGES.columns)
    column = pa.array([hashes[at : at + 32] for at in range(0, len(hashes), 32)], pa.binary())
    place = table.schema.get_field_index(ROW_HASH)
    return table.set_column(place, table.schema.field(place), column)


def said_otherwise(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("content")
    column = pa.array(["Otherwise.", *table.column("content").to_pylist()[1:]])
    return table.set_column(place, table.schema.field(place), column)


WRONG: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a row says something else": said_otherwise,
    "a row says something else, with its hash": lambda table: hashed(said_otherwise(table)),
    "a row is missing": lambda table: table.slice(1),
    "a row is there twice": lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    "a row is there instead of another": lambda table: pa.concat_tables(
        [table.slice(1), table.slice(1, 1)]
    ),
    "a hash is missing": lambda table: table.set_column(
        len(table.columns) - 1,
        ROW_HASH,
        pa.array([None, *table.column(ROW_HASH).to_pylist()[1:]], pa.binary()),
    ),
    "a column is missing": lambda table: table.drop_columns(["intent"]),
    "a column has another type": lambda table: table.set_column(
        8, "token_count", table.column("token_count").cast(pa.int64())
    ),
    "nothing": lambda table: table.slice(0, 0),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_was_written_wrong_is_not_committed(
    shelf: Shelf, late: bool, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if late:
        shelf.archive()
        shelf.append(*range(6, 12))
    live = len(shelf.oracle.look().live)
    original = segment.write_sorted

    def write_wrong(*values: Any, **named: Any) -> Written:
        written = original(*values, **named)
        table = WRONG[wrong](parquet.read_table(written.file))
        parquet.write_table(table, written.file)
        content = written.file.read_bytes()
        digest = hashlib.sha256(content).digest()
        return replace(written, sha256=digest, file_bytes=len(content))

    with monkeypatch.context() as changed:
        changed.setattr(segment, "write_sorted", write_wrong)
        with pytest.raises(ArchiveCorruptError, match="is not what its manifest says"):
            shelf.archive()
    assert len(shelf.oracle.look().live) == live
    assert shelf.states()[-1] == "stale"
    shelf.oracle.check()
    shelf.settle()


@pytest.mark.parametrize("late", [False, True])
def test_a_segment_that_was_given_up_meanwhile_is_not_committed(
    shelf: Shelf, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if late:
        shelf.archive()
        shelf.append(*range(6, 12))
    live = len(shelf.oracle.look().live)
    statement = "update kb.archive_segment set state = 'stale', reason = 'By hand.'"

    def give_up() -> None:
        shelf.oracle.execute(f"{statement} where state = 'copying'")

    with monkeypatch.context() as changed:
        interrupt("to be committed", give_up, changed.setattr, times=3)
        with pytest.raises(ArchiveStaleError, match="still to be committed"):
            shelf.archive()
    assert len(shelf.oracle.look().live) == live
    shelf.oracle.check()
    shelf.settle()


@pytest.mark.parametrize("change", ["delete", "insert"])
def test_a_month_that_was_thawed_by_hand_and_written_to_is_not_dropped(
    shelf: Shelf, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write() -> None:
        with psycopg.connect(shelf.kb.settings.migration_database_url) as connection:
            connection.execute("select kb.thaw_month('message', %s)", [MARCH])
        if change == "delete":
            assert shelf.oracle.delete(key_of(3))
            return
        with psycopg.connect(shelf.kb.settings.migration_database_url) as connection:
            connection.execute("update kb.archive_month set closed_at = null")
        assert shelf.append(20).added == 1

    with monkeypatch.context() as changed:
        interrupt("proven", write, changed.setattr)
        with pytest.raises(ArchiveStaleError, match="still the same"):
            shelf.archive()
    shelf.oracle.check()
    assert len(shelf.oracle.look().live) == (7 if change == "delete" else 9)
    shelf.settle()
