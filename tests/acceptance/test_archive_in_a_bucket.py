"""The README's year of conversations, in a folder and in a bucket that asks for a key."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.command_line import REPOSITORY, CommandLine
from tests.servers.s3_servers import MotoServer


@pytest.fixture(params=["folder", "bucket"])
def archiving(kb: CommandLine, request: pytest.FixtureRequest) -> Iterator[CommandLine]:
    """`kb` with an archive there, and a file of 2,964 messages beside its kb.toml."""
    config = kb.folder / "kb.toml"
    year = [sys.executable, str(REPOSITORY / "samples" / "messages.py"), "2025"]
    with (kb.folder / "year.jsonl").open("wb") as file:
        subprocess.run(year, stdout=file, check=True)
    if request.param == "folder":
        config.write_text(config.read_text() + "\n[archive]\n")
        yield kb
        return
    with MotoServer() as server:
        bucket = server.new_bucket()
        options = ", ".join(f'{name} = "{value}"' for name, value in bucket.options.items())
        lines = ["", "[archive]", f'uri = "{bucket.uri()}"', f"options = {{ {options} }}", ""]
        config.write_text(config.read_text() + "\n".join(lines))
        yield CommandLine(kb.folder, {**kb.variables, **bucket.environment})
        assert any(key.endswith(".parquet") for key in bucket.objects.keys())  # noqa: SIM118


def test_a_year_leaves_is_queried_verified_brought_back_and_erased(archiving: CommandLine) -> None:
    kb, total = archiving, 2964
    count = "select count(*), count(distinct conversation_id) from messages"
    assert kb.must("messages", "import", "year.jsonl")["added"] == total
    months = kb.must("archive", "run")["months"]
    assert (len(months), sum(month["rows"] for month in months)) == (12, total)
    found = kb.must("archive", "query", count)
    assert (found["rows"], found["hot_rows"]) == ([[total, 600]], 0)
    assert kb.must("archive", "verify")["damaged"] == 0
    back = kb.must("archive", "restore", "--month", "2025-03")["rows"]
    found = kb.must("archive", "query", count)
    assert (found["rows"], found["hot_rows"]) == ([[total, 600]], back)
    receipt = kb.must("erase", "--user", "u-7", "--yes")["receipt"]
    gone = receipt["hot_rows"] + receipt["cold_rows"] + receipt["late_rows"]
    left = [[total - gone, 600 - receipt["conversations"]]]
    assert gone > 0
    assert kb.must("archive", "query", count)["rows"] == left
    again = kb.must("messages", "import", "year.jsonl")
    assert again["erased"] == gone
    assert kb.must("archive", "query", count)["rows"] == left
    assert kb.must("archive", "verify")["damaged"] == 0


def test_a_wrong_key_deletes_nothing(kb: CommandLine, tmp_path: Path) -> None:
    with MotoServer() as server:
        bucket = server.new_bucket()
        options = ", ".join(f'{name} = "{value}"' for name, value in bucket.options.items())
        config = tmp_path / "kb.toml"
        config.write_text(
            f'{config.read_text()}\n[archive]\nuri = "{bucket.uri()}"\noptions = {{ {options} }}\n'
        )
        (tmp_path / "one.jsonl").write_text(
            '{"id": "m", "conversation": "c", "created_at": "2025-01-01T00:00:00Z",'
            ' "role": "user", "content": "x"}\n'
        )
        kb.must("messages", "import", "one.jsonl")
        wrong = {**bucket.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
        refused = kb("archive", "run", **wrong)
        assert refused.code == 16
        assert "AWS_" in refused.err or "credentials" in refused.err
        assert kb.must("archive", "list")["months"][0]["place"] == "closing"
        one = "select count(*) from messages"
        assert kb.must("archive", "query", one)["rows"] == [[1]]
        assert kb.must("archive", "run", **bucket.environment)["months"][0]["rows"] == 1
