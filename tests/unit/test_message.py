"""What a message may be, and how one is read from a line of JSON."""

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest

from kb_assets.errors import MessageRefusedError
from kb_assets.messages.message import (
    EARLIEST,
    MAX_CONTENT_BYTES,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    Message,
)

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)


def make(**fields: object) -> Message:
    given = {"id": "m", "conversation_id": "c", "created_at": NOON, "role": "user"}
    return Message(**{**given, "content": "hello", **fields})


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "é" * 100},
        {"content": ""},
        {"content": "x" * MAX_CONTENT_BYTES},
        {"content": "\x01\x7f\u2028\ufeff\U0010ffff"},
        {"user_id": "u", "language": "", "intent": ""},
        {"created_at": EARLIEST},
        {"created_at": datetime.now(UTC) + timedelta(hours=23)},
        {"token_count": 0},
        {"token_count": 2**31 - 1},
        {"metadata": nested(MAX_METADATA_DEPTH)},
        {"metadata": {"a": [None, True, 1, -0.5, 1e300, 10**100, "\\u0000", ""]}},
        {"metadata": {"a": "[{" * 200}},
        *({"role": role} for role in ("system", "developer", "assistant", "tool")),
    ],
)
def test_what_a_message_may_be(fields: dict[str, object]) -> None:
    one = make(**fields)
    for name, value in fields.items():
        assert getattr(one, name) == value
    assert pickle.loads(pickle.dumps(one)) == one
    hash(one)


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("empty", {"id": ""}),
        ("empty", {"conversation_id": ""}),
        ("empty", {"user_id": ""}),
        ("too_long", {"id": "é" * 101}),
        ("too_long", {"language": "x" * 201}),
        ("too_long", {"content": "é" * (MAX_CONTENT_BYTES // 2) + "x"}),
        ("too_long", {"metadata": {"a": "x" * MAX_METADATA_BYTES}}),
        ("wrong_type", {"id": 1}),
        ("wrong_type", {"content": b"x"}),
        ("wrong_type", {"created_at": "2025-03-01T12:00:00Z"}),
        ("wrong_type", {"metadata": []}),
        ("wrong_type", {"token_count": True}),
        ("wrong_type", {"token_count": 1.0}),
        ("out_of_range", {"token_count": -1}),
        ("out_of_range", {"token_count": 2**31}),
        ("nul", {"content": "a\0b"}),
        ("nul", {"intent": "\0"}),
        ("nul", {"metadata": {"a": ["\0"]}}),
        ("nul", {"metadata": {"\\\0": 1}}),
        ("surrogate", {"content": "\ud83d"}),
        ("surrogate", {"metadata": {"a": "\udc00"}}),
        ("unknown_role", {"role": "User"}),
        ("unknown_role", {"role": None}),
        ("unknown_role", {"role": ["user"]}),
        ("naive_time", {"created_at": datetime(2025, 3, 1)}),
        ("time_out_of_range", {"created_at": EARLIEST - timedelta(microseconds=1)}),
        ("time_out_of_range", {"created_at": datetime.now(UTC) + timedelta(days=1, hours=1)}),
        (
            "time_out_of_range",
            {"created_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))},
        ),
        (
            "time_out_of_range",
            {"created_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))},
        ),
        ("too_deep", {"metadata": nested(MAX_METADATA_DEPTH + 1)}),
        ("too_deep", {"metadata": nested(100_000)}),
        ("not_json", {"metadata": {1: "a"}}),
        ("not_json", {"metadata": {"a": (1,)}}),
        ("not_json", {"metadata": {"a": {1}}}),
        ("not_json", {"metadata": {"a": float("nan")}}),
        ("not_json", {"metadata": {"a": float("inf")}}),
        ("not_json", {"metadata": {"a": 10**5000}}),
    ],
)
def test_what_it_may_not_be(reason: str, fields: dict[str, object]) -> None:
    with pytest.raises(MessageRefusedError) as caught:
        make(**fields)
    assert caught.value.reason == reason
    if reason != "not_json":
        assert next(iter(fields)) in caught.value.what


def test_times_are_kept_in_utc() -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    one = make(created_at=datetime(2025, 4, 1, 5, 29, 59, 999_999, tzinfo=there))
    assert one.created_at.isoformat() == "2025-03-31T23:59:59.999999+00:00"


LINE = {
    "id": "m",
    "conversation": "c",
    "created_at": "2025-03-01T12:00:00.000001+01:00",
    "role": "tool",
    "content": "über\u2028",
}
ALL = {"user": "u", "language": "de", "intent": "ask", "metadata": {"a": [1]}, "token_count": 3}


def test_a_line_of_json() -> None:
    assert Message.from_json(json.dumps(LINE)) == Message(
        *("m", "c", datetime(2025, 3, 1, 11, 0, 0, 1, UTC), "tool", "über\u2028")
    )
    one = Message.from_json(json.dumps(LINE | ALL, ensure_ascii=False).encode() + b"\r\n")
    assert (one.user_id, one.language, one.intent, one.metadata, one.token_count) == (
        *("u", "de", "ask", {"a": [1]}, 3),
    )
    nothing = Message.from_json(json.dumps(LINE | dict.fromkeys(ALL)))
    assert nothing == Message.from_json(json.dumps(LINE))


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("not_utf8", b'{"id": "\xff"}'),
        ("not_json", b"{"),
        ("not_json", "[" * 100_000),
        ("not_json", json.dumps(LINE | {"metadata": {"a": float("nan")}})),
        ("not_json", json.dumps(LINE)[:-1] + ', "token_count": 1' + "0" * 5000 + "}"),
        ("not_json", json.dumps(LINE | {"metadata": {"a": 0}}).replace("0}", "1e400}")),
        ("not_an_object", "[]"),
        ("missing_field", json.dumps({k: v for k, v in LINE.items() if k != "role"})),
        ("unknown_field", json.dumps(LINE | {"colour": "red"})),
        ("not_a_time", json.dumps(LINE | {"created_at": "yesterday"})),
        ("naive_time", json.dumps(LINE | {"created_at": "2025-03-01T12:00:00"})),
        ("naive_time", json.dumps(LINE | {"created_at": "2025-03-01"})),
        ("wrong_type", json.dumps(LINE | {"created_at": 1740826800})),
        ("wrong_type", json.dumps(LINE | {"content": None})),
        ("wrong_type", json.dumps(LINE | {"token_count": 3.0})),
        ("surrogate", json.dumps(LINE | {"content": "\ud800"})),
        ("nul", json.dumps(LINE | {"content": "\0"})),
    ],
)
def test_a_line_that_is_no_message(reason: str, line: str | bytes) -> None:
    with pytest.raises(MessageRefusedError) as caught:
        Message.from_json(line)
    assert caught.value.reason == reason
    assert caught.value.exit_code == 5
