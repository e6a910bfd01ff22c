"""What a backup is: every file with its hash, every table with its rows, and who says so.

A manifest is the last object of a backup to be written. It is one line of canonical JSON and the
SHA-256 of it; with a key, an HMAC as well, so that nobody else can make one; see `seal.py`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter, ValidationError

from kb_assets.backup.seal import seal, unseal
from kb_assets.errors import BackupCorruptError

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


_MANIFESTS = TypeAdapter(Manifest)


def manifest_bytes(manifest: Manifest, key: bytes | None) -> bytes:
    """Return a manifest as it lies in the store.

    Args:
        manifest: The backup.
        key: Signs it; None leaves it unsigned.
    """
    return seal(asdict(manifest), key)


def parse_manifest(content: bytes, key: bytes | None) -> tuple[Manifest, bool]:
    """Return the manifest that some bytes are, and whether it is signed with the key.

    Args:
        content: What was read.
        key: What it must be signed with; None takes any, and says that it is not signed.

    Raises:
        BackupCorruptError: It is damaged.
        BackupUntrustedError: It is not signed with the key.
    """
    body = unseal(content, key, "The manifest of a backup")
    try:
        manifest = _MANIFESTS.validate_json(body, strict=True)
        if not manifest_bytes(manifest, None).startswith(body + b"\n"):
            raise ValueError("It says more, or says it otherwise, than a manifest does.")
        if manifest.version != MANIFEST_VERSION:
            raise ValueError(f"Its form is version {manifest.version}, not {MANIFEST_VERSION}.")
    except ValueError as error:
        raise BackupCorruptError(
            "The manifest of a backup cannot be read.",
            why=explained(error),
            fix="Use another backup, or the version of kb_assets that made this one.",
        ) from error
    return manifest, key is not None


def explained(error: ValueError) -> str:
    """Return in a sentence why something is not of the form that it must have."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}."
    return str(error)
