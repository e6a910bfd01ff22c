"""Who made it, and who may read it: a signature and encryption, with keys of the environment."""

import hmac
import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from kb_assets.errors import BackupCorruptError, BackupUntrustedError, DiskError, SettingsError

KEY_VARIABLE = "KB_BACKUP_KEY"
"""The variable with the key that signs; anything long that nobody else knows."""

IDENTITY_VARIABLE = "KB_BACKUP_IDENTITY"
"""The variable with age's secret key, `AGE-SECRET-KEY-1…`."""

_LEAST_KEY_CHARACTERS = 16


def signing_key() -> bytes | None:
    """Return what backups are signed with; None if they are not.

    Raises:
        SettingsError: It is too short to be a secret.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    if key and len(key) < _LEAST_KEY_CHARACTERS:
        raise SettingsError(
            f"{KEY_VARIABLE} is too short.",
            why=f"It has {len(key)} characters; whoever guesses it can forge backups.",
            fix=f"Set one of at least {_LEAST_KEY_CHARACTERS}, such as `openssl rand -hex 32` "
            "prints.",
        )
    return key.encode() or None


def seal(value: object, key: bytes | None) -> bytes:
    """Return a value as two lines: itself in canonical JSON, and its hash and signature.

    Args:
        value: What JSON can hold.
        key: Signs it; None leaves it unsigned.
    """
    body = _canonical(value)
    marks = {
        "sha256": sha256(body).hexdigest(),
        "hmac_sha256": hmac.new(key, body, sha256).hexdigest() if key else None,
    }
    return body + b"\n" + _canonical(marks) + b"\n"


def unseal(content: bytes, key: bytes | None, what: str) -> bytes:
    """Return the JSON of the value that `seal` was given.

    Args:
        content: What was read.
        key: What it must be signed with; None takes any.
        what: What it is called in errors.

    Raises:
        BackupCorruptError: It is damaged.
        BackupUntrustedError: It is not signed with the key.
    """
    try:
        body, marks_line, end = content.split(b"\n")
        marks = json.loads(marks_line)
        signature = marks["hmac_sha256"]
        is_whole = end == b"" and marks["sha256"] == sha256(body).hexdigest()
        if not is_whole or marks_line != _canonical(marks) or len(marks) != 2:
            raise ValueError("Its own hash is another.")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackupCorruptError(
            f"{what} is damaged.",
            why=_sentence(error),
            fix="Use another backup; look for what changed this one.",
        ) from error
    if key is not None:
        _require_signed(body, signature, key, what)
    return body


def _require_signed(body: bytes, signature: object, key: bytes, what: str) -> None:
    expected = hmac.new(key, body, sha256).hexdigest()
    if not isinstance(signature, str) or not signature.isascii():
        raise BackupUntrustedError(
            f"{what} is not signed.",
            why=f"{KEY_VARIABLE} is set, so every backup must be signed with it.",
            fix=f"Find out who made it. If it is yours, unset {KEY_VARIABLE}, and say "
            "`--unsigned`.",
        )
    if not hmac.compare_digest(signature, expected):
        raise BackupUntrustedError(
            f"{what} is signed with another key.",
            why=f"It was forged, or {KEY_VARIABLE} is not the one that it was made with.",
            fix=f"Set {KEY_VARIABLE} to the key of that time; otherwise use another backup.",
        )


class Cipher:
    """Encrypts for the holder of an identity, as age does; memory does not grow with the files."""

    def __init__(self, identity: str) -> None:
        """Take an identity.

        Raises:
            SettingsError: It is none.
        """
        import pyrage

        try:
            self._identity = pyrage.x25519.Identity.from_str(identity)
        except pyrage.IdentityError as error:
            raise SettingsError(
                f"{IDENTITY_VARIABLE} is no identity of age.",
                why=str(error),
                fix="Set it to the line AGE-SECRET-KEY-1… that `age-keygen` prints.",
            ) from error

    def encrypt(self, file: Path) -> None:
        """Put the encrypted file in the place of the file.

        Raises:
            DiskError: There is no room for both.
        """
        import pyrage

        def convert(source: BinaryIO, target: BinaryIO) -> None:
            pyrage.encrypt_io(source, target, [self._identity.to_public()])

        try:
            _replace(file, convert)
        except (OSError, pyrage.EncryptError) as error:
            raise _no_room(file, error) from error

    def decrypt(self, file: Path) -> None:
        """Put the file in the place of the encrypted file.

        Raises:
            BackupUntrustedError: It was encrypted for somebody else.
            BackupCorruptError: It is damaged.
            DiskError: There is no room for both.
        """
        import pyrage

        def convert(source: BinaryIO, target: BinaryIO) -> None:
            pyrage.decrypt_io(source, target, [self._identity])

        try:
            _replace(file, convert)
        except pyrage.DecryptError as error:
            raise BackupUntrustedError(
                f"{file.name} cannot be decrypted.",
                why=f"{IDENTITY_VARIABLE} is not the one that it was encrypted for: {error}.",
                fix=f"Set {IDENTITY_VARIABLE} to the identity of the time of the backup.",
            ) from error
        except OSError as error:
            if error.errno is None:
                raise BackupCorruptError(
                    f"{file.name} is not what was encrypted.",
                    why=str(error),
                    fix="Use another backup; look for what changed this one.",
                ) from error
            raise _no_room(file, error) from error


def cipher() -> Cipher | None:
    """Return what backups are encrypted with; None if they are not.

    Raises:
        SettingsError: The identity is none.
    """
    identity = os.environ.get(IDENTITY_VARIABLE, "").strip()
    return Cipher(identity) if identity else None


def _replace(file: Path, convert: Callable[[BinaryIO, BinaryIO], None]) -> None:
    part = file.with_name(f"{file.name}.part")
    try:
        with file.open("rb") as source, part.open("wb") as target:
            convert(source, target)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _no_room(file: Path, error: Exception) -> DiskError:
    return DiskError(
        f"{file.name} cannot be written to {file.parent}.",
        why=str(error),
        fix="Make room on that disk: each file is there twice while it is encrypted or decrypted.",
    )


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode()
