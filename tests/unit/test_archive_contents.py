"""What took the place of what, told from the names and notes in a store."""

from datetime import date
from pathlib import Path

import pytest

from kb_assets.archive.contents import Contents, End
from kb_assets.archive.manifest import Replacement
from kb_assets.archive.plan import manifest_key, object_key
from kb_assets.archive.relation import MESSAGES
from kb_assets.errors import ArchiveCorruptError
from kb_assets.object_store import ObjectStore

MONTH = date(2025, 3, 1)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path))


def key(number: int) -> str:
    return object_key("message", MONTH, number, bytes([number % 256]) * 32)


def put(store: ObjectStore, *numbers: int) -> None:
    for number in numbers:
        store.put_bytes(key(number), b"")
        store.put_bytes(manifest_key(key(number)), b"{}")


def note(store: ObjectStore, number: int, *by: int, is_rewrite: bool = True) -> None:
    told = Replacement(key(number), tuple(map(key, by)), is_rewrite)
    store.put_bytes(told.key, told.content)


def end(store: ObjectStore, number: int) -> End | None:
    return Contents(store, MESSAGES).end(key(number))


def test_a_thousand_erasures_are_followed(store: ObjectStore) -> None:
    last = 1_200
    put(store, last)
    for number in range(1, last):
        note(store, number, number + 1)
    assert end(store, 1) == End((key(last),), is_rewrite=True)
    assert Contents(store, MESSAGES).highest == last


def test_of_attempts_the_last_that_is_whole_counts(store: ObjectStore) -> None:
    put(store, 1, 2, 4)
    note(store, 1, 2)
    note(store, 1, 3)
    assert end(store, 1) == End((key(2),), is_rewrite=True)
    note(store, 1, 4, is_rewrite=False)
    assert end(store, 1) == End((key(4),), is_rewrite=False)
    note(store, 1, 4, 5, is_rewrite=False)
    assert end(store, 1) == End((key(4),), is_rewrite=False), "5 is nowhere"
    note(store, 5)
    assert end(store, 1) == End((key(4),), is_rewrite=False)
    note(store, 1)
    assert end(store, 1) == End((), is_rewrite=True)


def test_what_is_nowhere_is_nowhere(store: ObjectStore) -> None:
    note(store, 1, 2)
    store.put_bytes(key(2), b"without a manifest")
    assert end(store, 1) is None
    put(store, 1)
    assert end(store, 1) == End((key(1),), is_rewrite=True)


@pytest.mark.parametrize("by", [(1,), (2, 1)])
def test_nothing_takes_its_own_place(store: ObjectStore, by: tuple[int, ...]) -> None:
    put(store, 1, 2)
    note(store, 2, *by)
    with pytest.raises(ArchiveCorruptError, match="the note of something else"):
        end(store, 2)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"object": 1}', b"\xff", b"[" * 10_000])
def test_a_note_that_is_damaged_is_told(store: ObjectStore, content: bytes) -> None:
    put(store, 1)
    note(store, 1)
    (name,) = (one for one in store.list("message/") if ".replaced-" in one)
    Path(store.url(name)).write_bytes(content)
    with pytest.raises(ArchiveCorruptError, match="replaced"):
        end(store, 1)
