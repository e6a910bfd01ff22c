"""A corpus that is a function of a number: texts of one paragraph each, many of them shared."""

import random
from pathlib import Path

SPLITTING = {"strategy": "markdown", "size": 60, "overlap": 0}
"""Makes each paragraph a chunk of its own: two of them do not fit."""

_SYLLABLES = ("ba", "ke", "lo", "mi", "nu", "pa", "re", "so", "ti", "vu", "wa", "ze")


def paragraph(*key: object) -> str:
    """Return a paragraph that only this key has, of about 45 tokens."""
    rng = random.Random("/".join(map(str, key)))
    words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 3))) for _ in range(18)]
    return f"{' '.join(words).capitalize()} ({'-'.join(map(str, key))})."


def document(*paragraphs: str) -> str:
    return "\n\n".join(paragraphs) + "\n"


def first(count: int) -> dict[str, str]:
    """Return the corpus before the update: path → text."""
    documents = {}
    for number in range(count):
        own = [paragraph("own", number, part) for part in range(2)]
        shared = paragraph("shared", number % 17)
        documents[_path(number)] = document(own[0], shared, own[1])
    return documents


def second(count: int) -> dict[str, str]:
    """Return it after: much changed, some new, some moved, some gone; shared texts among them."""
    documents = {}
    for number in range(count):
        own = [paragraph("own", number, part) for part in range(2)]
        newly = [paragraph("new", number, part) for part in range(2)]
        shared = paragraph("shared", number % 17)
        if number % 10 == 1:
            continue
        if number % 10 == 2:
            documents[f"moved/{number:03}.txt"] = document(own[0], shared, own[1])
        elif number % 10 == 3:
            documents[_path(number)] = document(own[0], shared, own[1])
        else:
            newly_shared = paragraph("newly shared", number % 13)
            documents[_path(number)] = document(newly[0], shared, newly[1], newly_shared)
    for number in range(count // 8):
        added = [paragraph("added", number, part) for part in range(2)]
        documents[f"added/{number:03}.txt"] = document(paragraph("shared", number % 17), *added)
    return documents


def write(folder: Path, documents: dict[str, str]) -> None:
    """Make a folder hold exactly these documents."""
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        if file.relative_to(folder).as_posix() not in documents:
            file.unlink()
    for path, text in documents.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def _path(number: int) -> str:
    return f"part-{number % 4}/{number:03}.txt"
