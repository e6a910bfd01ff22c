"""Small backups without a database, for what only cares about their objects."""

import random
from dataclasses import replace
from pathlib import Path

from kb_assets.backup.manifest import Manifest, RoleFacts, SequenceFacts, TableFacts

KEY = b"a key of more than sixteen characters"
MOMENT = "2026-11-28T03:00:00.000000+00:00"

_TABLES = (
    TableFacts("kb", "chunk", ("id", "text"), 4, "00ff"),
    TableFacts("kb_space", "embedding_1", ("id", "vector"), 4, "00aa", "tables/embedding_1.zst"),
)


def draft(backup_id: str, moment: str = MOMENT) -> Manifest:
    """Return what is known of a backup before it is put."""
    return Manifest(
        id=backup_id,
        number=0,
        started_at=moment,
        snapshot_at=moment,
        finished_at="",
        kb_version="0.1.0",
        server="16.14",
        extensions={"vector": "0.8.1"},
        revision="0012",
        database="kb",
        database_bytes=1_000_000,
        is_encrypted=False,
        files=(),
        tables=_TABLES,
        sequences=(SequenceFacts("kb", "chunk_id_seq", 4, True),),
        roles=(RoleFacts("kb_writer", ("login",), (), ("connect",)),),
    )


def whole(backup_id: str, number: int, moment: str = MOMENT) -> Manifest:
    """Return a manifest of a backup without files."""
    return replace(draft(backup_id, moment), number=number, finished_at=moment)


def write_files(folder: Path, seed: int) -> dict[str, bytes]:
    """Write a small backup's files, and return them."""
    chance = random.Random(seed)
    sizes = {
        "dump/toc.dat": 300,
        "dump/3001.dat.gz": 90,
        "dump/3002.dat.gz": 1,
        "tables/embedding_1.zst": 2_500,
        "schema.sql": 1_000,
        "questions.json": 0,
    }
    files = {name: chance.randbytes(size) for name, size in sizes.items()}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }
