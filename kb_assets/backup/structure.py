"""Whether two databases are made the same: what `pg_dump` writes of them, part by part."""

import re
from collections.abc import Iterable
from pathlib import Path

from kb_assets.backup.dump import SCHEMA_FILE
from kb_assets.backup.manifest import Manifest
from kb_assets.backup.programs import find_program, run_program
from kb_assets.backup.target import Target, connected
from kb_assets.database.names import SPACE_SCHEMA

_HEADER = re.compile(r"^--\n-- Name: (.*)\n--\n", re.MULTILINE)
_TABLE = re.compile(r"(.+); Type: TABLE; Schema: (.+); Owner: ")
_RIGHTS = re.compile(r"; Type: (?:DEFAULT )?ACL; ")
_PARTITION = re.compile(r" ATTACH PARTITION (\S+) ")
_VOLATILE = re.compile(r"^(--.*|\\(?:un)?restrict .*|SET .*|SELECT pg_catalog\.set_config\(.*)\n",
                       re.MULTILINE)  # fmt: skip
_MOST_NAMED = 5


def structure_differences(
    manifest: Manifest, folder: Path, url: str, *, is_copy: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is made otherwise than in a backup: what is wrong, and what is only told.

    A database of another moment may have other partitions and other spaces of vectors.

    Args:
        manifest: The backup.
        folder: Its files.
        url: The other database.
        is_copy: Whether it was restored from this backup.
    """
    with connected(url) as connection:
        target = Target.of(connection)
    major = target.major
    if major != manifest.server_major:
        note = f"Definitions were not compared: PostgreSQL {major} writes them otherwise."
        return (), (note,)
    file = folder / "compared.sql"
    program = find_program("pg_dump", major)
    run_program(program, ("--schema-only", "--no-sync", f"--file={file}"), url)
    absent = manifest.extensions.keys() - target.extensions.keys()
    before = _parts((folder / SCHEMA_FILE).read_text(encoding="utf-8"))
    for name in absent:
        before.pop(f"{name}; Type: EXTENSION; Schema: -; Owner: -", None)
        before.pop(f"EXTENSION {name}; Type: COMMENT; Schema: -; Owner: -", None)
    after = _parts(file.read_text(encoding="utf-8"))
    told: tuple[str, ...] = ()
    if not is_copy:
        passing = _passing(before) ^ _passing(after)
        before, after = _without(before, passing), _without(after, passing)
        if passing:
            told = (f"Partitions or spaces that only one has: {_named(sorted(passing))}.",)
    if before == after:
        return (), told
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return (f"Defined otherwise than in the backup: {_named(names)}.",), told


def _parts(text: str) -> dict[str, str]:
    """Return a schema's parts by their headers, which tell name, type, schema and owner."""
    pieces = _HEADER.split(text)
    parts = {"settings": _VOLATILE.sub("", pieces[0])}
    for header, body in zip(pieces[1::2], pieces[2::2], strict=True):
        said = _VOLATILE.sub("", body)
        if _RIGHTS.search(header):
            # They are listed in the order of the roles' numbers, which differ between servers.
            said = "".join(sorted(said.splitlines(keepends=True)))
        parts[header] = parts.get(header, "") + said
    return parts


def _passing(parts: dict[str, str]) -> set[str]:
    """Return the tables that come and go while a knowledge base is used."""
    partitions = {found[1] for body in parts.values() for found in _PARTITION.finditer(body)}
    tables = {f"{found[2]}.{found[1]}" for name in parts if (found := _TABLE.match(name))}
    return {one for one in tables if one in partitions or one.startswith(f"{SPACE_SCHEMA}.")}


def _without(parts: dict[str, str], tables: set[str]) -> dict[str, str]:
    """Return the parts that do not speak of some tables."""
    if not tables:
        return parts
    spoken = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(tables)))})(?![A-Za-z0-9$])")
    return {name: body for name, body in parts.items() if not spoken.search(body)}


def _named(names: Iterable[str]) -> str:
    listed = [name.replace("; Type: ", " ").partition("; Schema: ") for name in names]
    said = [f"{schema.partition(';')[0]}.{name}" if schema else name for name, _, schema in listed]
    more = f" and {len(said) - _MOST_NAMED} more" if len(said) > _MOST_NAMED else ""
    return ", ".join(said[:_MOST_NAMED]) + more
