"""What a backup is: every file with its hash, every table with its rows, and who says so.

A manifest is the last object of a backup to be written. It is one line of canonical JSON and the
SHA-256 of it; with a key, an HMAC as well, so that nobody else can make one. What is read must be,
byte for byte, what this module would write.
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from kb_assets.errors import BackupCorruptError, BackupUntrustedError

MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """One object of a backup: a file, or a part of one; see `FileFacts`.

    Attributes:
        key: Where it lies below the destination.
        object_bytes: Its size, as it lies there.
        sha256: Its hash, in hexadecimal.
    """

    key: str
    object_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file of a backup: its pieces, one after the other, are the file.

    Attributes:
        name: Its path below the backup's folder, such as `dump/toc.dat`.
        pieces: Its objects, in order; an empty file has one.
    """

    name: str
    pieces: tuple[Piece, ...]

    @property
    def file_bytes(self) -> int:
        """Its size in the store: encrypted, if the backup is."""
        return sum(piece.object_bytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What a table held at the backup's snapshot.

    Attributes:
        schema: Its schema.
        name: Its name.
        columns: Its columns in order; those that are computed are left out.
        rows: How many rows it had; those of its partitions are theirs.
        row_hash_sum: The sum of the first halves of the rows' SHA-256, modulo 2**128, in
            hexadecimal; see `contents.py`.
        file: The file of its rows in binary; None if they are in the dump.
    """

    schema: str
    name: str
    columns: tuple[str, ...]
    rows: int
    row_hash_sum: str
    file: str | None = None


@dataclass(frozen=True, slots=True)
class SequenceFacts:
    """Where a sequence stood.

    Attributes:
        schema: Its schema.
        name: Its name.
        last_value: The last value that was handed out, or the next if none was.
        is_called: Whether one was handed out.
    """

    schema: str
    name: str
    last_value: int
    is_called: bool


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """A role that owns something, or may do something.

    Attributes:
        name: Its name.
        attributes: What it is: some of `login`, `bypassrls`, `createdb`, `createrole`, `inherit`.
        member_of: The roles whose rights it has.
        database_rights: What it may do with the database itself: `connect`, `temporary`, `create`.
    """

    name: str
    attributes: tuple[str, ...]
    member_of: tuple[str, ...]
    database_rights: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole backup.

    Attributes:
        id: What it is called: when it began, and a random part; sorts by time.
        number: One more than that of the backup before; does not depend on clocks.
        started_at: When it began: ISO 8601, UTC.
        snapshot_at: The moment whose state it holds.
        finished_at: When everything but this manifest was in the store.
        kb_version: The version of this package.
        server: The server's version, such as `16.14`.
        extensions: The version of each extension.
        revision: The schema's Alembic revision.
        database: The database's name.
        database_bytes: Its size on the server, indexes and all.
        is_encrypted: Whether the files are encrypted with age.
        files: Every file.
        tables: Every table.
        sequences: Every sequence.
        roles: Every role that matters.
        version: That of the manifest's form.
    """

    id: str
    number: int
    started_at: str
    snapshot_at: str
    finished_at: str
    kb_version: str
    server: str
    extensions: Mapping[str, str]
    revision: str
    database: str
    database_bytes: int
    is_encrypted: bool
    files: tuple[FileFacts, ...]
    tables: tuple[TableFacts, ...]
    sequences: tuple[SequenceFacts, ...]
    roles: tuple[RoleFacts, ...]
    version: int = MANIFEST_VERSION

    @property
    def server_major(self) -> int:
        """The server's major version."""
        return int(self.server.split(".")[0])

    @property
    def stored_bytes(self) -> int:
        """What it takes in the store, this manifest left out."""
        return sum(file.file_bytes for file in self.files)

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(table.rows for table in self.tables)

    def file(self, name: str) -> FileFacts:
        """Return a file's facts.

        Raises:
            BackupCorruptError: The manifest names no such file.
        """
        for file in self.files:
            if file.name == name:
                return file
        raise BackupCorruptError(f"Backup {self.id} names no file {name}.")


def manifest_bytes(manifest: Manifest, key: bytes | None) -> bytes:
    """Return a manifest as it lies in the store.

    Args:
        manifest: The backup.
        key: Signs it; None leaves it unsigned.
    """
    body = _canonical(asdict(manifest))
    seal = {
        "sha256": sha256(body).hexdigest(),
        "hmac_sha256": hmac.new(key, body, sha256).hexdigest() if key else None,
    }
    return body + b"\n" + _canonical(seal) + b"\n"


def parse_manifest(content: bytes, key: bytes | None) -> tuple[Manifest, bool]:
    """Return the manifest that some bytes are, and whether it is signed with the key.

    Args:
        content: What was read.
        key: What it must be signed with; None takes any, and says that it is not signed.

    Raises:
        BackupCorruptError: It is damaged.
        BackupUntrustedError: It is not signed with the key.
    """
    try:
        body, seal_line, end = content.split(b"\n")
        seal, facts = json.loads(seal_line), json.loads(body)
        signature = seal["hmac_sha256"]
        is_whole = end == b"" and seal["sha256"] == sha256(body).hexdigest()
        if not is_whole or seal_line != _canonical(seal) or set(seal) != {"sha256", "hmac_sha256"}:
            raise ValueError("its own hash is another")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackupCorruptError(
            "The manifest of a backup is damaged.",
            why=str(error),
            fix="Use another backup; look for what changed this one.",
        ) from error
    if key is not None:
        _require_signed(body, signature, key)
    return _manifest(facts), key is not None


def _require_signed(body: bytes, signature: object, key: bytes) -> None:
    expected = hmac.new(key, body, sha256).hexdigest()
    if not isinstance(signature, str) or not signature.isascii():
        raise BackupUntrustedError(
            "The manifest of a backup is not signed.",
            why="KB_BACKUP_KEY is set, so every backup must be signed with it.",
            fix="Find out who made it. If it is yours, unset KB_BACKUP_KEY, and say `--unsigned`.",
        )
    if not hmac.compare_digest(signature, expected):
        raise BackupUntrustedError(
            "The manifest of a backup is signed with another key.",
            why="It was forged, or KB_BACKUP_KEY is not the one that it was made with.",
            fix="Set KB_BACKUP_KEY to the key of that time; otherwise use another backup.",
        )


def _manifest(facts: dict[str, Any]) -> Manifest:
    try:
        if facts["version"] != MANIFEST_VERSION:
            raise BackupCorruptError(
                f"A backup's manifest has version {facts['version']}, not {MANIFEST_VERSION}.",
                fix="Use the version of kb_assets that made it.",
            )
        files = [
            FileFacts(one["name"], tuple(Piece(**piece) for piece in one["pieces"]))
            for one in facts.pop("files")
        ]
        tables = [
            TableFacts(**{**one, "columns": tuple(one["columns"])}) for one in facts.pop("tables")
        ]
        roles = [
            RoleFacts(
                one["name"],
                tuple(one["attributes"]),
                tuple(one["member_of"]),
                tuple(one["database_rights"]),
            )
            for one in facts.pop("roles")
        ]
        sequences = tuple(SequenceFacts(**one) for one in facts.pop("sequences"))
        return Manifest(
            files=tuple(files), tables=tuple(tables), roles=tuple(roles), sequences=sequences,
            **facts,
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise BackupCorruptError(
            "The manifest of a backup lacks something.", why=str(error), fix="Use another backup."
        ) from error


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode()
