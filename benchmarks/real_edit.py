"""A real edit of a real corpus: what is done again, and whether the result is right.

    python -m benchmarks.real_edit BEFORE AFTER

Indexes the folder BEFORE, then AFTER in its place, and compares every table with a fresh index
of AFTER, chunk for chunk. Then touches every file, renames a folder, and swaps both states back
and forth. It stops at the first thing that is not as promised, so that numbers are only printed
for results that are right.
"""

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from kb_assets import KnowledgeBase
from kb_assets.knowledge_base import ShardReport

CONTENTS = """
select d.path, r.content_hash, p.fingerprint, r.title, r.text, r.metadata::text, r.tags,
    c.ordinal, c.input_hash, c.byte_start, c.byte_end, c.token_count, c.heading_path, c.text
from kb.document d
join kb.document_revision r on r.id = d.live_revision_id
join kb.processing_recipe p on p.id = r.recipe_id
left join kb.chunk c on c.revision_id = r.id
order by d.path, c.ordinal
"""

UNUSED_TABLES = "select count(*) from kb.document_revision r where not exists (select from kb.document d where r.id in (d.live_revision_id, d.pending_revision_id))"  # noqa: E501

RACY_SECONDS = 2.1
"""Files written just now are read again by the next run; this is how long that lasts."""


class Trial:
    """A knowledge base over one folder whose contents are exchanged."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True)
        self.folder = home / "corpus"
        (home / "kb.toml").write_text('[[sources]]\nname = "docs"\nuri = "corpus"\n')
        self.kb = KnowledgeBase.open(home / "kb.toml")
        self.kb.upgrade()
        self.rows: list[dict[str, object]] = []

    def use(self, state: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(state, self.folder)

    def index(self, label: str) -> ShardReport:
        time.sleep(RACY_SECONDS)
        started = time.monotonic()
        report = self.kb.index(run=self.kb.run(confirm_deletes=True)).shards[0]
        embedded = sum(space.embedded for space in report.embedded)
        self.rows.append(
            {
                "step": label,
                "seconds": round(time.monotonic() - started, 2),
                "files_read": report.read.found - report.read.unchanged,
                "chunks": report.chunked.chunks,
                "texts_embedded": embedded,
                "published": report.published.published + report.published.replaced,
                "removed": report.published.removed,
            }
        )
        assert self.kb.status().is_settled, f"{label}: not every document is accounted for"
        return report

    def digest(self) -> str:
        digest = hashlib.sha256()
        with self.kb.database.transaction() as connection:
            for row in connection.execute(CONTENTS):
                digest.update(repr(row).encode())
            leftover = connection.execute(UNUSED_TABLES).fetchone()
        assert leftover == (0,), "revisions that nothing points to were left behind"
        return digest.hexdigest()

    def texts(self) -> set[bytes]:
        with self.kb.database.transaction() as connection:
            return {row[0] for row in connection.execute("select input_hash from kb.chunk")}


def embedded(report: ShardReport) -> int:
    return sum(space.embedded for space in report.embedded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="kb-real-edit-"))
    try:
        run(home, options.before, options.after)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run(home: Path, before: Path, after: Path) -> None:
    trial, fresh = Trial(home / "trial"), Trial(home / "fresh")
    trial.use(before)
    trial.index("first load")
    old_texts, old_digest = trial.texts(), trial.digest()
    assert trial.index("nothing changed").read.bytes_read == 0
    trial.use(after)
    edit = trial.index("real edit")
    assert embedded(edit) == len(trial.texts() - old_texts), "texts were embedded twice"
    fresh.use(after)
    fresh.index("fresh load of the second state")
    assert trial.digest() == fresh.digest(), "the edit left something else than a fresh load"
    for path in trial.folder.rglob("*"):
        os.utime(path)
    assert embedded(trial.index("every file touched")) == 0
    largest = max((p for p in trial.folder.iterdir()), key=lambda p: sum(1 for _ in p.rglob("*")))
    largest.rename(largest.with_name("renamed"))
    assert embedded(trial.index("largest folder renamed")) == 0
    trial.use(before)
    assert embedded(trial.index("first state again")) == 0
    assert trial.digest() == old_digest, "going back left something else than before"
    trial.use(after)
    assert embedded(trial.index("second state again")) == 0
    assert trial.digest() == fresh.digest()
    for row in [*trial.rows, *fresh.rows]:
        print(json.dumps(row))
    trial.kb.close()
    fresh.kb.close()


if __name__ == "__main__":
    main()
