"""Where backups lie: what is there, and how one is put, proven, fetched and deleted.

Below a backup's name lie `contents.json`, put first; the pieces of its files; `manifest.json`, put
last, without which there is no backup; reports of drills; and `deleted.json` while it is deleted.
"""

import secrets
from collections import defaultdict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from kb_assets.backup.entry import (
    CONTENTS,
    MANIFEST,
    TOMBSTONE,
    Beginning,
    DrillFacts,
    Entry,
    began_at,
    beginning_bytes,
    drill_bytes,
    drill_stamp,
    is_drill,
    read_beginning,
    read_drill,
    read_manifest,
    unreadable_drill,
)
from kb_assets.backup.manifest import Manifest, manifest_bytes
from kb_assets.backup.pieces import Watch, at_once, cut_files, put_pieces, read_pieces, unwatched
from kb_assets.backup.seal import IDENTITY_VARIABLE, cipher
from kb_assets.errors import (
    BackupCorruptError,
    BackupUntrustedError,
    NotFoundError,
    ObjectStoreError,
    SettingsError,
)
from kb_assets.object_store import ObjectStore

__all__ = ["BackupPlace", "DrillFacts", "Entry"]

_READERS = 8
_TOLD_AT_MOST = 5


class BackupPlace:
    """A destination of backups.

    Attributes:
        store: Where it is.
    """

    def __init__(self, store: ObjectStore, key: bytes | None) -> None:
        """Take a destination; nothing is asked of it yet.

        Args:
            store: Where it is.
            key: What backups are signed with, and must be; None takes any, as unsigned.
        """
        self.store = store
        self._key = key

    def entries(self) -> tuple[Entry, ...]:
        """Return every backup, newest first; that one cannot be read hides no other.

        Newest is what has the highest number: clocks have no say in it.

        Raises:
            ObjectStoreError: The store refuses us.
            ObjectStoreUnavailableError: The store cannot be reached.
        """
        names = defaultdict[str, set[str]](set)
        for key in self.store.list():
            backup_id, _, name = key.partition("/")
            names[backup_id].add(name)
        with ThreadPoolExecutor(_READERS, "backup-list") as pool:
            ours = [one for one in names if began_at(one)]
            found = list(pool.map(lambda one: self._entry(one, names[one]), ours))
        return tuple(sorted(found, key=lambda entry: (entry.number, entry.id), reverse=True))

    def newest(self) -> Entry:
        """Return the newest backup that was finished, whatever became of it; see `entries`.

        Raises:
            NotFoundError: There is none.
        """
        for entry in self.entries():
            if entry.state not in ("unfinished", "deleting"):
                return entry
        raise NotFoundError(f"There is no backup in {self.store.uri}.", fix="Run `kb backup run`.")

    def find(self, backup_id: str) -> Entry:
        """Return a backup; see `entries`.

        Args:
            backup_id: What it is called, or `latest`.

        Raises:
            NotFoundError: There is no such backup.
        """
        if backup_id == "latest":
            return self.newest()
        entries = self.entries()
        for entry in entries:
            if entry.id == backup_id:
                return entry
        known = ", ".join(entry.id for entry in entries[:_TOLD_AT_MOST]) or "none"
        raise NotFoundError(
            f"There is no backup {backup_id} in {self.store.uri}.",
            why=f"The newest are: {known}.",
            fix="`kb backup list` shows all of them.",
        )

    def put(self, draft: Manifest, folder: Path) -> Manifest:
        """Put the files of a folder as a backup; it is there once its manifest is.

        Args:
            draft: What it is, without number, files and end.
            folder: Its files; they are encrypted where they lie, if there is an identity.

        Returns:
            The whole manifest.

        Raises:
            SettingsError: The identity is none.
            DiskError: The folder cannot be read, or has no room to encrypt in.
            ObjectStoreError: The store refuses us, or something else is there.
            ObjectStoreUnavailableError: The store cannot be reached, or broke off.
        """
        secret = cipher()
        number = 1 + max((entry.number for entry in self.entries()), default=0)
        if secret is not None:
            for file in [one for one in folder.rglob("*") if one.is_file()]:
                secret.encrypt(file)
        cuts = cut_files(folder, draft.id)
        keys = tuple(cut.key for pieces in cuts.values() for cut in pieces)
        self.store.put_bytes(f"{draft.id}/{CONTENTS}", beginning_bytes(Beginning(number, keys)))
        manifest = replace(
            draft,
            number=number,
            files=put_pieces(self.store, cuts),
            is_encrypted=secret is not None,
            finished_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        self.store.put_bytes(f"{draft.id}/{MANIFEST}", manifest_bytes(manifest, self._key))
        return manifest

    def verify(self, manifest: Manifest, watch: Watch = unwatched) -> tuple[str, ...]:
        """Read every byte of a backup, and return what is wrong with it, file by file.

        Args:
            manifest: What it should be.
            watch: Told how many bytes were read, and of how many.

        Raises:
            ObjectStoreError: The store refuses us.
            ObjectStoreUnavailableError: The store cannot be reached, or broke off.
        """
        problems = read_pieces(self.store, manifest.files, None, watch)
        if self._beginning(manifest.id) is None:
            problems += (f"{CONTENTS}: {self._url(manifest.id, CONTENTS)} is missing or damaged.",)
        known = {piece.key for file in manifest.files for piece in file.pieces}
        known |= {f"{manifest.id}/{name}" for name in (MANIFEST, CONTENTS, TOMBSTONE)}
        strange = sorted(
            key
            for key in self.store.list(f"{manifest.id}/")
            if key not in known and not is_drill(key.partition("/")[2])
        )
        return problems + tuple(
            f"{key.partition('/')[2]}: {self.store.url(key)} is not of the backup."
            for key in strange
        )

    def fetch(
        self,
        manifest: Manifest,
        folder: Path,
        names: Collection[str] | None = None,
        watch: Watch = unwatched,
    ) -> None:
        """Write a backup's files to a folder; all of them are proven, and decrypted.

        Args:
            manifest: What it should be.
            folder: Where they go; after an error what is there is of no use.
            names: Which files; all by default.
            watch: Told how many bytes were read, and of how many.

        Raises:
            BackupCorruptError: A file is missing, or is not what was put.
            BackupUntrustedError: It is encrypted for another identity.
            SettingsError: It is encrypted, and there is no identity, or none that is one.
            DiskError: The folder cannot be written to.
            ObjectStoreError: The store refuses us.
            ObjectStoreUnavailableError: The store cannot be reached, or broke off.
        """
        secret = cipher() if manifest.is_encrypted else None
        if manifest.is_encrypted and secret is None:
            raise SettingsError(
                f"Backup {manifest.id} is encrypted.",
                why=f"{IDENTITY_VARIABLE} is not set.",
                fix=f"Set {IDENTITY_VARIABLE} to the identity of the time of the backup.",
            )
        files = manifest.files if names is None else tuple(manifest.file(name) for name in names)
        problems = read_pieces(self.store, files, folder, watch)
        if problems:
            more = len(problems) - _TOLD_AT_MOST
            told = (*problems[:_TOLD_AT_MOST], *([f"And {more} more."] if more > 0 else []))
            raise BackupCorruptError(
                f"Backup {manifest.id} is damaged.",
                why=" ".join(told),
                fix="Use another backup: `kb backup list`. Look for what changed this one.",
            )
        if secret is not None:
            for file in files:
                secret.decrypt(folder / file.name)

    def note_drill(self, facts: DrillFacts) -> None:
        """Put what a drill found beside the backup; see `put`."""
        key = f"{facts.id}/{drill_stamp(facts)}{secrets.token_hex(4)}.json"
        self.store.put_bytes(key, drill_bytes(facts, self._key))

    def delete(self, backup_id: str) -> None:
        """Delete a backup: what its manifest and its first object name, and what is ours beside.

        Ended at any point it is `deleting`, and can be deleted again.

        Raises:
            ObjectStoreError: The store refuses us.
            ObjectStoreUnavailableError: The store cannot be reached.
        """
        names = {key.partition("/")[2] for key in self.store.list(f"{backup_id}/")}
        entry, beginning = self._entry(backup_id, names), self._beginning(backup_id)
        keys = set(beginning.keys) if beginning else set[str]()
        if entry.manifest is not None:
            keys |= {piece.key for file in entry.manifest.files for piece in file.pieces}
        self.store.put_bytes(f"{backup_id}/{TOMBSTONE}", b"{}\n")
        drills = sorted(name for name in names if is_drill(name))
        last = [f"{backup_id}/{name}" for name in (*drills, CONTENTS, MANIFEST, TOMBSTONE)]
        list(at_once(lambda key: self.store.delete([key]), sorted(keys.difference(last))))
        self.store.delete(last)
        self.store.tidy(f"{backup_id}/")

    def _entry(self, backup_id: str, names: set[str]) -> Entry:
        """Return what is there of a backup, by the names of its objects."""
        drills = tuple(
            self._drill(backup_id, name) for name in sorted(names, reverse=True) if is_drill(name)
        )
        beginning = self._beginning(backup_id) if CONTENTS in names else None
        number = beginning.number if beginning else 0
        entry = Entry(backup_id, "damaged", None, False, drills, "Nothing says what it is.", number)
        if all(is_drill(name) for name in names - {TOMBSTONE}):
            return replace(entry, state="deleting", why="All but reports of drills is deleted.")
        if MANIFEST in names:
            entry = self._finished(entry, names)
        elif beginning is not None:
            why = "It has no manifest: it is being made, or whoever made it was stopped."
            entry = replace(entry, state="unfinished", why=why)
        if TOMBSTONE in names:
            return replace(entry, state="deleting", why="Its deletion was begun.")
        return entry

    def _finished(self, entry: Entry, names: set[str]) -> Entry:
        try:
            content = self.store.read(f"{entry.id}/{MANIFEST}")
            manifest, is_signed = read_manifest(content, entry.id, self._key)
        except BackupUntrustedError as error:
            return replace(entry, state="forged", why=f"{self._url(entry.id, MANIFEST)}: {error}")
        except BackupCorruptError as error:
            return replace(entry, why=f"{self._url(entry.id, MANIFEST)}: {error}")
        except (NotFoundError, ObjectStoreError) as error:
            return replace(entry, why=str(error))
        entry = replace(entry, manifest=manifest, is_signed=is_signed, number=manifest.number)
        keys = {f"{entry.id}/{name}" for name in names}
        for piece in (piece for file in manifest.files for piece in file.pieces):
            if piece.key not in keys:
                return replace(entry, why=f"{self.store.url(piece.key)} is missing.")
        return replace(entry, state="whole", why="")

    def _url(self, backup_id: str, name: str) -> str:
        return self.store.url(f"{backup_id}/{name}")

    def _beginning(self, backup_id: str) -> Beginning | None:
        try:
            return read_beginning(self.store.read(f"{backup_id}/{CONTENTS}"), backup_id)
        except (BackupCorruptError, NotFoundError, ObjectStoreError):
            return None

    def _drill(self, backup_id: str, name: str) -> DrillFacts:
        try:
            content = self.store.read(f"{backup_id}/{name}")
            return read_drill(content, backup_id, name, self._key)
        except (NotFoundError, ObjectStoreError) as error:
            return unreadable_drill(backup_id, error)
