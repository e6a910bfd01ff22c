"""`kb archive` as a person and as a script use it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.acceptance.command_line import CommandLine


def take_in(kb: CommandLine, *months: str, recent: bool = False) -> None:
    """Take in one conversation of four messages for each month."""
    moments = [(month, datetime.fromisoformat(f"{month}-10T12:00:00+00:00")) for month in months]
    if recent:
        moments.append(("recent", datetime.now(UTC) - timedelta(days=1)))
    lines = [
        {
            "id": f"{name}-{number}",
            "conversation": name,
            "created_at": (moment + timedelta(minutes=number)).isoformat(),
            "role": "assistant" if number % 2 else "user",
            "content": f"Message {number} of {name}.",
            "metadata": {"n": number},
        }
        for name, moment in moments
        for number in range(4)
    ]
    file = kb.folder / "talks.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    kb.must("messages", "import", str(file))


def with_archive(kb: CommandLine, *lines: str) -> None:
    config = kb.folder / "kb.toml"
    config.write_text("\n".join([config.read_text(), "[archive]", *lines, ""]))


def objects(kb: CommandLine, ending: str = ".parquet") -> list[Path]:
    return sorted((kb.folder / "archive").rglob(f"*{ending}"))


def words(told: str) -> str:
    """Return what was said with one blank wherever there are several."""
    return " ".join(told.split())


def test_messages_leave_are_asked_about_and_come_back(kb: CommandLine) -> None:
    with_archive(kb)
    assert kb.must("archive", "list") == {"months": []}
    assert "kb messages import" in kb.text("archive", "list")
    assert kb.must("archive", "run") == {"months": [], "removed": 0}
    take_in(kb, "2023-01", "2023-02", recent=True)
    assert "2023-01 database ·" in words(kb.text("archive", "list"))
    one = kb.must("archive", "run", "--month", "2023-01")["months"]
    assert [(month["month"], month["rows"], month["note"]) for month in one] == [
        ("2023-01-01", 4, "")
    ]
    told = kb.text("archive", "run")
    assert "2023-02 4" in words(told)
    assert "2023-01" not in told
    assert kb.text("archive", "run") == "Nothing is old enough to be archived.\n"
    this_month = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m}"
    assert "not old enough" in kb.text("archive", "run", "--month", this_month)
    assert len(objects(kb)) == len(objects(kb, ".json")) == 2

    sql = "select conversation_id, count(*) n from messages group by all order by 1"
    found = kb.must("archive", "query", sql)
    assert found["columns"] == ["conversation_id", "n"]
    assert found["rows"] == [["2023-01", 4], ["2023-02", 4], ["recent", 4]]
    assert (found["hot_rows"], found["scanned_objects"], found["fetched_objects"]) == (4, 2, 2)
    told = kb.text("archive", "query", "select id from messages where conversation_id = '2023-02'")
    assert "2023-02-3" in told
    assert "4 rows; read: 0 messages of the database, 1 object of the archive, 0 of them" in told

    report = kb.must("archive", "verify")
    assert [report["damaged"], *(one["damage"] for one in report["objects"])] == [0, None, None]
    assert kb.text("archive", "verify") == (
        "2 objects with 8 messages, all as their manifests say.\n"
    )
    back = kb.must("archive", "restore", "--month", "2023-01", "--hold-days", "5")
    assert (back["rows"], back["present"], back["late"], back["segments"]) == (4, 0, 0, 1)
    assert kb.text("archive", "restore", "--month", "2023-01").startswith(
        "2023-01: 0 messages came back.\n"
    )
    told = words(kb.text("archive", "list"))
    assert "2023-01 database, restored, held until " in told
    assert "2023-02 archive 4 1" in told
    assert "held until" in kb.text("archive", "run", "--month", "2023-01")
    assert kb.must("archive", "query", sql)["rows"] == found["rows"]


def test_every_value_of_a_query_can_be_printed(kb: CommandLine) -> None:
    with_archive(kb)
    take_in(kb, "2023-01")
    sql = (
        "select id, id, created_at, metadata, sum(token_count) over () total, 'x'::blob b,"
        " 'nan'::double d, 1.50::decimal(5, 2) e, uuid() u, [1, null] l, {'a': 1} s,"
        " interval 1 day i, date '2025-01-01' f, null g, true h, 'a\x1bb' j,"
        " repeat('y', 1000) k from messages order by id limit 1"
    )
    found = kb.must("archive", "query", sql)
    (row,) = found["rows"]
    assert row[:4] == ["2023-01-0", "2023-01-0", "2023-01-10T12:00:00+00:00", '{"n": 0}']
    assert isinstance(row[4], int)
    assert row[5:8] == ["78", "nan", "1.50"]
    assert len(row[8]) == 36
    assert row[9:15] == [[1, None], {"a": 1}, "1 day, 0:00:00", "2025-01-01", None, True]
    assert row[15:] == ["a\x1bb", "y" * 1000]
    told = kb.text("archive", "query", sql)
    assert "\x1b" not in told
    assert "y" * 1000 not in told.replace("\n", "").replace(" ", "")


def assert_told(kb: CommandLine, code: int, *arguments: str, words: str) -> None:
    result = kb(*arguments)
    assert result.code == code, f"exit {result.code}\n{result.out}\n{result.err}"
    assert words in result.err
    assert "Traceback" not in result.err
    assert words in json.dumps(result.json["error"])


def test_what_cannot_be_done_is_told(kb: CommandLine) -> None:
    for command in (
        ("run",),
        ("query", "select 1"),
        ("verify",),
        ("restore", "--month", "2023-01"),
    ):
        assert_told(kb, 3, "archive", *command, words="[archive]")
    with_archive(kb)
    assert_told(kb, 2, "archive", "run", "--month", "2023-13", words="2023-13")
    assert_told(kb, 2, "archive", "restore", words="--month")
    assert_told(kb, 3, "archive", "query", "select nope from messages", words="nope")
    assert_told(kb, 3, "archive", "query", "drop table messages", words="one SELECT")
    assert_told(kb, 3, "archive", "query", "from '/etc/passwd'", words="/etc/passwd")
    assert_told(kb, 9, "archive", "restore", "--month", "2023-01", words="2023-01")


def test_damage_has_its_own_exit_code(kb: CommandLine) -> None:
    with_archive(kb)
    take_in(kb, "2023-01", "2023-02", "2023-03")
    kb.must("archive", "run")
    first, second, _ = objects(kb)
    content = bytearray(first.read_bytes())
    content[100] ^= 1
    first.write_bytes(content)
    second.unlink()
    report = kb.must("archive", "verify", code=15)
    damage = [one["damage"] for one in report["objects"]]
    assert report["damaged"] == 2
    assert damage[2] is None
    assert first.name in damage[0]["what"]
    assert second.name in damage[1]["what"]
    result = kb("--text", "archive", "verify")
    assert result.code == 15
    assert result.out == "2 of 3 objects damaged.\n"
    assert first.name in result.err
    assert second.name in result.err
    assert_told(kb, 15, "archive", "query", "select id from messages", words="manifest")
    assert_told(kb, 15, "archive", "restore", "--month", "2023-01", words=first.name)


def test_a_store_that_is_not_there(kb: CommandLine) -> None:
    take_in(kb, "2023-01")
    with_archive(
        kb,
        'uri = "s3://nowhere/archive"',
        '[archive.options]\nendpoint = "http://127.0.0.1:9"\nallow_http = "true"',
        'region = "us-east-1"',
    )
    variables = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    result = kb("archive", "run", **variables)
    assert result.code == 75, result.err
    assert "cannot be reached" in result.err
    found = kb.must("archive", "query", "select count(*) from messages", **variables)
    assert found["rows"] == [[4]]
