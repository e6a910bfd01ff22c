"""Ten thousand backups that are not what was put: none is restored, none is called whole."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kb_assets.backup import pieces
from kb_assets.backup.manifest import Manifest, manifest_bytes, parse_manifest
from kb_assets.backup.place import BackupPlace
from kb_assets.backup.seal import seal
from kb_assets.errors import BackupCorruptError, BackupUntrustedError
from kb_assets.object_store import ObjectStore
from tests.backup_drafts import KEY, draft, write_files

OLD = "20261127T030000Z-00000001"
NEW = "20261128T030000Z-00000002"
MANIFEST = f"{NEW}/manifest.json"
CORRUPTIONS = 10_000
PARTS = 4

Objects = dict[str, bytes]
"""What a destination holds."""


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """What a destination with two backups holds, and a corruption may make other."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1_000)
    store = ObjectStore(str(tmp_path / "backups"))
    for number, backup_id in enumerate((OLD, NEW)):
        write_files(tmp_path / backup_id, seed=number)
        BackupPlace(store, KEY).put(draft(backup_id), tmp_path / backup_id)
    return {key: store.read(key) for key in store.list()}


def of_new(objects: Objects, chance: random.Random, *, least: int = 0) -> str:
    """Return the key of a piece or of the manifest of the newest backup."""
    keys = [key for key in objects if key.startswith(NEW) and "contents" not in key]
    return chance.choice(sorted(key for key in keys if len(objects[key]) >= least))


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def flip(objects: Objects, chance: random.Random) -> None:
    key = of_new(objects, chance, least=1)
    objects[key] = flipped(objects[key], chance)


def truncate(objects: Objects, chance: random.Random) -> None:
    key = of_new(objects, chance, least=1)
    objects[key] = objects[key][: chance.randrange(len(objects[key]))]


def extend(objects: Objects, chance: random.Random) -> None:
    key = of_new(objects, chance)
    objects[key] += chance.randbytes(chance.randrange(1, 2_000))


def overwrite(objects: Objects, chance: random.Random) -> None:
    """Write a block of zeros or of chance over it, as a disk does."""
    key = of_new(objects, chance, least=8)
    content = objects[key]
    size = chance.randrange(8, len(content) + 1)
    start = chance.randrange(len(content) - size + 1)
    block = chance.choice((bytes(size), chance.randbytes(size)))
    objects[key] = content[:start] + block + content[start + size :]


def cut_out(objects: Objects, chance: random.Random) -> None:
    key = of_new(objects, chance, least=2)
    content = objects[key]
    start = chance.randrange(len(content) - 1)
    objects[key] = content[:start] + content[chance.randrange(start + 1, len(content)) :]


def remove(objects: Objects, chance: random.Random) -> None:
    del objects[of_new(objects, chance)]


def swap(objects: Objects, chance: random.Random) -> None:
    one, other = of_new(objects, chance), of_new(objects, chance)
    objects[one], objects[other] = objects[other], objects[one]


def take_that_of_another_backup(objects: Objects, chance: random.Random) -> None:
    key = of_new(objects, chance)
    objects[key] = objects[key.replace(NEW, OLD)]


def put_an_old_manifest_in_the_place_of_the_new(objects: Objects, chance: random.Random) -> None:
    """Have it say so, or say that it is the new one; whoever does it has not our key."""
    content = objects[f"{OLD}/manifest.json"]
    if chance.random() < 0.5:
        content = content.replace(OLD.encode(), NEW.encode())
    objects[MANIFEST] = content


def forge(objects: Objects, chance: random.Random) -> None:
    """Change a file and what the manifest says of it, and sign as well as one can."""
    key = of_new(objects, chance, least=1)
    while key == MANIFEST:
        key = of_new(objects, chance, least=1)
    changed = objects[key] = flipped(objects[key], chance)
    manifest, _ = parse_manifest(objects[MANIFEST], KEY)
    files = tuple(
        replace(
            file,
            pieces=tuple(
                replace(piece, sha256=pieces.sha256(changed).hexdigest())
                if piece.key == key
                else piece
                for piece in file.pieces
            ),
        )
        for file in manifest.files
    )
    objects[MANIFEST] = signed(replace(manifest, files=files), objects[MANIFEST], chance)


