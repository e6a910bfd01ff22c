"""Lines of JSON become messages; what cannot be taken in is kept, whatever it is."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kb_assets.database.connect import Database
from kb_assets.errors import SourceError
from kb_assets.messages import jsonl
from kb_assets.messages.intake import Appended, Messages
from kb_assets.messages.jsonl import Imported, import_lines


def line(id_: str, conversation: str = "c", **others: object) -> bytes:
    fields = {"created_at": "2025-03-01T12:00:00Z", "role": "user", "content": "hello", **others}
    return json.dumps({"id": id_, "conversation": conversation, **fields}).encode() + b"\n"


@pytest.fixture
def messages(database: Database) -> Messages:
    return Messages(database)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    return tmp_path / "some.jsonl"


def stored(database: Database) -> list[str]:
    with database.transaction() as connection:
        return [id_ for (id_,) in connection.execute("select id from kb.message order by id")]


def reasons(imported: Imported) -> list[tuple[int, str]]:
    assert imported.reasons_file is not None
    told = [json.loads(each) for each in imported.reasons_file.read_text().splitlines()]
    return [(each["line"], each["reason"]) for each in told]


def test_every_line_is_stored_or_kept(database: Database, messages: Messages, beside: Path) -> None:
    lines = [
        b"\xef\xbb\xbf" + line("a", user="ann"),
        b"\r\n",
        b"not json\r\n",
        line("b").rstrip() + b"\r\n",
        b"  \n",
        b'{"id": "\xff\xfe"}\n',
        line("x", user="bob"),
        line("a", "d"),
        line("a"),
        line("late", created_at="2025-03-01T12:00:00"),
        line("c").rstrip(),
    ]
    imported = import_lines(messages, io.BytesIO(b"".join(lines)), beside)
    assert stored(database) == ["a", "b", "c"]
    assert imported.appended == Appended(added=3, repeated=1)
    assert (imported.lines, imported.rejected) == (9, 5)
    assert imported.lines == 3 + 1 + imported.rejected
    kept = (imported.rejected_file or beside).read_bytes()
    assert sorted(reasons(imported)) == [
        *((3, "not_json"), (6, "not_utf8"), (7, "other_user")),
        *((8, "id_taken"), (10, "naive_time")),
    ]
    numbers = [number for number, _ in reasons(imported)]
    assert kept == b"".join(lines[number - 1] for number in numbers), "unchanged, in one order"


def test_kept_lines_can_be_mended_and_imported(
    database: Database, messages: Messages, beside: Path
) -> None:
    first = import_lines(messages, io.BytesIO(line("a", role="human") + line("b")), beside)
    assert first.rejected_file == beside.with_name("some.jsonl.rejected")
    mended = first.rejected_file.read_bytes().replace(b"human", b"user")
    second = import_lines(messages, io.BytesIO(mended), first.rejected_file)
    assert (second.appended, second.rejected_file) == (Appended(added=1), None)
    assert stored(database) == ["a", "b"]


def test_what_was_kept_before_is_left_alone(messages: Messages, beside: Path) -> None:
    found = [import_lines(messages, io.BytesIO(each), beside) for each in (b"1\n", b"2\n", b"3")]
    files = [imported.rejected_file for imported in found]
    assert [file.name for file in files] == [
        "some.jsonl.rejected",
        "some.jsonl.rejected.2",
        "some.jsonl.rejected.3",
    ]
    assert [file.read_bytes() for file in files] == [b"1\n", b"2\n", b"3\n"]
    assert [imported.reasons_file.name for imported in found[:2]] == [
        *("some.jsonl.reasons", "some.jsonl.reasons.2"),
    ]


def test_a_line_too_long_is_kept_without_being_held(
    database: Database, messages: Messages, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 200)
    long = line("x", content="y" * 5000)
    short = line("a")
    exact = line("b", content="z" * (199 - len(line("b", content=""))))
    assert len(exact) == 199
    for text in (long + short + exact, short + exact + long, long.rstrip()):
        imported = import_lines(messages, io.BytesIO(text), beside)
        assert reasons(imported) == [(text.split(b"\n").index(long.rstrip()) + 1, "line_too_long")]
        assert imported.rejected_file.read_bytes() == long
    assert stored(database) == ["a", "b"]


def test_it_cannot_be_kept(messages: Messages, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="rejected"):
        import_lines(messages, io.BytesIO(b"1\n"), tmp_path / "nowhere" / "some.jsonl")


class Endless(io.RawIOBase):
    """Lines as they are asked for; says how many were read before the first were stored."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.lines = lines
        self.read = 0

    def readline(self, size: int = -1) -> bytes:
        self.read += 1
        return next(self.lines, b"")


@pytest.mark.parametrize(("content", "most"), [("", 10_000), ("x" * 2_000_000, 9)])
def test_no_more_is_read_than_a_transaction_holds(
    messages: Messages, beside: Path, content: str, most: int
) -> None:
    stream = Endless(line(str(n), content=content, token_count=1) for n in range(most + 3))
    seen: list[int] = []
    imported = import_lines(messages, stream, beside, watch=lambda so_far: seen.append(stream.read))
    assert seen == [most, most + 4]
    assert imported.appended.added == most + 3
