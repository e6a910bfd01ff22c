"""Backups in a folder and in a bucket: what is put is there whole, or it is told what is not."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest

from kb_assets.backup import pieces
from kb_assets.backup.manifest import Manifest, manifest_bytes
from kb_assets.backup.place import BackupPlace, DrillFacts
from kb_assets.backup.retention import plan_retention, prune
from kb_assets.backup.seal import seal
from kb_assets.errors import (
    BackupCorruptError,
    BackupUntrustedError,
    DiskError,
    NotFoundError,
    ObjectStoreUnavailableError,
    SettingsError,
)
from kb_assets.object_store import ObjectStore
from kb_assets.settings import BackupSettings
from tests.backup_drafts import KEY, draft, read_files, whole, write_files
from tests.servers.s3_servers import FolderObjects, MotoServer, Objects

FIRST = "20261126T030000Z-00000001"
SECOND = "20261127T030000Z-00000002"
THIRD = "20261128T030000Z-00000003"


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@dataclass(frozen=True)
class Destination:
    """A destination, and what is in it, seen from behind."""

    store: ObjectStore
    objects: Objects
    prefix: str = ""

    def place(self, key: bytes | None = KEY) -> BackupPlace:
        return BackupPlace(self.store, key)

    def keys(self) -> list[str]:
        keys = self.objects.keys()
        return [key.removeprefix(self.prefix) for key in keys]

    def read(self, key: str) -> bytes:
        return self.objects.read(self.prefix + key)

    def write(self, key: str, content: bytes) -> None:
        self.objects.write(self.prefix + key, content)

    def remove(self, key: str) -> None:
        self.objects.remove(self.prefix + key)


def in_folder(folder: Path) -> Destination:
    return Destination(ObjectStore(str(folder / "backups")), FolderObjects(folder / "backups"))


@pytest.fixture(params=["folder", "moto"])
def there(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Destination:
    if request.param == "folder":
        return in_folder(tmp_path)
    bucket = request.getfixturevalue("moto").new_bucket()
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return Destination(ObjectStore(bucket.uri(), bucket.options), bucket.objects, "kb/")


@pytest.fixture
def folder(tmp_path: Path) -> Destination:
    return in_folder(tmp_path)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1_000)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Manifest]:
    def put(place: BackupPlace, backup_id: str) -> Manifest:
        work = tmp_path / f"work-{backup_id}"
        write_files(work, seed=int(backup_id[-8:], 16))
        return place.put(draft(backup_id), work)

    return put


def facts(backup_id: str, minute: int, *, passed: bool) -> DrillFacts:
    began = datetime(2026, 11, 28, 4, minute, tzinfo=UTC)
    return DrillFacts(
        id=backup_id,
        started_at=began.isoformat(),
        finished_at=(began + timedelta(minutes=1)).isoformat(),
        passed=passed,
        target="scratch",
        seconds={"fetch": 1, "total": 2},
        failures=() if passed else ("kb.chunk has 3 rows, not 4.",),
        notes=("a note",),
    )


def test_what_was_put_is_whole_and_is_fetched(
    there: Destination, put: Callable[..., Manifest], tmp_path: Path
) -> None:
    place = there.place()
    manifest = put(place, FIRST)
    assert manifest.number == 1
    assert not manifest.is_encrypted
    entry = place.newest()
    assert (entry.id, entry.state, entry.is_signed, entry.why) == (FIRST, "whole", True, "")
    assert entry.manifest == manifest
    seen: list[tuple[int, int]] = []
    assert place.verify(manifest, lambda done, total: seen.append((done, total))) == ()
    assert seen[-1] == (manifest.stored_bytes, manifest.stored_bytes)
    assert seen == sorted(seen)
    place.fetch(manifest, tmp_path / "fetched")
    assert read_files(tmp_path / "fetched") == write_files(tmp_path / "again", seed=1)
    place.fetch(manifest, tmp_path / "one", names=["schema.sql"])
    assert list(read_files(tmp_path / "one")) == ["schema.sql"]
    with pytest.raises(BackupCorruptError, match="names no file b"):
        place.fetch(manifest, tmp_path / "none", names=["b"])


def test_files_lie_in_pieces_and_the_manifest_comes_last(
    folder: Destination, put: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    put_bytes, put_file = folder.store.put_bytes, folder.store.put_file

    def note(send: Callable[..., None]) -> Callable[..., None]:
        def noted(key: str, *args: Any, **named: Any) -> None:
            order.append(key)
            send(key, *args, **named)

        return noted

    monkeypatch.setattr(folder.store, "put_bytes", note(put_bytes))
    monkeypatch.setattr(folder.store, "put_file", note(put_file))
    put(folder.place(), FIRST)
    assert order[0] == f"{FIRST}/contents.json"
    assert order[-1] == f"{FIRST}/manifest.json"
    names = [f"tables/embedding_1.zst.00{number}" for number in range(3)]
    names += ["dump/toc.dat", "dump/3001.dat.gz", "dump/3002.dat.gz", "schema.sql"]
    keys = {f"{FIRST}/{name}" for name in (*names, "questions.json")}
    assert set(order[1:-1]) == keys
    assert set(json.loads(folder.read(order[0]).split(b"\n")[0])["keys"]) == keys
    sizes = [len(folder.read(f"{FIRST}/{name}")) for name in names[:3]]
    assert sizes == [1_000, 1_000, 500]


def test_the_newest_has_the_highest_number_whatever_the_clock_says(
    there: Destination, put: Callable[..., Manifest]
) -> None:
    place = there.place()
    for number, backup_id in enumerate((SECOND, THIRD, FIRST), 1):
        assert put(place, backup_id).number == number
    assert [entry.id for entry in place.entries()] == [FIRST, THIRD, SECOND]
    assert place.find("latest").id == FIRST
    assert place.find(SECOND).id == SECOND


def test_what_is_not_there_is_said_not_to_be(
    there: Destination, put: Callable[..., Manifest]
) -> None:
    place = there.place()
    assert place.entries() == ()
    for name in ("latest", FIRST):
        with pytest.raises(NotFoundError):
            place.find(name)
    put(place, SECOND)
    with pytest.raises(NotFoundError, match=f"The newest are: {SECOND}"):
        place.find(FIRST)


def test_what_is_of_others_is_no_backup(
    folder: Destination, put: Callable[..., Manifest], tmp_path: Path
) -> None:
    put(folder.place(), FIRST)
    for key in ("erasures/1.json", "a", "20269999T000000Z-00000000/manifest.json", "x/y/z"):
        folder.write(key, b"x")
    assert [entry.id for entry in folder.place().entries()] == [FIRST]


def flip(there: Destination, key: str) -> None:
    content = bytearray(there.read(key))
    content[len(content) // 2] ^= 1
    there.write(key, bytes(content))


Break = Callable[[Destination, Manifest], None]
MANIFEST = f"{SECOND}/manifest.json"


def forge(manifest: Manifest, key: bytes | None = None) -> bytes:
    """Return the manifest of somebody who may write there, and has another key or none."""
    return manifest_bytes(replace(manifest, tables=()), key)


BROKEN: dict[str, tuple[Break, str, str]] = {
    "no manifest": (lambda there, _: there.remove(MANIFEST), "unfinished", "no manifest"),
    "a bit": (lambda there, _: flip(there, MANIFEST), "damaged", "damaged"),
    "an empty one": (lambda there, _: there.write(MANIFEST, b""), "damaged", "damaged"),
    "that of another": (
        lambda there, _: there.write(MANIFEST, there.read(f"{FIRST}/manifest.json")),
        "damaged",
        f"It is that of backup {FIRST}",
    ),
    "unsigned": (lambda there, made: there.write(MANIFEST, forge(made)), "forged", "not signed"),
    "other key": (
        lambda there, made: there.write(MANIFEST, forge(made, b"another" * 4)),
        "forged",
        "another key",
    ),
    "a missing piece": (
        lambda there, _: there.remove(f"{SECOND}/tables/embedding_1.zst.001"),
        "damaged",
        "embedding_1.zst.001 is missing",
    ),
    "only pieces": (
        lambda there, _: [there.remove(f"{SECOND}/{n}.json") for n in ("manifest", "contents")],
        "damaged",
        "Nothing says what it is",
    ),
    "a tombstone": (
        lambda there, _: there.write(f"{SECOND}/deleted.json", b"{}"),
        "deleting",
        "deletion was begun",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_one_that_is_broken_is_told_and_hides_no_other(
    there: Destination, put: Callable[..., Manifest], name: str
) -> None:
    place = there.place()
    put(place, FIRST)
    damage, state, why = BROKEN[name]
    damage(there, put(place, SECOND))
    put(place, THIRD)
    first, found, third = (place.find(one) for one in (FIRST, SECOND, THIRD))
    assert (first.state, third.state) == ("whole", "whole")
    assert found.state == state
    assert why in found.why
    numbers = (first.number, found.number, third.number)
    assert numbers == ((1, 0, 2) if name == "only pieces" else (1, 2, 3))
    there.remove(f"{THIRD}/manifest.json")
    hidden = state in ("unfinished", "deleting") or name == "only pieces"
    assert place.newest().id == (FIRST if hidden else SECOND)


def test_a_contents_file_that_names_objects_of_others_is_not_believed(
    folder: Destination, put: Callable[..., Manifest]
) -> None:
    place = folder.place()
    put(place, FIRST)
    for keys in ([f"{FIRST}/schema.sql"], [f"{SECOND}/../{FIRST}/schema.sql"], [3], 3):
        folder.write(f"{SECOND}/contents.json", seal({"number": 2, "keys": keys}, None))
        assert place.find(SECOND).state == "damaged"
        place.delete(SECOND)
        assert place.find(FIRST).state == "whole"
        assert [entry.id for entry in place.entries()] == [FIRST]


HOSTILE: list[dict[str, Any]] = [
    {"name": "../escaped"},
    {"name": "/escaped"},
    {"name": "a/../../escaped"},
    {"name": "a//b"},
    {"name": "a\\b"},
    {"name": ""},
    {"name": "manifest.json"},
    {"name": 3},
    {"key": f"{FIRST}/schema.sql"},
    {"key": "erasures/1.json"},
    {"object_bytes": -1},
    {"object_bytes": "1"},
]


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_an_unsigned_manifest_reaches_nothing_outside_its_backup(
    folder: Destination, put: Callable[..., Manifest], change: dict[str, Any], tmp_path: Path
) -> None:
    place = folder.place(None)
    put(place, FIRST)
    made = put(place, SECOND)
    file = made.files[0]
    piece = replace(file.pieces[0], **{key: one for key, one in change.items() if key != "name"})
    if "name" in change:
        piece = replace(piece, key=f"{SECOND}/{change['name']}")
        file = replace(file, name=change["name"])
    forged = replace(made, files=(replace(file, pieces=(piece,)),))
    folder.write(MANIFEST, manifest_bytes(forged, None))
    found = place.find(SECOND)
    assert (found.state, found.manifest) == ("damaged", None)
    folder.remove(f"{SECOND}/contents.json")
    place.delete(SECOND)
    assert place.verify(place.find(FIRST).manifest or made) == ()


@pytest.mark.parametrize(
    "change",
    [
        *({"number": "2"}, {"number": True}, {"number": 2.5}, {"started_at": "yesterday"}),
        *(
            {"snapshot_at": "2026-11-28T03:00:00"},
            {"snapshot_at": "0001-01-01T00:00:00+14:00"},
            {"extensions": []},
            {"server": None},
        ),
        *({"sequences": ()}, {"tables": [{}]}, {"files": {}}, {"version": 2}, {"more": 1}),
    ],
    ids=str,
)
def test_a_manifest_of_another_form_is_damaged(
    folder: Destination, put: Callable[..., Manifest], change: dict[str, Any]
) -> None:
    put(folder.place(None), SECOND)
    body = json.loads(folder.read(MANIFEST).split(b"\n")[0])
    folder.write(MANIFEST, seal(body | change, None))
    state = "whole" if change == {"sequences": ()} else "damaged"
    assert folder.place(None).find(SECOND).state == state


def test_without_a_key_what_was_forged_is_unsigned(
    folder: Destination, put: Callable[..., Manifest]
) -> None:
    made = put(folder.place(), SECOND)
    folder.write(MANIFEST, forge(made))
    found = folder.place(None).find(SECOND)
    assert (found.state, found.is_signed) == ("whole", False)
    found = folder.place().find(SECOND)
    assert (found.state, found.is_signed, found.manifest) == ("forged", False, None)


def test_verify_names_every_file_that_is_wrong(
    there: Destination, put: Callable[..., Manifest], tmp_path: Path
) -> None:
    place = there.place()
    manifest = put(place, FIRST)
    flip(there, f"{FIRST}/schema.sql")
    there.remove(f"{FIRST}/dump/toc.dat")
    there.write(f"{FIRST}/questions.json", b"x")
    there.write(f"{FIRST}/tables/embedding_1.zst.000", bytes(999))
    there.write(f"{FIRST}/dump/stranger", b"x")
    problems = place.verify(manifest)
    words = {
        "schema.sql": "holds other bytes",
        "dump/toc.dat": "is missing",
        "questions.json": "has more than 0 bytes",
        "tables/embedding_1.zst": "has 999 bytes, not 1,000",
        "dump/stranger": "is not of the backup",
    }
    assert len(problems) == len(words)
    for name, said in words.items():
        assert any(one.startswith(f"{name}: ") and said in one for one in problems)
    with pytest.raises(BackupCorruptError, match=r"schema\.sql: .* holds other bytes"):
        place.fetch(manifest, tmp_path / "fetched")
    place.fetch(manifest, tmp_path / "fetched", names=["dump/3001.dat.gz"])


def test_with_an_identity_all_files_are_encrypted(
    there: Destination,
    put: Callable[..., Manifest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KB_BACKUP_IDENTITY", str(pyrage.x25519.Identity.generate()))
    place = there.place()
    manifest = put(place, FIRST)
    assert manifest.is_encrypted
    assert place.newest().manifest == manifest
    heads = [there.read(file.pieces[0].key)[:21] for file in manifest.files]
    assert heads == [b"age-encryption.org/v1"] * 6
    place.fetch(manifest, tmp_path / "fetched")
    assert read_files(tmp_path / "fetched") == write_files(tmp_path / "again", seed=1)
    monkeypatch.setenv("KB_BACKUP_IDENTITY", str(pyrage.x25519.Identity.generate()))
    with pytest.raises(BackupUntrustedError, match="KB_BACKUP_IDENTITY"):
        place.fetch(manifest, tmp_path / "other")
    monkeypatch.delenv("KB_BACKUP_IDENTITY")
    assert place.verify(manifest) == ()
    with pytest.raises(SettingsError, match="is encrypted"):
        place.fetch(manifest, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_drills_are_told_newest_first(there: Destination, put: Callable[..., Manifest]) -> None:
    place = there.place()
    put(place, FIRST)
    assert not place.newest().is_good
    older, newer = facts(FIRST, 1, passed=False), facts(FIRST, 2, passed=True)
    for one in (newer, older):
        place.note_drill(one)
    assert place.newest().drills == (newer, older)
    assert place.newest().is_good
    place.note_drill(facts(FIRST, 3, passed=False))
    assert not place.newest().is_good
    assert place.newest().state == "whole"


def test_a_report_that_cannot_be_believed_is_none_that_passed(
    there: Destination, put: Callable[..., Manifest]
) -> None:
    place = there.place()
    put(place, FIRST)
    put(place, SECOND)
    place.note_drill(facts(FIRST, 1, passed=True))
    (report,) = there.store.list(f"{FIRST}/drills/")
    good = there.read(report)
    name = "drills/20261129T000000Z-00000000.json"
    unsigned = good.split(b"\n")[0]
    for content, words in {
        good[:-5]: "is damaged",
        b"": "is damaged",
        seal(json.loads(unsigned), None): "is not signed",
        seal({}, KEY): "id: ",
        good: "is called drills/20261129",
    }.items():
        there.write(f"{FIRST}/{name}", content)
        entry = place.find(FIRST)
        assert not entry.is_good
        assert words in entry.drills[0].failures[0]
        assert entry.drills[1].passed
    there.write(f"{SECOND}/{name}", good)
    assert not place.find(SECOND).is_good
    assert FIRST in place.find(SECOND).drills[0].failures[0]


class StoppedError(Exception):
    """The process was ended here."""


def stop_after(
    monkeypatch: pytest.MonkeyPatch, store: ObjectStore, names: tuple[str, ...], steps: int
) -> None:
    """End whoever uses a store after so many calls that change it."""
    left = iter(range(steps))

    def stopping(call: Callable[..., None]) -> Callable[..., None]:
        def stopped(*args: Any, **named: Any) -> None:
            if next(left, None) is None:
                raise StoppedError
            call(*args, **named)

        return stopped

    for name in names:
        monkeypatch.setattr(store, name, stopping(getattr(store, name)))


LATER = datetime(2026, 12, 5, tzinfo=UTC)


@pytest.mark.parametrize("steps", range(10))
def test_one_that_is_stopped_is_not_there_and_is_deleted_days_later(
    folder: Destination,
    put: Callable[..., Manifest],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    place = folder.place()
    put(place, FIRST)
    before = folder.keys()
    with monkeypatch.context() as patch:
        stop_after(patch, folder.store, ("put_bytes", "put_file"), steps)
        with pytest.raises(StoppedError):
            put(place, SECOND)
    assert place.newest().id == FIRST
    if steps:
        assert place.find(SECOND).state == "unfinished"
    assert len(folder.keys()) == len(before) + steps
    soon = plan_retention(place.entries(), BackupSettings(), datetime(2026, 11, 28, tzinfo=UTC))
    assert not soon.delete
    prune(place, BackupSettings(), LATER)
    assert folder.keys() == before


@pytest.mark.parametrize("steps", range(14))
def test_a_deletion_that_is_stopped_is_ended_the_next_time(
    folder: Destination,
    put: Callable[..., Manifest],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    place = folder.place()
    put(place, FIRST)
    before = folder.keys()
    put(place, SECOND)
    place.note_drill(facts(SECOND, 1, passed=True))
    with monkeypatch.context() as patch:
        remaining = iter(range(steps))
        delete = folder.store.delete

        def stopping(keys: list[str]) -> None:
            for key in keys:
                if next(remaining, None) is None:
                    raise StoppedError
                delete([key])

        patch.setattr(folder.store, "delete", stopping)
        try:
            place.delete(SECOND)
        except StoppedError:
            (found,) = (entry for entry in place.entries() if entry.id == SECOND)
            assert found.state == "deleting"
    assert place.newest().id == FIRST
    prune(place, BackupSettings(), LATER)
    assert folder.keys() == before
    assert [one.name for one in (folder.objects.folder).iterdir()] == [FIRST]  # type: ignore[attr-defined]


def test_a_report_that_comes_after_its_backup_is_deleted_next(folder: Destination) -> None:
    place = folder.place()
    place.note_drill(facts(FIRST, 1, passed=True))
    assert place.entries()[0].state == "deleting"
    prune(place, BackupSettings(), LATER)
    assert folder.keys() == []


def test_only_what_is_its_own_is_deleted(there: Destination, put: Callable[..., Manifest]) -> None:
    place = there.place()
    put(place, FIRST)
    before = there.keys()
    put(place, SECOND)
    place.note_drill(facts(SECOND, 1, passed=True))
    strange = [f"{SECOND}/notes.txt", "erasures/1.json", f"{SECOND}x/schema.sql"]
    for key in strange:
        there.write(key, b"x")
    place.delete(SECOND)
    assert there.keys() == sorted([*before, *strange])


def test_nothing_more_is_put_after_one_failed(
    folder: Destination, put: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fail(key: str, *args: Any, **named: Any) -> None:
        """Take long over the first, and fail at the second meanwhile."""
        calls.append(key)
        if key != calls[0]:
            raise ObjectStoreUnavailableError("It is away.")
        time.sleep(0.3)

    monkeypatch.setattr(folder.store, "put_file", fail)
    with pytest.raises(ObjectStoreUnavailableError):
        put(folder.place(), FIRST)
    assert len(calls) == 2
    assert folder.place().entries()[0].state == "unfinished"


def test_a_folder_that_cannot_be_written_says_so(
    folder: Destination, put: Callable[..., Manifest], tmp_path: Path
) -> None:
    manifest = put(folder.place(), FIRST)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskError, match="room"):
        folder.place().fetch(manifest, tmp_path / "file")


def test_a_store_that_is_away_is_no_empty_one(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = moto.new_bucket()
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    away = bucket.options | {"endpoint": "http://127.0.0.1:9"}
    store = ObjectStore(bucket.uri(), away)
    with pytest.raises(ObjectStoreUnavailableError):
        BackupPlace(store, KEY).entries()
    with pytest.raises(ObjectStoreUnavailableError):
        BackupPlace(store, KEY).verify(whole(FIRST, 1))