def lie(objects: Objects, chance: random.Random) -> None:
    """Change what else a manifest says, and sign as well as one can."""
    manifest, _ = parse_manifest(objects[MANIFEST], KEY)
    lies = (
        {"tables": ()}, {"files": manifest.files[1:]}, {"files": ()}, {"roles": ()},
        {"number": chance.randrange(3, 10**9)}, {"database_bytes": 0}, {"is_encrypted": True},
        {"snapshot_at": "2036-01-01T00:00:00+00:00"}, {"revision": chance.randbytes(4).hex()},
        {},
    )  # fmt: skip
    told: Manifest = replace(manifest, **chance.choice(lies))  # type: ignore[arg-type]
    objects[MANIFEST] = signed(told, objects[MANIFEST], chance)


def signed(manifest: Manifest, original: bytes, chance: random.Random) -> bytes:
    """Return a manifest with a right hash; unsigned, with another key, or the old signature."""
    unsigned = manifest_bytes(manifest, None)
    body, marks_line, _ = unsigned.split(b"\n")
    marks = json.loads(marks_line)
    signature = json.loads(original.split(b"\n")[1])["hmac_sha256"]
    kept = seal(marks | {"hmac_sha256": signature}, None).split(b"\n")[0]
    others = manifest_bytes(manifest, chance.randbytes(32))
    return chance.choice((unsigned, others, body + b"\n" + kept + b"\n"))


KINDS: tuple[Callable[[Objects, random.Random], None], ...] = (
    flip, flip, flip, truncate, extend, overwrite, cut_out, remove, swap,
    take_that_of_another_backup, put_an_old_manifest_in_the_place_of_the_new, forge, lie,
)  # fmt: skip


def change(folder: Path, before: Objects, after: Objects) -> None:
    """Make a folder that holds some objects hold others."""
    for key in before.keys() | after.keys():
        if key not in after:
            (folder / key).unlink()
        elif before.get(key) != after[key]:
            (folder / key).write_bytes(after[key])


def refused_as(place: BackupPlace, target: Path) -> str:
    """Return how the newest backup is refused; nothing if it is taken for whole."""
    entry = place.newest()
    if entry.id == OLD:
        return "not there"
    if entry.state != "whole" or entry.manifest is None:
        return entry.state
    problems = place.verify(entry.manifest)
    try:
        place.fetch(entry.manifest, target)
    except (BackupCorruptError, BackupUntrustedError) as error:
        assert problems, "only fetching saw it"
        name = problems[0].partition(":")[0]
        assert name in {file.name for file in entry.manifest.files}
        assert name in str(error)
        return "read"
    assert not problems, f"fetching took {problems}"
    return ""


@pytest.mark.parametrize("part", range(PARTS))
def test_ten_thousand_corruptions_are_refused(tmp_path: Path, objects: Objects, part: int) -> None:
    folder = tmp_path / "backups"
    place = BackupPlace(ObjectStore(str(folder)), KEY)
    assert refused_as(place, tmp_path / "whole") == ""
    seen = Counter[tuple[str, str]]()
    for seed in range(part, CORRUPTIONS, PARTS):
        chance = random.Random(seed)
        kind, corrupt = chance.choice(KINDS), dict(objects)
        while corrupt == objects:
            kind(corrupt, chance)
        change(folder, objects, corrupt)
        try:
            how = refused_as(place, tmp_path / "fetched")
            assert how, f"{kind.__name__} with seed {seed} was taken for a whole backup"
        finally:
            change(folder, corrupt, objects)
        seen[kind.__name__, how] += 1
    assert refused_as(place, tmp_path / "again") == ""
    for kind in KINDS:
        assert sum(count for (name, _), count in seen.items() if name == kind.__name__) > 100
    assert {how for _, how in seen} == {"read", "damaged", "forged", "not there"}
    assert {how for name, how in seen if name in ("forge", "lie")} == {"forged"}
