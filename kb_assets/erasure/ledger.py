"""The ledger of erasures: in the database, and as files in a store that outlive it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from kb_assets.database.statements import Statements
from kb_assets.erasure.subject import Scope, Subject
from kb_assets.errors import BackupCorruptError
from kb_assets.object_store import ObjectStore

ENTRY_VERSION = 1
FOLDER = "erasures/"
"""Where entries lie in a store."""

SCOPES = ("conversation", "user", "document")
_ENTRY = re.compile(r"erasures/\d{10}-[0-9a-f]{16}\.json")

_statements = Statements(Path(__file__).with_name("erasing.sql"))


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: now, or before the backup that was restored.

    Attributes:
        scope: What the subject is.
        subject_hash: The SHA-256 of its name.
        requested_at: When, if it is replayed.
        ledger: Where its entry lies in the store, if it is replayed.
        conversations: The conversations that are erased, if it is replayed.
        document: The source and the path that are erased, if it is replayed.
    """

    scope: Scope
    subject_hash: bytes
    requested_at: datetime | None = None
    ledger: str | None = None
    conversations: tuple[str, ...] = ()
    document: tuple[str, str] = ("", "")

    @classmethod
    def of(cls, subject: Subject) -> "Request":
        """Return the request to erase a subject now."""
        return cls(subject.scope, subject.hash)

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Request":
        """Return the request that an entry in the store tells of.

        Raises:
            ValueError: It is no such entry.
        """
        try:
            if entry["version"] != ENTRY_VERSION or entry["scope"] not in SCOPES:
                raise ValueError("It is of another version.")
            is_document = entry["scope"] == "document"
            return cls(
                entry["scope"],
                bytes.fromhex(entry["subject_sha256"]),
                datetime.fromisoformat(entry["requested_at"]),
                entry["key"],
                () if is_document else tuple(entry["conversations"]),
                (entry["source"], entry["path"]) if is_document else ("", ""),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"It lacks something: {error}") from error


@dataclass(frozen=True, slots=True)
class Erasure:
    """An entry of the ledger.

    Attributes:
        id: Its number.
        scope: What was erased: a conversation, a user's conversations, or a document.
        subject_hash: The SHA-256 of its name, as it was given.
        run_id: Who erased it.
        requested_at: Since when it is hidden.
        finished_at: When nothing was left in what is read; None if something is still to be done.
        receipt: What was erased, counted; which replaced objects stay, and until when.
    """

    id: int
    scope: Scope
    subject_hash: bytes
    run_id: str
    requested_at: datetime
    finished_at: datetime | None
    receipt: Mapping[str, Any]

    @property
    def ledger_key(self) -> str:
        """Where its entry lies in the store: numbers alone repeat after a backup is restored."""
        requested_at = self.requested_at.astimezone(UTC).isoformat()
        known = f"{self.scope} {requested_at} {self.subject_hash.hex()}"
        return f"{FOLDER}{self.id:010d}-{sha256(known.encode()).hexdigest()[:16]}.json"

    @property
    def receipt_key(self) -> str:
        """Where its receipt lies in the store once it is finished: beside its entry."""
        key = str(self.receipt.get("ledger", self.ledger_key))
        return f"{key.removesuffix('.json')}.receipt.json"


def find_erasures(
    connection: psycopg.Connection[Any], id_: int | None = None
) -> tuple[Erasure, ...]:
    """Return the ledger's entries in their order, or the one with a number."""
    rows = connection.execute(_statements("find_erasures"), {"id": id_})
    return tuple(Erasure(*row) for row in rows)


def find_last(connection: psycopg.Connection[Any], subject: Subject) -> Erasure | None:
    """Return the last erasure of a subject, if there was one."""
    named = {"scope": subject.scope, "name": subject.name, "subject_hash": subject.hash}
    row = connection.execute(_statements("find_last"), named).fetchone()
    return None if row is None else find_erasures(connection, row[0])[0]


