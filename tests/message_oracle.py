"""What must hold of messages at any moment: written = live ⊎ archived ⊎ erased.

A client remembers what was acknowledged to it. Where rows are is computed here from tables and
objects, and their hashes from their values, not by asking the code under test.
"""

import hashlib
import json
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psycopg

from kb_assets.archive.relation import MESSAGES
from kb_assets.archive.verify import read_verified
from kb_assets.messages.intake import Appended, Messages
from kb_assets.messages.message import Message

Key = tuple[str, datetime]
"""What a message is known by."""

ReadObject = Callable[[str], bytes]
"""Reads an object of the archive by its key, past the code under test."""

ALL_TIME = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)

_TEXT, _TIME, _INT4, _INT8, _JSONB = 25, 1184, 23, 20, 3802
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_HOT = """
select id, conversation_id, created_at, role, content, language, intent, metadata::text,
    token_count, ordinal, total_bytes, total_tokens,
    sha256(record_send(row(id, conversation_id, created_at, role, content, language, intent,
        metadata, token_count, ordinal, total_bytes, total_tokens)))
from kb.{table} where created_at >= %(low)s and created_at < %(high)s
"""
_COLD = """
select object_key, sha256, bytes, rows from kb.archive_segment
where state = 'committed' and high > %(low)s and low < %(high)s order by id
"""
_KEPT = """
select object_key from kb.archive_segment
where state in ('committed', 'restored') and high > %(low)s and low < %(high)s
"""
_UNRESTED = {
    "segments in work": "select id from kb.archive_segment where state = 'copying'",
    "segments given up without a reason": (
        "select id from kb.archive_segment where state = 'stale' and reason is null"
    ),
    "unfinished erasures": "select id from kb.erasure where finished_at is null",
}
_PARTITION = "select to_regclass(format('kb.message_%%s', to_char(%s::date, 'YYYY_MM')))"


class Row(NamedTuple):
    """A message as it lies in the database or in an object."""

    id: str
    conversation_id: str
    created_at: datetime
    role: str
    content: str
    language: str | None
    intent: str | None
    metadata: str
    token_count: int
    ordinal: int | None
    total_bytes: int | None
    total_tokens: int | None
    row_hash: bytes

    @property
    def key(self) -> Key:
        return self.id, self.created_at

    @property
    def content_hash(self) -> bytes:
        """The hash of what the client handed in; JSON may be written in several ways."""
        given = self._replace(
            created_at=self.created_at.astimezone(UTC),
            metadata=json.dumps(json.loads(self.metadata), sort_keys=True),
        )
        return hashlib.sha256(repr(given[:9]).encode()).digest()


