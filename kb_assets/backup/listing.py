"""The table of contents of a dump: what is in it, and which of that is restored."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kb_assets.backup.dump import DUMP_FOLDER
from kb_assets.backup.programs import run_program

_ENTRY = re.compile(r"(\d+); \d+ \d+ (.+?) ?")
_TABLE = re.compile(r"TABLE (\S+) (.+) \S+")
_NEEDS = re.compile(r";\s+depends on:([ \d]+)")
_SETTINGS = ("ENCODING - ", "STDSTRINGS - ", "SEARCHPATH - ")
_EXTENSION = "EXTENSION - "
_OF_SCHEMAS = ("SCHEMA - ", "ACL - SCHEMA ", "COMMENT - SCHEMA ", _EXTENSION)
_NEVER = ("DATABASE - ", "ACL - DATABASE ", "COMMENT - DATABASE ", "COMMENT - EXTENSION ")
"""What is the administrator's: made before, or nobody else's to change."""

_PARTS = (
    *("TABLE DATA ", "TABLE ATTACH ", "SEQUENCE ", "DEFAULT ", "CONSTRAINT ", "INDEX "),
    *("CHECK CONSTRAINT ", "FK CONSTRAINT ", "STATISTICS ", "TRIGGER ", "POLICY "),
    *("ROW SECURITY ", "ACL ", "COMMENT "),
)
"""What belongs to a table."""

_NEEDED = ("FUNCTION ", "TYPE ", "DOMAIN ", "SEQUENCE ")
"""What a table may need of its schema."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a dump.

    Attributes:
        number: What the dump calls it.
        text: What it is: kind, schema or a dash, name, owner.
        line: How it is listed.
        needs: The numbers of what must be there before.
    """

    number: int
    text: str
    line: str
    needs: frozenset[int] = frozenset()

    @property
    def owner(self) -> str:
        """Who owns it; empty for what has no owner."""
        return self.text.rpartition(" ")[2] if not self.text.startswith(_EXTENSION) else ""

    def is_any(self, kinds: Sequence[str]) -> bool:
        """Say whether it is of one of some kinds."""
        return self.text.startswith(tuple(kinds))

    def is_table(self, schema: str, name: str) -> bool:
        """Say whether it is the definition of a table."""
        return self.text.startswith(f"TABLE {schema} {name} ")

    @property
    def place(self) -> tuple[str, str]:
        """Schema and name of a table; its owner's name must be one word."""
        found = _TABLE.fullmatch(self.text)
        return (found[1], found[2]) if found else ("", "")

    def is_in(self, schemas: Collection[str]) -> bool:
        """Say whether it lies in one of some schemas."""
        return any(re.match(rf"[A-Z]+(?: [A-Z]+)* {re.escape(one)} ", self.text) for one in schemas)


def read_listing(program: Path, folder: Path, url: str) -> tuple[Entry, ...]:
    """Return everything that is in a dump and can be restored, in order.

    Args:
        program: `pg_restore`.
        folder: The backup's.
        url: Any database.

    Raises:
        DatabaseRefusedError: The program cannot read it.
    """
    entries: list[Entry] = []
    listed = run_program(program, ("--list", "--verbose", str(folder / DUMP_FOLDER)), url)
    for line in listed.splitlines():
        if found := _ENTRY.fullmatch(line):
            entries.append(Entry(int(found[1]), found[2], line))
        elif entries and (found := _NEEDS.fullmatch(line)):
            last = entries[-1]
            needs = frozenset(map(int, found[1].split()))
            entries[-1] = Entry(last.number, last.text, last.line, needs)
    return tuple(one for one in entries if not one.is_any(_NEVER))


def write_listing(entries: Iterable[Entry], file: Path) -> Path:
    """Write entries as `pg_restore --use-list` reads them, and return the file."""
    file.write_text("".join(f"{one.line}\n" for one in entries), encoding="utf-8")
    return file


