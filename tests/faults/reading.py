"""A reader as a process of its own, which looks again and again: `python -m tests.faults.reading`.

Each poll is one line of JSON on stdout: which documents it saw, and in which versions: by a
search for everything, which is exact, by one for a part, which asks the index, and by the tables.
"""

import json
import re
import sys

from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings

MARK = re.compile(r"document (\d+) version (\d+) part (\d+) of (\d+)")

LIVE = """
select c.text from kb.document d join kb.chunk c on c.revision_id = d.live_revision_id
"""


def seen(texts: list[str]) -> dict[str, list[str]]:
    """Return the marks of all parts by document."""
    found: dict[str, list[str]] = {}
    for text in texts:
        for document, version, part, of in MARK.findall(text):
            found.setdefault(document, []).append(f"{version}/{part}/{of}")
    return {document: sorted(marks) for document, marks in found.items()}


def main() -> None:
    settings = Settings(**json.loads(sys.stdin.readline()))
    with KnowledgeBase(settings) as kb:
        while True:
            everything = kb.search("document version part", limit=1000, merge=False)
            nearest = kb.search("document version part", limit=60, merge=False)
            with kb.reader.transaction() as connection:
                rows = connection.execute(LIVE).fetchall()
            poll = {
                "search": seen([hit.text for hit in everything]),
                "nearest": seen([hit.text for hit in nearest]),
                "tables": seen([text for (text,) in rows]),
            }
            print(json.dumps(poll), flush=True)


if __name__ == "__main__":
    main()
