"""A tree of Markdown files of any size, made by rule, and the changes people make to one."""

import time
from pathlib import Path

import numpy

from benchmarks.generated_index import COMMON_WORDS, Words

FOLDERS = 10
PARAGRAPH_BYTES = 420
"""About how long a paragraph is."""

_SENTENCES = 40_000
_WORDS_PER_SENTENCE = 14
_FREQUENT_SHARE = 0.7
_PARAGRAPH_SENTENCES = 5
_UNTIL_TRUSTED_SECONDS = 2.1
"""A file that was written just now may change again without looking different."""


def write_corpus(root: Path, files: int, paragraphs: int) -> None:
    """Write files of so many paragraphs into ten new folders.

    Nearly every paragraph is distinct; words come as often as in language.
    """
    random = numpy.random.default_rng(7)
    sentences = _sentences(random)
    for number in range(files):
        path = _path(root, files, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        picks = random.integers(0, _SENTENCES, (paragraphs, _PARAGRAPH_SENTENCES))
        prose = "\n\n".join(" ".join(row) for row in sentences[picks])
        path.write_text(f"# Note {number}\n\n{prose}\n")
    time.sleep(_UNTIL_TRUSTED_SECONDS)


def edit_files(root: Path, files: int, count: int, edit: int) -> None:
    """Add a paragraph to so many files; each edit takes others."""
    for number in numpy.random.default_rng(edit).choice(files, count, replace=False):
        with _path(root, files, int(number)).open("a") as file:
            file.write(f"\nEdit {edit} of note {number}: what was said above has changed.\n")
    time.sleep(_UNTIL_TRUSTED_SECONDS)


def rename_folder(root: Path) -> str:
    """Rename one of the ten folders, or back, and return its name."""
    folder, renamed = root / "0", root / "renamed"
    if renamed.exists():
        folder, renamed = renamed, folder
    folder.rename(renamed)
    return renamed.name


def _path(root: Path, files: int, number: int) -> Path:
    return root / f"{number * FOLDERS // files}" / f"{number:06}.md"


def _sentences(random: numpy.random.Generator) -> numpy.ndarray:
    count = _SENTENCES * _WORDS_PER_SENTENCE
    any_words, common = Words(), len(COMMON_WORDS.split())
    frequent = any_words.known[random.integers(0, common, count)]
    # As many tokens for each byte as plain English has: made-up words alone have twice as many.
    is_frequent = random.random(count) < _FREQUENT_SHARE
    words = numpy.where(is_frequent, frequent, any_words.draw(random, count))
    rows = words.reshape(_SENTENCES, _WORDS_PER_SENTENCE)
    return numpy.array([" ".join(row).capitalize() + "." for row in rows], object)