def find_unfinished(connection: psycopg.Connection[Any], *, has_store: bool) -> list[int]:
    """Return the numbers of erasures that are not finished, or that no file tells of."""
    rows = connection.execute(_statements("find_unfinished"), {"has_store": has_store})
    return [id_ for (id_,) in rows]


def enter(
    connection: psycopg.Connection[Any], request: Request, run_id: str, receipt: Mapping[str, Any]
) -> int:
    """Enter an erasure, and return its number.

    Args:
        connection: In the transaction that hides what is erased.
        request: What was asked for.
        run_id: Who erases.
        receipt: What was erased by this transaction.
    """
    if request.ledger is not None:
        receipt = {**receipt, "ledger": request.ledger}
    named = {
        "scope": request.scope,
        "subject_hash": request.subject_hash,
        "run_id": run_id,
        "requested_at": request.requested_at,
        "receipt": Jsonb(dict(receipt)),
    }
    row = connection.execute(_statements("add_erasure"), named).fetchone()
    assert row is not None
    return int(row[0])


def is_known(connection: psycopg.Connection[Any], request: Request) -> bool:
    """Say whether the ledger has a request that is to be replayed."""
    named = {
        "scope": request.scope,
        "subject_hash": request.subject_hash,
        "requested_at": request.requested_at,
    }
    return connection.execute(_statements("find_replayed"), named).fetchone() is not None


def add_to_receipt(connection: psycopg.Connection[Any], id_: int, facts: Mapping[str, Any]) -> None:
    """Note facts in an erasure's receipt."""
    connection.execute(_statements("add_to_receipt"), {"id": id_, "facts": Jsonb(dict(facts))})


def conversations_of(connection: psycopg.Connection[Any], id_: int) -> list[str]:
    """Return the ids of the conversations that an erasure is about."""
    rows = connection.execute(_statements("find_conversations_of"), {"id": id_})
    return [name for (name,) in rows]


def document_of(connection: psycopg.Connection[Any], id_: int) -> tuple[int, str, str] | None:
    """Return the source's row, the source and the path that an erasure is about."""
    return connection.execute(_statements("find_documents_of"), {"id": id_}).fetchone()


def entry_of(connection: psycopg.Connection[Any], erasure: Erasure) -> bytes:
    """Return an erasure as its file has it: all that it takes to erase again, and no more.

    It is the same from the first moment on, so that it can be put again.
    """
    entry: dict[str, Any] = {
        "version": ENTRY_VERSION,
        "id": erasure.id,
        "key": erasure.ledger_key,
        "scope": erasure.scope,
        "subject_sha256": erasure.subject_hash.hex(),
        "requested_at": erasure.requested_at.astimezone(UTC).isoformat(),
        "run": erasure.run_id,
    }
    if erasure.scope == "document":
        _, entry["source"], entry["path"] = document_of(connection, erasure.id) or (0, "", "")
    else:
        entry["conversations"] = conversations_of(connection, erasure.id)
    return _json(entry)


def receipt_of(erasure: Erasure) -> bytes:
    """Return an erasure's receipt as its file has it."""
    return _json(erasure.receipt)


def read_requests(store: ObjectStore) -> list[Request]:
    """Return what every entry in a store tells of.

    Raises:
        BackupCorruptError: An entry is damaged.
        ObjectStoreError: The store refuses us.
        ObjectStoreUnavailableError: The store cannot be reached.
    """
    requests = []
    for key in store.list(FOLDER):
        if _ENTRY.fullmatch(key):
            try:
                requests.append(Request.from_entry(json.loads(store.read(key))))
            except ValueError as error:
                raise BackupCorruptError(
                    f"{store.url(key)} does not say what was erased.",
                    why=str(error),
                    fix="Bring it back from a copy of the store, and run it again. What it told of "
                    "would be back for good without it.",
                ) from error
    return requests


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True).encode()
