"""Messages as rows in the binary format of COPY: made here, the server is what takes time."""

import struct
from collections.abc import Iterable, Iterator

from kb_assets.database.binary import NULL, field
from kb_assets.messages.plan import Batch, Plan

COLUMNS = (
    *("id", "conversation_id", "created_at", "role", "content", "language", "intent"),
    *("metadata", "token_count", "ordinal", "total_bytes", "total_tokens"),
)
"""What a row has, in this order."""

_POSTGRES_EPOCH = 946_684_800_000_000
"""Where PostgreSQL counts microseconds from, counted from 1970: the year 2000."""

_PARTS = 1000
"""About how many values are handed on together: a hundred rows."""

_JSONB_VERSION = 1
_head = struct.Struct("!hi").pack
_length = struct.Struct("!i").pack
_jsonb = struct.Struct("!ib").pack
_moment = struct.Struct("!iq").pack
_place = struct.Struct("!iiiqiqiq").pack
_count = struct.Struct("!ii").pack
_NO_PLACE = NULL * 3


def encode(batch: Batch, plan: Plan) -> Iterator[bytes]:
    """Yield the rows of messages that have a place, some in each piece."""
    counted = zip(plan.rows, plan.ordinals, plan.total_bytes, plan.total_tokens, strict=True)
    ends = (
        _place(4, batch.tokens[index], 8, ordinal, 8, total_bytes, 8, total_tokens)
        for index, ordinal, total_bytes, total_tokens in counted
    )
    return _pieces(batch, plan.rows, ends)


def encode_late(batch: Batch, plan: Plan) -> Iterator[bytes]:
    """Yield the rows of messages that have none."""
    ends = (_count(4, batch.tokens[index]) + _NO_PLACE for index in plan.late)
    return _pieces(batch, plan.late, ends)


class _Texts(dict[str | None, bytes]):
    """What occurs again and again as it is sent: conversations, roles, languages, intents."""

    def __missing__(self, value: str) -> bytes:
        made = self[value] = field(value.encode())
        return made


def _pieces(batch: Batch, indexes: Iterable[int], ends: Iterable[bytes]) -> Iterator[bytes]:
    texts = _Texts({None: NULL})
    parts: list[bytes] = []
    for index, end in zip(indexes, ends, strict=True):
        message, content = batch.messages[index], batch.contents[index]
        id_, metadata = message.id.encode(), message.metadata_json
        parts += (
            _head(len(COLUMNS), len(id_)),
            id_,
            texts[message.conversation_id],
            _moment(8, batch.microseconds[index] - _POSTGRES_EPOCH),
            texts[message.role],
            _length(len(content)),
            content,
            texts[message.language],
            texts[message.intent],
            _jsonb(len(metadata) + 1, _JSONB_VERSION),
            metadata,
            end,
        )
        if len(parts) >= _PARTS:
            yield b"".join(parts)
            parts.clear()
    yield b"".join(parts)
