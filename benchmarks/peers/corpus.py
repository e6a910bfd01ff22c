"""The folder that is indexed: a generated one, and what happens to it between two runs.

Generated pages come in two languages of which one is mostly not translated: about half of the
chunk texts are repeated in another file, as in documentation that is kept in several versions.
"""

import filecmp
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy

from benchmarks.generated_index import Words
from benchmarks.peers.protocol import markdown_files

PAGES = 1300
WORDS_PER_PARAGRAPH = 60
PARAGRAPHS_PER_PAGE = 24.0
TRANSLATED_SHARE = 0.08
EDITED_SHARE = 0.5
SMALL_EDIT_SHARE = 0.02
DELETED_SHARE = 0.1


def generate(before: Path, after: Path) -> None:
    """Write a folder, and what it is after half of its files were edited; always the same."""
    words = Words()
    for number in range(PAGES):
        rng = numpy.random.default_rng([20, number])
        count = max(2, int(rng.lognormal(numpy.log(PARAGRAPHS_PER_PAGE) - 0.32, 0.8)))
        page = [_paragraph(words, rng) for _ in range(count)]
        translated = max(1, round(count * TRANSLATED_SHARE))
        other = page[:-translated] + [_paragraph(words, rng) for _ in range(translated)]
        title = " ".join(words.draw(rng, 3)).title()
        place, edited = int(rng.integers(count - translated)), _paragraph(words, rng)
        for language, paragraphs in (("en", page), ("xx", other)):
            path = f"{language}/part-{number // 20:02}/page-{number:04}.md"
            _write(before / path, title, paragraphs)
            if number < PAGES * EDITED_SHARE:
                paragraphs = [*paragraphs[:place], edited, *paragraphs[place + 1 :]]
            _write(after / path, title, paragraphs)


def _paragraph(words: Words, rng: numpy.random.Generator) -> str:
    drawn = list(words.draw(rng, int(rng.integers(20, 2 * WORDS_PER_PARAGRAPH - 20))))
    return " ".join(drawn).capitalize() + "."


def _write(path: Path, title: str, paragraphs: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = [
        f"## {paragraph.split()[0]}\n\n{paragraph}" if number % 5 == 4 else paragraph
        for number, paragraph in enumerate(paragraphs)
    ]
    path.write_text(f"# {title}\n\n" + "\n\n".join(sections) + "\n")


def become(folder: Path, state: Path) -> None:
    """Make a folder like another one; files that are the same stay as they are."""
    wanted = set(markdown_files(state))
    for path in set(markdown_files(folder)) - wanted:
        (folder / path).unlink()
    for path in wanted:
        target = folder / path
        if not target.exists() or not filecmp.cmp(state / path, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(state / path, target)


def touch(folder: Path) -> None:
    """Give every file the time of now."""
    for path in markdown_files(folder):
        os.utime(folder / path)


def edit_a_little(folder: Path) -> None:
    """Change the middle paragraph of some files."""
    for number, path in enumerate(_some(folder, SMALL_EDIT_SHARE)):
        paragraphs = path.read_text().split("\n\n")
        paragraphs[len(paragraphs) // 2] += f" This sentence is new, and number {number}."
        path.write_text("\n\n".join(paragraphs))


def delete_some(folder: Path) -> None:
    """Delete some files."""
    for path in _some(folder, DELETED_SHARE):
        path.unlink()


def _some(folder: Path, share: float) -> Iterator[Path]:
    paths = sorted(markdown_files(folder))
    for path in random.Random(4).sample(paths, max(1, round(len(paths) * share))):
        yield folder / path