def split_schemas(
    entries: Sequence[Entry], present: Collection[str]
) -> tuple[list[Entry], list[Entry]]:
    """Return schemas and who may do what in them apart from all else.

    Only who may make tables in a schema can be made the owner of one, so the rights come first.

    Args:
        entries: What is to be restored.
        present: Schemas that are there already.
    """
    there = tuple(f"SCHEMA - {schema} " for schema in present)
    first = [one for one in entries if one.is_any(_OF_SCHEMAS) and not one.is_any(there or ("\0",))]
    settings = [one for one in entries if one.is_any(_SETTINGS)]
    return settings + first, [one for one in entries if not one.is_any(_OF_SCHEMAS)]


def owners(entries: Iterable[Entry]) -> frozenset[str]:
    """Return who owns anything in a dump."""
    return frozenset(one.owner for one in entries if not one.is_any(_SETTINGS)) - {""}


def needed_extensions(entries: Collection[Entry]) -> frozenset[str]:
    """Return the extensions that something in a dump cannot be made without."""
    needs = {need for one in entries for need in one.needs}
    return frozenset(
        one.text.removeprefix(_EXTENSION).strip()
        for one in entries
        if one.text.startswith(_EXTENSION) and one.number in needs
    )


def without_extensions(entries: Iterable[Entry], names: Collection[str]) -> list[Entry]:
    """Return all but some extensions."""
    gone = {f"{_EXTENSION}{name}" for name in names}
    return [one for one in entries if one.text.strip() not in gone]


def choose(
    entries: Sequence[Entry],
    tables: Collection[tuple[str, str]],
    schemas: Collection[str],
    present: Collection[str],
) -> tuple[list[Entry], list[Entry]]:
    """Return what belongs to some tables and schemas, and what of it is left out.

    A partitioned table has its partitions with it. Left out is what needs a table that is not
    chosen: a foreign key to it, or a policy that reads it.

    Args:
        entries: All that is in the dump.
        tables: Schemas and names.
        schemas: Whole schemas.
        present: Schemas that are there already; what tables need of others is restored, too.
    """
    known = {one.number: one for one in entries}
    free = {one.number for one in entries if one.is_any((*_OF_SCHEMAS, *_NEEDED))}
    chosen = {
        one.number
        for one in entries
        if any(one.is_table(*table) for table in tables)
        or (one.is_in(schemas) and (one.needs <= free or not one.is_any(_PARTS)))
    }
    _add_partitions(entries, chosen, known)
    places = {schema for schema, _ in tables} | set(schemas)
    _add_needed(chosen, known, places - set(present))
    parts = [one for one in entries if one.is_any(_PARTS)]
    while added := {
        one.number
        for one in parts
        if one.number not in chosen
        and one.needs & chosen
        and all(need in chosen or need in free or need not in known for need in one.needs)
    }:
        chosen |= added
    made = [
        f"{kind}SCHEMA {dash}{schema} "
        for schema in places - set(present)
        for kind, dash in (("", "- "), ("ACL - ", ""), ("COMMENT - ", ""))
    ]
    around = (*_SETTINGS, _EXTENSION, *made)
    taken = [one for one in entries if one.number in chosen or one.is_any(around)]
    left = [one for one in parts if one.number not in chosen and _belongs(one, chosen, known)]
    return taken, left


def _add_partitions(entries: Sequence[Entry], chosen: set[int], known: dict[int, Entry]) -> None:
    attached = [one for one in entries if one.is_any(("TABLE ATTACH ",))]
    size = -1
    while size != len(chosen):
        size = len(chosen)
        for one in attached:
            name = one.text.replace("TABLE ATTACH ", "TABLE ", 1)
            children = {need for need in one.needs if need in known and known[need].text == name}
            if (one.needs - children) & chosen:
                chosen |= children


def _add_needed(chosen: set[int], known: dict[int, Entry], schemas: set[str]) -> None:
    open_ = list(chosen)
    while open_:
        for need in known[open_.pop()].needs & known.keys() - chosen:
            if known[need].is_any(_NEEDED) and known[need].is_in(schemas):
                chosen.add(need)
                open_.append(need)


def _belongs(one: Entry, chosen: set[int], known: dict[int, Entry]) -> bool:
    """Say whether it is about a chosen table: the first table it needs that bears its name."""
    words = one.text.split()
    return any(
        need in chosen and known[need].is_any(("TABLE ",)) and known[need].text.split()[2] in words
        for need in one.needs
    )
