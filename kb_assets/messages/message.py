"""A message as it is handed in: checked when it is made, so that no batch fails because of one."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NoReturn, get_args

from kb_assets.errors import MessageRefusedError

Role = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks."""

MAX_NAME_BYTES = 200
"""The most bytes of an id, a language or an intent, in UTF-8."""

MAX_CONTENT_BYTES = 16 * 1024**2
"""The most bytes of a message's content, in UTF-8."""

MAX_METADATA_BYTES = 1024**2
"""The most bytes of a message's metadata, as JSON."""

MAX_METADATA_DEPTH = 100
"""How many objects and lists of metadata may stand in one another."""

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""No message is older."""

_AHEAD = timedelta(days=1)
_ROLES = get_args(Role)
_INT4_MAX = 2**31 - 1

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class Message:
    """A turn of a conversation. It is known by its `id` and `created_at` together.

    Attributes:
        id: What the client calls it, 1 to 200 bytes.
        conversation_id: Which conversation it belongs to, 1 to 200 bytes.
        created_at: When it was written, with a time zone; kept in UTC, to the microsecond.
        role: Who speaks: `system`, `developer`, `user`, `assistant` or `tool`.
        content: What is said; may be empty.
        user_id: Whose conversation it is, 1 to 200 bytes; a conversation has one user.
        language: As the client names it.
        intent: As the client names it.
        metadata: Whatever JSON can say of it.
        token_count: How many tokens the content has; counted when it is not given.
        metadata_json: The metadata as JSON, as it was when the message was made.
    """

    id: str
    conversation_id: str
    created_at: datetime
    role: str
    content: str
    user_id: str | None = None
    language: str | None = None
    intent: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    token_count: int | None = None
    metadata_json: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            MessageRefusedError: One is not what it must be; `reason` says in which way.
        """
        _require_text("id", self.id, least=1)
        _require_text("conversation_id", self.conversation_id, least=1)
        if self.user_id is not None:
            _require_text("user_id", self.user_id, least=1)
        if self.language is not None:
            _require_text("language", self.language)
        if self.intent is not None:
            _require_text("intent", self.intent)
        if self.role not in _ROLES:
            _refuse("unknown_role", f"No role is called {str(self.role)[:40]!r}.", _ROLES_FIX)
        _require_text("content", self.content, most=MAX_CONTENT_BYTES)
        object.__setattr__(self, "created_at", _moment(self.created_at))
        object.__setattr__(self, "metadata_json", _json(self.metadata))
        _require_count(self.token_count)

    @classmethod
    def from_json(cls, line: str | bytes) -> "Message":
        """Return the message that a JSON object describes.

        Its names are `id`, `conversation`, `created_at` (ISO 8601 with a zone), `role` and
        `content`; and, if wanted, `user`, `language`, `intent`, `metadata` and `token_count`.

        Raises:
            MessageRefusedError: It is not such an object; `reason` says in which way.
        """
        given = _object(line)
        if unknown := given.keys() - _FIELDS.keys():
            _refuse("unknown_field", f"No field is called {min(unknown)[:40]!r}.", _FIELDS_FIX)
        if missing := _REQUIRED - given.keys():
            _refuse("missing_field", f"There is no {min(missing)!r}.", _FIELDS_FIX)
        fields = {_FIELDS[name]: value for name, value in given.items()}
        fields["created_at"] = _parsed(fields["created_at"])
        if fields.get("metadata", {}) is None:
            del fields["metadata"]
        return cls(**fields)


_FIELDS = {
    "id": "id",
    "conversation": "conversation_id",
    "created_at": "created_at",
    "role": "role",
    "content": "content",
    "user": "user_id",
    "language": "language",
    "intent": "intent",
    "metadata": "metadata",
    "token_count": "token_count",
}
_REQUIRED = {"id", "conversation", "created_at", "role", "content"}
_FIELDS_FIX = f"The fields are {', '.join(_FIELDS)}."
_ROLES_FIX = f"The roles are {', '.join(_ROLES)}."
_ZONE_FIX = "Write it with a zone: 2025-03-01T12:00:00Z."