def row_hash(row: Row) -> bytes:
    """Return the SHA-256 of a row as PostgreSQL's `record_send` writes it."""
    microseconds = struct.pack(">q", (row.created_at - _EPOCH) // _MICROSECOND)
    fields = [
        (_TEXT, row.id.encode()),
        (_TEXT, row.conversation_id.encode()),
        (_TIME, microseconds),
        (_TEXT, row.role.encode()),
        (_TEXT, row.content.encode()),
        (_TEXT, None if row.language is None else row.language.encode()),
        (_TEXT, None if row.intent is None else row.intent.encode()),
        (_JSONB, b"\x01" + row.metadata.encode()),
        (_INT4, struct.pack(">i", row.token_count)),
        *(
            (_INT8, None if total is None else struct.pack(">q", total))
            for total in (row.ordinal, row.total_bytes, row.total_tokens)
        ),
    ]
    parts = [struct.pack(">i", len(fields))]
    for kind, value in fields:
        parts.append(struct.pack(">ii", kind, -1 if value is None else len(value)))
        parts.append(value or b"")
    return hashlib.sha256(b"".join(parts)).digest()


def content_hash(message: Message) -> bytes:
    """Return the hash of what a client handed in."""
    metadata = json.dumps(dict(message.metadata))
    return Row(
        message.id,
        message.conversation_id,
        message.created_at,
        message.role,
        message.content,
        message.language,
        message.intent,
        metadata,
        message.token_count,
        *(None, None, None, b""),
    ).content_hash


@dataclass(frozen=True)
class Seen:
    """Every message that can be read, in the places where it is."""

    live: list[Row]
    archived: list[Row]
    erased: set[str]

    @property
    def rows(self) -> list[Row]:
        return self.live + self.archived


@dataclass
class Difference:
    """What is not as the formula says; each is a list of keys."""

    lost: list[Key] = field(default_factory=list)
    duplicated: list[Key] = field(default_factory=list)
    resurrected: list[Key] = field(default_factory=list)
    changed: list[Key] = field(default_factory=list)
    unheard_of: list[Key] = field(default_factory=list)


class Connections:
    """Connections to a database, each lent to one at a time; any may be ended meanwhile."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[psycopg.Connection] = []

    @contextmanager
    def lend(self) -> Iterator[psycopg.Connection]:
        try:
            connection = self._idle.pop()
            connection.execute("")
        except (IndexError, psycopg.OperationalError):
            connection = psycopg.connect(self._url, autocommit=True)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class MessageOracle:
    """A client of the messages, and what must be found of what was acknowledged to it.

    Its methods can be called from several threads; what is checked while others write is what
    was acknowledged before.

    Args:
        messages: Where it appends.
        connections: To the database, as the owner.
        read_object: Reads objects of the archive.
        window: Between which moments its messages are; others are nobody's concern.
    """

    def __init__(
        self,
        messages: Messages,
        connections: Connections,
        read_object: ReadObject,
        window: tuple[datetime, datetime] = ALL_TIME,
    ) -> None:
        self.written: dict[Key, bytes] = {}
        self.conversations: dict[Key, str] = {}
        self.deleted: set[Key] = set()
        self.erased: set[str] = set()
        self.asked_to_erase: set[str] = set()
        self._messages = messages
        self._connections = connections
        self._read_object = read_object
        self._window = dict(zip(("low", "high"), window, strict=True))
        self._hashes: dict[Key, bytes] = {}
        self._lock = threading.Lock()

    def append(self, batch: Iterable[Message]) -> Appended:
        """Hand messages in; of those with the same key the first one counts."""
        batch = list(batch)
        appended = self._messages.append(batch)
        with self._lock:
            for message in batch:
                key = (message.id, message.created_at)
                self.written.setdefault(key, content_hash(message))
                self.conversations.setdefault(key, message.conversation_id)
        return appended

    def update(self, key: Key, content: str, table: str = "message") -> bool:
        """Change a hot row past the library; say whether it was there to be changed."""
        statement = (
            f"update kb.{table} set content = %s where id = %s and created_at = %s"
            " returning id, conversation_id, created_at, role, content, language, intent,"
            " metadata::text, token_count, null::bigint, null::bigint, null::bigint, ''::bytea"
        )
        found = self.execute(statement, content, *key)
        with self._lock:
            for values in found:
                self.written[key] = Row(*values).content_hash
                self._hashes.pop(key, None)
        return bool(found)

    def note_changed(self, key: Key, row: Row) -> None:
        """Remember that a row was changed past this client, and how."""
        with self._lock:
            self.written[key] = row.content_hash
            self._hashes.pop(key, None)

    def delete(self, key: Key, table: str = "message") -> bool:
        """Delete a hot row past the library; say whether it was there to be deleted."""
        statement = f"delete from kb.{table} where id = %s and created_at = %s returning id"
        found = self.execute(statement, *key)
        with self._lock:
            if found:
                del self.written[key]
                self.deleted.add(key)
        return bool(found)

    def erase(self, conversation: str, erase: Callable[[], object]) -> None:
        """Have a conversation erased; if that fails, the database says whether it was."""
        with self._lock:
            self.asked_to_erase.add(conversation)
        erase()
        with self._lock:
            self.erased.add(conversation)

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._connections.lend() as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def look(self) -> Seen:
        """Return what can be read at one moment; every row's hash is that of its values."""
        with self._connections.lend() as connection, connection.transaction():
            connection.execute("set transaction isolation level repeatable read, read only")
            # Before the snapshot: a month that leaves afterwards leaves both ways.
            connection.execute("lock table kb.message in access share mode")
            hot = list(self._hot(connection, "message"))
            late = list(self._hot(connection, "message_late"))
            segments = connection.execute(_COLD, self._window).fetchall()
            rows = connection.execute("select conversation_id from kb.erased_conversation")
            erased = {name for (name,) in rows}
        cold = [row for segment in segments for row in self._proven(*segment)]
        keys = {row.key for row in cold}
        live = hot + [row for row in late if row.key not in keys]
        assert all(row_hash(row) == row.row_hash for row in live + cold)
        return Seen(live, [row for row in cold if row.conversation_id not in erased], erased)

    def difference(self) -> Difference:
        """Compare what is there with what was acknowledged before."""
        with self._lock:
            written, deleted, erased = dict(self.written), set(self.deleted), set(self.erased)
        seen = self.look()
        ours = seen.erased.intersection(self.conversations.values())
        assert erased <= seen.erased, "an erasure was forgotten"
        assert ours <= self.asked_to_erase, "nobody asked to erase this"
        expected = {
            key: value
            for key, value in written.items()
            if self.conversations[key] not in seen.erased
        }
        found = Counter(row.key for row in seen.rows)
        unexpected = found.keys() - expected.keys()
        return Difference(
            lost=sorted(expected.keys() - found.keys()),
            duplicated=sorted(key for key, times in found.items() if times > 1),
            resurrected=sorted(unexpected & (deleted | written.keys())),
            changed=sorted({row.key for row in seen.rows if self._is_changed(row, expected)}),
            unheard_of=sorted(unexpected - deleted - written.keys()),
        )

    def check(self) -> None:
        """The formula holds."""
        difference = self.difference()
        assert difference == Difference(), difference

    def check_at_rest(self, *months: date) -> None:
        """The formula holds, all of these months is cold, and nothing is left half done."""
        self.check()
        for month in months:
            assert self.execute(_PARTITION, month) == [(None,)], f"{month} has its partition"
        rows = self.execute(
            "select created_at from kb.message_late"
            " where date_trunc('month', created_at at time zone 'UTC')::date = any(%s)",
            list(months),
        )
        assert rows == [], "late rows are left"
        for what, query in _UNRESTED.items():
            assert self.execute(query) == [], what
        self.check_erased()

    def check_erased(self) -> None:
        """Nothing of erased conversations is in the tables, or in objects that are in use."""
        with self._connections.lend() as connection:
            keys = connection.execute(_KEPT, self._window).fetchall()
            hot = list(self._hot(connection, "message")) + list(
                self._hot(connection, "message_late")
            )
        kept = [row for (key,) in keys for row in self._rows(self._read_object(key))]
        assert {row.conversation_id for row in hot + kept}.isdisjoint(self.erased)

    def _is_changed(self, row: Row, expected: dict[Key, bytes]) -> bool:
        """Say whether a row is not what was acknowledged, or not what it was a moment ago."""
        if row.key not in expected:
            return False
        before = self._hashes.setdefault(row.key, row.row_hash)
        return row.content_hash != expected[row.key] or row.row_hash != before

    def _hot(self, connection: psycopg.Connection, table: str) -> Iterator[Row]:
        for values in connection.execute(_HOT.format(table=table), self._window):
            yield Row(*values)

    def _proven(self, key: str, sha256: bytes, size: int, rows: int) -> list[Row]:
        content = self._read_object(key)
        assert (len(content), hashlib.sha256(content).digest()) == (size, sha256), key
        found = list(self._rows(content))
        assert len(found) == rows
        return found

    def _rows(self, content: bytes) -> Iterator[Row]:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "object.parquet"
            file.write_bytes(content)
            for batch in read_verified(file, MESSAGES):
                for values in batch.to_pylist():
                    yield Row(**values)
