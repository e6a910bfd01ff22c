"""Tenants whose documents say the same things, and a model of who may see and find which.

Every content is drawn from one pool, so that texts, vectors and terms are shared by many tenants;
some documents have a secret of their own tenant's beside it. Tags cut across the tenants. The model
is arrays of truth values over documents and chunks: it never asks the database who may see what.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from kb_assets import KnowledgeBase
from kb_assets.retrieval.query import Caller

SOURCES = tuple(f"tenant-{number:02}" for number in range(20))
TAGS = tuple(f"tag{number}" for number in range(10))
TEAMS = ("red", "green", "blue", "grey")
YEARS = range(2015, 2027)
AREAS = 8
DOCUMENTS_PER_SOURCE = 63
SECTIONS = 4
WORDS_PER_SECTION = 14
CONTENTS = 300
SYLLABLES = """
ba ke li mo nu ra se ti vo zu pha lon der mar sel ven kor dis gat
"""

HOSTILE = (
    "' or '1'='1",
    "'); set local kb.tags = '*'; --",
    "kb.source_ids = '{1,2,3}'",
    '" or "a"="a',
    "%s %(sources)s {condition} %%",
    "$1::int[] :names",
    "*",
    "{1,2,3}",
    "\\' ; reset role; \\",
    "a\x00b",
    "tenant-01/../tenant-02",
    "_%_",
    "!= null or true",
    "\uff21\uff22 \u202e \U0001f512",
)

Truths = numpy.typing.NDArray[numpy.bool_]


@dataclass(frozen=True)
class Document:
    source: str
    path: str
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    body: str

    def file(self) -> str:
        front = {**self.metadata, "tags": list(self.tags)}
        return (
            "---\n"
            + "".join(f"{k}: {json.dumps(v)}\n" for k, v in front.items())
            + (f"---\n{self.body}")
        )


def made_words(count: int) -> list[str]:
    rng, made = random.Random(7), dict[str, None]()
    while len(made) < count:
        made["".join(rng.choices(SYLLABLES.split(), k=rng.randint(3, 4)))] = None
    return list(made)


WORDS = made_words(600)


def secret_of(source: str) -> str:
    return "secret" + source.removeprefix("tenant-")


def made_documents(seed: int) -> list[Document]:
    rng = random.Random(seed)
    contents = [
        "\n".join(
            f"## {rng.choice(WORDS)}\n\n{' '.join(rng.choices(WORDS, k=WORDS_PER_SECTION))}.\n"
            for _ in range(SECTIONS)
        )
        for _ in range(CONTENTS)
    ]
    made = []
    for number in range(DOCUMENTS_PER_SOURCE):
        for source in SOURCES:
            metadata = {"year": rng.choice(YEARS), "team": rng.choice(TEAMS)}
            if rng.random() < 0.3:
                metadata["owner"] = source
            body = rng.choice(contents)
            if rng.random() < 0.2:
                body += f"\n## own\n\n{secret_of(source)} {' '.join(rng.choices(WORDS, k=8))}.\n"
            path = f"area-{rng.randrange(AREAS)}/{number:03}.md"
            tags = tuple(rng.sample(TAGS, k=rng.choice((0, 1, 1, 2, 3))))
            made.append(Document(source, path, tags, metadata, body))
    return made


def index_documents(home: Path, documents: Sequence[Document]) -> KnowledgeBase:
    for one in documents:
        file = home / one.source / one.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(one.file())
    (home / "kb.toml").write_text(
        "".join(f'[[sources]]\nname = "{name}"\nuri = "{name}"\n' for name in SOURCES)
        + "[splitting]\nsize = 90\noverlap = 0\n"
        + "[search]\nlog_days = 0\ntimeout_seconds = 120\n"
    )
    kb = KnowledgeBase.open(home / "kb.toml")
    kb.upgrade()
    kb.index()
    return kb


class Model:
    """What is there, and who may see it: by what was written, not by what the database says."""

    def __init__(self, kb: KnowledgeBase, documents: Sequence[Document]) -> None:
        self.documents = documents
        self.number = {(one.source, one.path): at for at, one in enumerate(documents)}
        self.by_source = {name: self._from(name) for name in SOURCES}
        self.by_tag = {tag: self._tagged(tag) for tag in TAGS}
        self.years = numpy.array([one.metadata["year"] for one in documents])
        with kb.reader.transaction() as connection:
            rows = connection.execute(
                "select s.name, d.path, s.id, d.id, c.revision_id, c.input_hash, c.text"
                " from kb.chunk c join kb.document d on d.live_revision_id = c.revision_id"
                " join kb.source s on s.id = d.source_id order by c.revision_id, c.ordinal"
            ).fetchall()
        self.document_of = numpy.array([self.number[row[:2]] for row in rows])
        assert set(self.document_of) == set(range(len(documents))), "not all were indexed"
        self.source_ids = {row[0]: row[2] for row in rows}
        ids = {self.number[row[:2]]: (row[3], row[4]) for row in rows}
        self.document_ids = numpy.array([ids[at][0] for at in range(len(documents))])
        self.revision_ids = numpy.array([ids[at][1] for at in range(len(documents))])
        self.hashes = numpy.array([row[5] for row in rows], dtype=object)
        self.chunks = [row[6] for row in rows]
        self._words: dict[str, Truths] = {}

    def may_see(self, caller: Caller) -> Truths:
        sources = self.all_of(False) if caller.sources else self.all_of(True)
        for name in caller.sources:
            sources |= self.by_source[name]
        tags = self.all_of(False) if caller.tags else self.all_of(True)
        for tag in caller.tags:
            tags |= self.by_tag[tag]
        return sources & tags

    def all_of(self, value: bool) -> Truths:
        return numpy.full(len(self.documents), value)

    def chunks_of(self, documents: Truths) -> Truths:
        return documents[self.document_of]

    def chunks_with(self, words: Sequence[str]) -> Truths:
        """Return which chunks have at least one of these words in their text."""
        found = numpy.zeros(len(self.chunks), dtype=bool)
        for word in words:
            if word not in self._words:
                self._words[word] = numpy.array([word in self.split(one) for one in self.chunks])
            found |= self._words[word]
        return found

    @staticmethod
    def split(text: str) -> list[str]:
        return text.replace(".", " ").split()

    def _where(self, is_so: Any) -> Truths:  # noqa: ANN401
        return numpy.array([is_so(one) for one in self.documents])

    def _from(self, source: str) -> Truths:
        return self._where(lambda one: one.source == source)

    def _tagged(self, tag: str) -> Truths:
        return self._where(lambda one: tag in one.tags)

    def comparison(self, rng: random.Random) -> tuple[str, Truths]:
        """Draw a comparison, as text and as what it is true of."""
        match rng.randrange(9):
            case 0:
                tag = rng.choice(TAGS)
                return f'tags has "{tag}"', self.by_tag[tag]
            case 1:
                names = rng.sample(SOURCES, 3)
                quoted = ", ".join(f'"{name}"' for name in names)
                return f"source in ({quoted})", self.may_see(Caller(tuple(names)))
            case 2:
                prefix = f"area-{rng.randrange(AREAS)}"
                return f'path starts with "{prefix}"', self.starting(prefix)
            case 3:
                year = rng.choice(YEARS)
                return f"metadata.year >= {year}", self.years >= year
            case 4:
                low, high = sorted(rng.sample(YEARS, 2))
                within = (self.years >= low) & (self.years <= high)
                return f"metadata.year between {low} and {high}", within
            case 5:
                team = rng.choice(TEAMS)
                return f'metadata.team = "{team}"', self.in_team(team)
            case 6:
                return "metadata.owner exists", self._where(lambda one: "owner" in one.metadata)
            case 7:
                name = rng.choice(SOURCES)
                truths = self._where(lambda one: one.metadata.get("owner") == name)
                return f'metadata.owner in ("{name}", "nobody")', truths
        hostile = rng.choice(HOSTILE).replace("\x00", "").replace("\\", "").replace('"', '""')
        return f'metadata.team = "{hostile}"', self.all_of(False)

    def condition(self, rng: random.Random, depth: int = 2) -> tuple[str, Truths]:
        """Draw a condition put together with and, or and not."""
        if depth == 0 or rng.random() < 0.4:
            return self.comparison(rng)
        (one, first), (other, second) = self.condition(rng, depth - 1), self.condition(rng, 0)
        match rng.randrange(3):
            case 0:
                return f"({one}) and ({other})", first & second
            case 1:
                return f"({one}) or ({other})", first | second
        return f"not ({one})", ~first

    def in_team(self, team: str) -> Truths:
        return self._where(lambda one: one.metadata["team"] == team)

    def starting(self, prefix: str) -> Truths:
        return self._where(lambda one: one.path.startswith(prefix))
