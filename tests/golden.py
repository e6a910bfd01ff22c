"""Documents with golden questions that are answered well, and how to spoil their vectors."""

from pathlib import Path

import psycopg
import yaml

from kb_assets import KnowledgeBase
from kb_assets.embeddings.space import live_space

BIRDS = (
    *("heron", "owl", "swift", "puffin", "raven", "wren", "gannet", "curlew", "dunlin", "knot"),
    *("merlin", "osprey", "petrel", "robin", "shrike", "teal", "turnstone", "whimbrel", "jay"),
    "nightjar",
)


def write_birds(folder: Path) -> Path:
    """Write a document for each bird, and return the file of questions beside the folder."""
    for bird in BIRDS:
        text = f"# The {bird}\n\nThe {bird} nests where a {bird} has always nested.\n"
        (folder / f"{bird}.md").write_text(text)
    questions = folder.parent / "questions.yaml"
    questions.write_text(
        yaml.safe_dump(
            [
                {
                    "question": f"Where does the {bird} nest?",
                    "documents": [f"{bird}.md"],
                    "answer_contains": f"a {bird} has always nested",
                }
                for bird in BIRDS
            ]
        )
    )
    return questions


def table_of(kb: KnowledgeBase) -> str:
    """Return the table of the space that answers."""
    space = live_space(kb.database)
    assert space is not None
    return ".".join(space.table)


def corrupt_half(kb: KnowledgeBase) -> None:
    """Give every second text of the space that answers the vector of another."""
    with psycopg.connect(kb.urls.writer) as connection:
        connection.execute(
            f"""
            with picked as (
                select input_hash, vector, row_number() over (order by input_hash) as place,
                    count(*) over () as places
                from (
                    select *, row_number() over (order by input_hash) as number
                    from {table_of(kb)}
                ) numbered
                where number % 2 = 0
            )
            update {table_of(kb)} t set vector = other.vector
            from picked mine join picked other on other.place = mine.place % mine.places + 1
            where t.input_hash = mine.input_hash
            """.encode()
        )


def repair(kb: KnowledgeBase) -> None:
    """Delete all vectors of the space that answers, and embed its texts again."""
    with psycopg.connect(kb.urls.writer) as connection:
        connection.execute(f"delete from {table_of(kb)}".encode())
    kb.index(run=kb.run(verify=True))
