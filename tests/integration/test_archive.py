"""A month's way out of the database: what is copied, proven, deleted, and left alone."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psycopg
import pyarrow.parquet as parquet
import pytest
from psycopg.types.json import Jsonb

from kb_assets.archive import stage, store
from kb_assets.archive.clean import remove_leftovers
from kb_assets.archive.relation import MESSAGES
from kb_assets.archive.verify import read_verified
from kb_assets.database.connect import Database
from kb_assets.database.run import Run
from kb_assets.errors import ArchiveBusyError, NotFoundError
from kb_assets.object_store import ObjectStore

MARCH = date(2025, 3, 1)
NOW = datetime(2025, 9, 1, tzinfo=UTC)
EXTREME = (
    "",
    "a",
    "".join(map(chr, (*range(1, 0xD800), *range(0xE000, 0x10000), 0x10000, 0x10FFFF))),
    "x" * 10_000_000,
    "' \\ \" \t\n\r é 🙂 \u202e",
)
METADATA = ({}, {"a": {"b": [1, 1.50, -0.0, 1e300, None, True, "ü"]}}, {"n": 12345678901234567890})


@dataclass(frozen=True)
class Shelf:
    """A database whose March grows old, and the folder it goes to."""

    run: Run
    url: str
    folder: Path

    @property
    def destination(self) -> ObjectStore:
        return ObjectStore(str(self.folder))

    def execute(self, statement, *values):
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def insert(self, rows, table="message"):
        names = ", ".join(MESSAGES.names)
        places = ", ".join(["%s"] * len(MESSAGES.names))
        with psycopg.connect(self.url, autocommit=True) as connection:
            statement = f"insert into kb.{table} ({names}) values ({places})"
            connection.cursor().executemany(statement, rows)

    def archive(self, month=MARCH):
        return stage.archive_month(self.run, self.destination, month)

    def hashes(self, table="message"):
        expression = MESSAGES.row_hash().as_string()
        return dict(self.execute(f"select id, {expression} from kb.{table} hot"))

    def segments(self, *states):
        with self.run.database.transaction() as connection:
            return store.find_segments(connection, states=states or ("committed",))

    def cold(self):
        """What the objects of cold segments hold, each row proven: hashes by id."""
        found = {}
        for segment in self.segments():
            for batch in read_verified(self.folder / segment.object_key, MESSAGES):
                for row in batch.select(["id", "row_hash"]).to_pylist():
                    assert row["id"] not in found
                    found[row["id"]] = row["row_hash"]
        return found


def message(number, *, content="", minute=0, metadata=None, **fields):
    row = {
        "id": f"m{number}",
        "conversation_id": f"c{number // 10}",
        "created_at": datetime(2025, 3, 1, tzinfo=UTC) + timedelta(minutes=minute or number),
        "role": "user",
        "content": content or f"Message {number}.",
        "language": None,
        "intent": None,
        "metadata": Jsonb(metadata or {}),
        "token_count": 3,
        "ordinal": number,
        "total_bytes": number * 10,
        "total_tokens": number * 3,
        **fields,
    }
    return tuple(row.values())


@pytest.fixture
def shelf(make_settings, database, database_urls, tmp_path):
    with Database(database_urls.archiver) as archiver:
        run = Run(database, make_settings(), "test", archiver=lambda: archiver)
        shelf = Shelf(run, database_urls.migrator, tmp_path / "cold")
        shelf.execute("select kb.add_month('message', '2025-03-01')")
        yield shelf


def test_a_month_is_cold_and_its_partition_is_gone(shelf):
    shelf.insert([message(number) for number in range(100)])
    shelf.execute("select kb.add_month('message', '2025-04-01')")
    shelf.insert([message(500, created_at=datetime(2025, 4, 1, tzinfo=UTC))])
    before = shelf.hashes()
    report = shelf.archive()
    assert (report.rows, report.repeated, report.note) == (100, 0, "")
    assert list(shelf.hashes()) == ["m500"]
    assert shelf.cold() | shelf.hashes() == before
    assert shelf.execute("select to_regclass('kb.message_2025_03')") == [(None,)]
    (segment,) = shelf.segments()
    assert set(report.seconds) == {"copy", "upload", "verify", "commit"}
    assert report.segments[0].url == str(shelf.folder / segment.object_key)
    beside = (shelf.folder / segment.object_key).with_suffix(".json")
    assert json.loads(beside.read_text()) == segment.manifest
    assert list((shelf.run.settings.home_folder / "archive-work").iterdir()) == []


def test_every_value_comes_through_with_its_hash(shelf):
    rows = [
        message(number, content=content, metadata=metadata, language=language, minute=1 + number)
        for number, (content, metadata, language) in enumerate(
            (content, metadata, language)
            for content in EXTREME
            for metadata in METADATA
            for language in (None, "", "en")
        )
    ]
    moments = [
        datetime(2025, 3, 1, tzinfo=UTC),
        datetime(2025, 3, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2025, 3, 1, 0, 0, 0, 1, tzinfo=UTC),
    ]
    numbers = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1), (None, None)
    for place, (moment, (low, high)) in enumerate(zip(moments, numbers, strict=True)):
        extremes = {"ordinal": low, "total_bytes": high, "total_tokens": None}
        rows.append(message(900 + place, created_at=moment, **extremes))
    rows.append(message(950, id="\x01 🙂", conversation_id="\U0010ffff", role="", minute=3))
    shelf.insert(rows)
    before = shelf.hashes()
    shelf.archive()
    assert shelf.cold() == before
    assert len(before) == len(rows)


def test_files_are_sorted_and_can_be_skipped(shelf):
    shelf.insert([message(number, minute=2000 - number) for number in range(1000)])
    shelf.archive()
    (segment,) = shelf.segments()
    table = parquet.read_table(shelf.folder / segment.object_key)
    order = list(zip(*(table.column(name).to_pylist() for name in MESSAGES.order), strict=True))
    assert order == sorted(order)
    assert (segment.conversation_low, segment.conversation_high) == (order[0][0], order[-1][0])
    group = parquet.ParquetFile(shelf.folder / segment.object_key).metadata.row_group(0)
    assert group.column(1).statistics.min == "c0"
    assert group.column(1).compression == "ZSTD"


def test_a_large_month_becomes_several_segments_that_do_not_overlap(shelf, monkeypatch):
    monkeypatch.setattr("kb_assets.archive.segment.rows_per_segment", lambda *_: 30)
    same = [message(200 + number, minute=40) for number in range(50)]
    shelf.insert([message(number) for number in range(100)] + same)
    before = shelf.hashes()
    shelf.archive()
    segments = shelf.segments()
    assert len(segments) > 3
    assert all(one.high == other.low for one, other in pairwise(segments))
    assert shelf.cold() == before


def test_an_empty_month_leaves_nothing(shelf):
    report = shelf.archive()
    assert (report.rows, report.note) == (0, "There was nothing to archive.")
    assert shelf.segments() == []
    assert shelf.execute("select to_regclass('kb.message_2025_03')") == [(None,)]


def test_a_month_that_never_was_is_not_found(shelf):
    with pytest.raises(NotFoundError):
        shelf.archive(date(2024, 1, 1))


def test_late_rows_follow_and_repeats_are_dropped(shelf):
    shelf.insert([message(number) for number in range(50)])
    before = shelf.hashes()
    shelf.archive()
    late = [message(number) for number in range(40, 60)]
    other_month = message(99, created_at=datetime(2025, 4, 1, tzinfo=UTC))
    shelf.insert([*late, other_month], "message_late")
    wanted = before | {
        key: value for key, value in shelf.hashes("message_late").items() if key != "m99"
    }
    report = shelf.archive()
    assert (report.rows, report.repeated) == (10, 10)
    assert [one.source for one in shelf.segments()] == ["month", "late"]
    assert shelf.cold() == wanted
    assert list(shelf.hashes("message_late")) == ["m99"]
    only_repeats = shelf.insert([message(1)], "message_late") or shelf.archive()
    assert (only_repeats.rows, only_repeats.repeated) == (0, 1)
    assert shelf.cold() == wanted


def test_a_frozen_month_refuses_writes_and_is_still_read(shelf):
    shelf.insert([message(1)])
    shelf.execute("select kb.freeze_month('message', '2025-03-01')")
    for write in (
        "update kb.message set content = 'x'",
        "delete from kb.message",
        "delete from kb.message_2025_03",
        "truncate kb.message_2025_03",
    ):
        with pytest.raises((psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.Error)):
            shelf.execute(write)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        shelf.insert([message(2)])
    assert list(shelf.hashes()) == ["m1"]
    shelf.execute("select kb.thaw_month('message', '2025-03-01')")
    shelf.insert([message(2)])
    with pytest.raises(psycopg.errors.RaiseException, match="only a frozen month"):
        shelf.execute("select kb.drop_month('message', '2025-03-01')")


@pytest.mark.parametrize("relation", ["message_late", "document", "message_2025_03", "x; drop"])
def test_months_of_other_tables_are_nobodys(shelf, relation):
    with pytest.raises(psycopg.errors.RaiseException, match="no month of an aging table"):
        shelf.execute("select kb.add_month(%s, '2025-03-01')", relation)


def test_months_are_due_once_all_of_them_is_old_enough(shelf):
    for month in ("2025-04-01", "2025-05-01", "2025-06-01"):
        shelf.execute("select kb.add_month('message', %s)", month)
    database = shelf.run.archive
    assert stage.months_due(database, NOW, 92) == (MARCH, date(2025, 4, 1), date(2025, 5, 1))
    assert stage.months_due(database, NOW, 93) == (MARCH, date(2025, 4, 1))
    hold = "update kb.archive_month set hold_until = '2025-09-02' where month = '2025-03-01'"
    shelf.execute(hold)
    assert stage.months_due(database, NOW, 93) == (date(2025, 4, 1),)
    shelf.archive()
    shelf.insert([message(1)], "message_late")
    assert MARCH in stage.months_due(database, NOW, 93)


def test_readers_hold_a_month_up_but_nobody_else(shelf, monkeypatch):
    monkeypatch.setattr("kb_assets.archive.commit._PAUSE_SECONDS", 0.1)
    shelf.insert([message(1)])
    with psycopg.connect(shelf.url) as reader:
        reader.execute("select count(*) from kb.message")
        with ThreadPoolExecutor(1) as beside:
            archiving = beside.submit(shelf.archive)
            time.sleep(1)
            assert shelf.execute("select count(*) from kb.message") == [(1,)]
            reader.rollback()
            assert archiving.result().rows == 1


def test_one_run_at_a_time_in_a_month(shelf):
    from kb_assets.archive.lease import month_lease

    with (
        month_lease(shelf.run.archive, MESSAGES, MARCH, run_id="other"),
        pytest.raises(ArchiveBusyError, match="run other holds it"),
    ):
        shelf.archive()


def test_only_what_is_ours_and_old_is_removed(shelf):
    shelf.insert([message(1)])
    shelf.archive()
    (segment,) = shelf.segments()
    stranger = shelf.folder / "message" / "year=2025" / "month=03" / "somebody.parquet"
    stranger.write_bytes(b"x")
    failed = "message/year=2025/month=03/failed.parquet"
    (shelf.folder / failed).write_bytes(b"x")
    shelf.execute(
        "insert into kb.archive_segment"
        " (month_id, source, low, high, fence, run_id, state, object_key, started_at)"
        " select id, 'month', '2025-03-01', '2025-03-02', 1, 'r', 'stale', %s, '2025-08-30'"
        " from kb.archive_month",
        failed,
    )
    assert remove_leftovers(shelf.run.archive, shelf.destination, NOW) == 0
    assert remove_leftovers(shelf.run.archive, shelf.destination, NOW + timedelta(days=2)) == 1
    assert not (shelf.folder / failed).exists()
    assert stranger.exists()
    assert (shelf.folder / segment.object_key).exists()
    shelf.execute(
        "update kb.archive_segment set state = 'retired', retired_at = '2025-08-01' where id = %s",
        segment.id,
    )
    assert remove_leftovers(shelf.run.archive, shelf.destination, NOW) == 1
    assert not (shelf.folder / segment.object_key).exists()
