"""What the archive's destination holds, and what took the place of what: read from the store."""

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from typing import Any

from kb_assets.archive.manifest import (
    ObjectFacts,
    Replacement,
    parse_manifest,
    parse_replacement,
)
from kb_assets.archive.plan import Window, manifest_key
from kb_assets.archive.relation import Aging
from kb_assets.errors import ArchiveCorruptError, NotFoundError
from kb_assets.object_store import ObjectStore

_NAME = re.compile(
    r"(?P<stem>[^/]+/year=(?P<year>\d{4})/month=(?P<month>0[1-9]|1[0-2])"
    r"/(?P<number>\d{10})-[0-9a-f]{64})\.(?P<kind>parquet|json|replaced-[0-9a-f]{16}\.json)"
)


@dataclass(frozen=True, slots=True)
class End:
    """Where the rows of an object are by now.

    Attributes:
        keys: The objects that hold them; none if they were all erased.
        is_rewrite: They are what erasures left of the object, and nothing else.
    """

    keys: tuple[str, ...]
    is_rewrite: bool


class Contents:
    """The objects of one table in the archive's destination, by their names.

    Attributes:
        objects: The objects that are there, by month.
        noted: Those beside which a note says what took their place, by month; they may be gone.
        described: Those that a manifest lies beside.
        highest: The highest number of a segment that any was named by.
    """

    def __init__(self, store: ObjectStore, aging: Aging) -> None:
        """List them; notes and manifests are read when they are asked for.

        Raises:
            ObjectStoreError: The store refuses us.
            ObjectStoreUnavailableError: The store cannot be reached.
        """
        self._store, self._aging = store, aging
        self._keys_of_notes: dict[str, list[str]] = {}
        self._notes: dict[str, list[Replacement]] = {}
        self._ends: dict[str, End | None] = {}
        self.objects: dict[date, set[str]] = defaultdict(set)
        self.noted: dict[date, set[str]] = defaultdict(set)
        self.described: set[str] = set()
        self.highest = 0
        for name in store.list(f"{aging.name}/"):
            found = _NAME.fullmatch(name)
            if found is None or not name.startswith(f"{aging.name}/"):
                continue
            key = f"{found['stem']}.parquet"
            month = date(int(found["year"]), int(found["month"]), 1)
            self.highest = max(self.highest, int(found["number"]))
            if found["kind"] == "parquet":
                self.objects[month].add(key)
            elif found["kind"] == "json":
                self.described.add(key)
            else:
                self.noted[month].add(key)
                self._keys_of_notes.setdefault(key, []).append(name)
        self._whole = {key for keys in self.objects.values() for key in keys} & self.described

    def end(self, key: str) -> End | None:
        """Return where the rows of an object are by now; None if they are nowhere.

        Raises:
            ArchiveCorruptError: A note is damaged.
        """
        pending, involved = [key], set[str]()
        while pending:
            one = pending.pop()
            if one not in involved and one not in self._ends:
                involved.add(one)
                pending += [later for note in self.notes(one) for later in note.by]
        # What takes a place has a higher number: so it is known before it is asked for.
        for one in sorted(involved, key=_number, reverse=True):
            self._ends[one] = self._end(one)
        return self._ends[key]

    def notes(self, key: str) -> list[Replacement]:
        """Return what was to take the place of an object: the last attempt first.

        Raises:
            ArchiveCorruptError: A note is damaged.
        """
        if key not in self._notes:
            found = [self._note(key, name) for name in self._keys_of_notes.get(key, ())]
            self._notes[key] = sorted(found, key=_attempt, reverse=True)
        return self._notes[key]

    def manifest(self, key: str) -> tuple[dict[str, Any], ObjectFacts, Window]:
        """Return the manifest that lies beside an object, and what it says of the object.

        Raises:
            ArchiveCorruptError: It is gone or damaged.
        """
        name = manifest_key(key)
        try:
            return parse_manifest(self._store.read(name), key, self._aging)
        except (NotFoundError, ValueError) as error:
            raise self._damaged(name, error) from error

    def _end(self, key: str) -> End | None:
        for note in self.notes(key):
            ends = [self._ends[one] for one in note.by]
            whole = [end for end in ends if end is not None]
            if len(whole) == len(ends):
                keys = tuple(dict.fromkeys(one for end in whole for one in end.keys))
                return End(keys, note.is_rewrite and all(end.is_rewrite for end in whole))
        return End((key,), is_rewrite=True) if key in self._whole else None

    def _note(self, key: str, name: str) -> Replacement:
        try:
            note = parse_replacement(self._store.read(name))
            # What takes a place came later: so nothing ever takes its own place.
            if note.object_key != key or any(_number(one) <= _number(key) for one in note.by):
                raise ValueError("It is the note of something else.")
        except (NotFoundError, ValueError) as error:
            raise self._damaged(name, error) from error
        return note

    def _damaged(self, name: str, error: Exception) -> ArchiveCorruptError:
        return ArchiveCorruptError(
            f"{self._store.url(name)} is not what the archive wrote there.",
            why=str(error),
            fix="Bring it back from a copy of the store, and run it again.",
        )


def _attempt(note: Replacement) -> float:
    return max(map(_number, note.by), default=float("inf"))


def _number(key: str) -> int:
    found = _NAME.fullmatch(key)
    if found is None:
        raise ValueError(f"{key} is no object of the archive.")
    return int(found["number"])