def _json(metadata: Mapping[str, Any]) -> bytes:
    """Return metadata as JSON, if it and the database can hold it."""
    if not isinstance(metadata, Mapping):
        why = f"It is of type {_type(metadata)}."
        _refuse("wrong_type", "The metadata is no object of names and values.", why=why)
    if not metadata:
        return b"{}"
    try:
        given = dict(metadata)
        text = _encode(given)
        encoded = text.encode()
        is_kept = json.loads(text) == given
    except UnicodeEncodeError:
        _refuse_surrogate("metadata")
    except RecursionError:
        _refuse_depth()
    except (TypeError, ValueError) as error:
        _refuse("not_json", "The metadata cannot be JSON.", why=str(error)[:200])
    if not is_kept:
        why = "JSON has only names that are text, and lists instead of tuples."
        _refuse("not_json", "The metadata would not come back from JSON as it is.", why=why)
    if len(encoded) > MAX_METADATA_BYTES:
        _refuse("too_long", f"The metadata has more than {MAX_METADATA_BYTES:,} bytes.")
    if _ESCAPED_NUL.search(text):
        _refuse_nul("metadata")
    if text.count("{") + text.count("[") > MAX_METADATA_DEPTH and _depth(given) > (
        MAX_METADATA_DEPTH
    ):
        _refuse_depth()
    return encoded


def _require_text(name: str, value: object, *, least: int = 0, most: int = MAX_NAME_BYTES) -> None:
    if not isinstance(value, str):
        _refuse("wrong_type", f"The {name} is no text.", why=f"It is of type {_type(value)}.")
    if "\0" in value:
        _refuse_nul(name)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        _refuse_surrogate(name)
    if size < least:
        _refuse("empty", f"The {name} is empty.")
    if size > most:
        _refuse("too_long", f"The {name} has {size:,} bytes, more than {most:,}.")


def _moment(value: object) -> datetime:
    """Return a time in UTC."""
    if not isinstance(value, datetime):
        _refuse("wrong_type", "The created_at is no time.", why=f"It is of type {_type(value)}.")
    if value.utcoffset() is None:
        _refuse("naive_time", "The created_at has no time zone.", _ZONE_FIX)
    if not EARLIEST <= value < datetime.now(UTC) + _AHEAD:
        why = f"Messages are from {EARLIEST:%Y} on, and not from the future."
        _refuse("time_out_of_range", f"The created_at is {value.isoformat()}.", why=why)
    return value if value.tzinfo is UTC else value.astimezone(UTC)


def _require_count(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        why = f"It is of type {_type(value)}."
        _refuse("wrong_type", "The token_count is no whole number.", why=why)
    if not 0 <= value <= _INT4_MAX:
        _refuse("out_of_range", f"The token_count is not between 0 and {_INT4_MAX:,}.")


def _object(line: str | bytes) -> dict[str, Any]:
    try:
        text = line.decode() if isinstance(line, bytes) else line
    except UnicodeDecodeError as error:
        _refuse("not_utf8", "The line is not UTF-8.", why=f"Byte {error.start} is wrong.")
    try:
        given = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        _refuse("not_json", "The line is not JSON.", why="It is nested too deeply.")
    except ValueError as error:
        _refuse("not_json", "The line is not JSON.", why=str(error)[:200])
    if not isinstance(given, dict):
        _refuse("not_an_object", "The line is no JSON object.", _FIELDS_FIX)
    return given


def _parsed(value: object) -> datetime:
    if not isinstance(value, str):
        why = f"It is of type {_type(value)}."
        _refuse("wrong_type", "The created_at is no text.", _ZONE_FIX, why=why)
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        _refuse("not_a_time", f"The created_at is {value[:40]!r}.", _ZONE_FIX)


def _depth(value: object) -> int:
    """Return how many objects and lists stand in one another."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [each for one in level for each in (one.values() if type(one) is dict else one)]
    return depth


def _type(value: object) -> str:
    return type(value).__name__


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON.")


def _refuse_nul(name: str) -> NoReturn:
    _refuse("nul", f"The {name} has a NUL character.", why="The database cannot hold one.")


def _refuse_surrogate(name: str) -> NoReturn:
    why = "It is no character, and UTF-8 cannot hold it."
    _refuse("surrogate", f"The {name} has half of a surrogate pair.", why=why)


def _refuse_depth() -> NoReturn:
    _refuse("too_deep", f"The metadata is nested more than {MAX_METADATA_DEPTH} deep.")


def _refuse(reason: str, what: str, fix: str = "", *, why: str = "") -> NoReturn:
    raise MessageRefusedError(reason, what, why=why, fix=fix)
