"""What is sealed is read as it was; what is changed, forged or encrypted for others is not."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyrage
import pytest

from kb_assets.backup.manifest import manifest_bytes, parse_manifest
from kb_assets.backup.seal import Cipher, cipher, seal, signing_key, unseal
from kb_assets.errors import BackupCorruptError, BackupUntrustedError, DiskError, SettingsError
from tests.backup_drafts import KEY, whole

ID = "20261128T030000Z-1a2b3c4d"


def identity() -> str:
    return str(pyrage.x25519.Identity.generate())


def test_a_manifest_is_read_as_it_was_written() -> None:
    manifest = whole(ID, 7)
    assert parse_manifest(manifest_bytes(manifest, KEY), KEY) == (manifest, True)
    assert parse_manifest(manifest_bytes(manifest, KEY), None) == (manifest, False)
    assert parse_manifest(manifest_bytes(manifest, None), None) == (manifest, False)


@pytest.mark.parametrize(
    ("key", "words"), [(None, "is not signed"), (b"another" * 4, "signed with another key")]
)
def test_who_has_no_key_cannot_sign(key: bytes | None, words: str) -> None:
    with pytest.raises(BackupUntrustedError, match=words):
        parse_manifest(manifest_bytes(whole(ID, 7), key), KEY)


@pytest.mark.parametrize("key", [KEY, None])
def test_every_flipped_bit_and_every_cut_is_seen(key: bytes | None) -> None:
    content = seal({"a": 1, "b": "é"}, key)
    assert json.loads(unseal(content, key, "It")) == {"a": 1, "b": "é"}
    for at in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            if key is None and b'"hmac_sha256":null' not in changed:
                continue
            with pytest.raises((BackupCorruptError, BackupUntrustedError)):
                unseal(bytes(changed), key, "It")
        with pytest.raises(BackupCorruptError, match="It is damaged"):
            unseal(content[:at], key, "It")
    for other in (content + b"\n", content + b" ", content * 2, content[:-1] + b" \n"):
        with pytest.raises(BackupCorruptError):
            unseal(other, key, "It")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n\n", b"null\nnull\n", b"[]\n[]\n", b"{}\n{}\n", b"\xff\n\xfe\n"),
        b"[" * 100_000 + b"\n{}\n",
        b'{}\n{"hmac_sha256":3,"sha256":4}\n',
    ],
)
def test_what_was_never_sealed_is_damaged(content: bytes) -> None:
    with pytest.raises(BackupCorruptError):
        unseal(content, KEY, "It")


@pytest.mark.parametrize("signature", ["é", 3, None, {}])
def test_a_signature_that_is_none_is_none(signature: Any) -> None:
    body, _, _ = seal({}, None).split(b"\n")
    marks = {"hmac_sha256": signature, "sha256": sha256(body).hexdigest()}
    line, _, _ = seal(marks, None).split(b"\n")
    with pytest.raises(BackupUntrustedError):
        unseal(body + b"\n" + line + b"\n", KEY, "It")


def test_a_key_that_can_be_guessed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signing_key() is None
    monkeypatch.setenv("KB_BACKUP_KEY", "")
    assert signing_key() is None
    monkeypatch.setenv("KB_BACKUP_KEY", "canary890123456")
    with pytest.raises(SettingsError, match="15 characters") as caught:
        signing_key()
    assert "canary" not in str(caught.value)
    monkeypatch.setenv("KB_BACKUP_KEY", "canary8901234567")
    assert signing_key() == b"canary8901234567"


def test_what_is_no_identity_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cipher() is None
    monkeypatch.setenv("KB_BACKUP_IDENTITY", "AGE-SECRET-KEY-1CANARY")
    with pytest.raises(SettingsError, match="age-keygen") as caught:
        cipher()
    assert "CANARY" not in str(caught.value)
    monkeypatch.setenv("KB_BACKUP_IDENTITY", f" {identity()}\n")
    assert cipher() is not None


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 300_000])
def test_what_is_encrypted_is_decrypted(tmp_path: Path, size: int) -> None:
    file, content = tmp_path / "a", os.urandom(size)
    file.write_bytes(content)
    secret = Cipher(identity())
    secret.encrypt(file)
    assert size < 32 or content[:32] not in file.read_bytes()
    assert file.read_bytes() != content
    secret.decrypt(file)
    assert file.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_it_is_what_age_makes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    one = pyrage.x25519.Identity.generate()
    Cipher(str(one)).encrypt(tmp_path / "a")
    encrypted = (tmp_path / "a").read_bytes()
    assert encrypted.startswith(b"age-encryption.org/v1\n-> X25519 ")
    assert pyrage.decrypt(encrypted, [one]) == b"content"


def test_others_cannot_decrypt_it(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"content")
    Cipher(identity()).encrypt(file)
    encrypted = file.read_bytes()
    with pytest.raises(BackupUntrustedError, match="a cannot be decrypted"):
        Cipher(identity()).decrypt(file)
    assert file.read_bytes() == encrypted
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_what_was_changed_is_not_decrypted(tmp_path: Path) -> None:
    file, secret = tmp_path / "a", Cipher(identity())
    file.write_bytes(bytes(200_000))
    secret.encrypt(file)
    content = file.read_bytes()
    for changed in (content[:-1], content[:-100_000], content[:-1] + b"x", content + b"x"):
        file.write_bytes(changed)
        with pytest.raises(BackupCorruptError, match="a is not what was encrypted"):
            secret.decrypt(file)


FULL = """
import resource, sys
from pathlib import Path
from kb_assets.backup.seal import Cipher

resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, -1))
getattr(Cipher(sys.argv[1]), sys.argv[2])(Path(sys.argv[3]))
"""


@pytest.mark.parametrize("what", ["encrypt", "decrypt"])
def test_a_disk_that_is_full_says_so(tmp_path: Path, what: str) -> None:
    file, secret = tmp_path / "a", identity()
    file.write_bytes(bytes(300_000))
    if what == "decrypt":
        Cipher(secret).encrypt(file)
    before = file.read_bytes()
    command = [sys.executable, "-c", FULL, secret, what, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert DiskError.__name__ in ended.stderr
    assert "Make room" in ended.stderr
    assert file.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a"]
