"""BM25 as its formula says, over whatever readers see: slow, and nothing is kept up to date.

Only words and their stems come from the code under test; the rest is counted here, from texts.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kb_assets.fingerprints import input_text
from kb_assets.index.analysis import raw_tokens, terms_of, words_of
from kb_assets.index.stems import stems_of
from kb_assets.knowledge_base import KnowledgeBase

K1, B = 1.2, 0.75
MOST_COUNTED, LONGEST = 255, 65_535

Place = tuple[str, str, int]
"""Source, path and ordinal of a chunk."""

_CHUNKS = """
select s.id, s.name, d.path, c.revision_id, c.ordinal, r.title, c.heading_path, c.text
from kb.document d
join kb.source s on s.id = d.source_id
join kb.document_revision r on r.id = d.live_revision_id
join kb.chunk c on c.revision_id = r.id
order by s.name, d.path, c.ordinal
"""


@dataclass(frozen=True)
class LiveChunk:
    """A chunk readers see, and its terms."""

    source_id: int
    source: str
    path: str
    revision_id: int
    ordinal: int
    terms: Counter[str]

    @property
    def place(self) -> Place:
        return self.source, self.path, self.ordinal

    @property
    def length(self) -> int:
        return self.terms.total()


def language_of(kb: KnowledgeBase, source: str) -> str:
    return kb.settings.source(source).language or kb.settings.search.language


def terms_in(connection: Any, language: str, text: str) -> Counter[str]:
    stems = stems_of(connection, language, words_of(raw_tokens(text)))
    return Counter(terms_of(text, stems))


def live_chunks(kb: KnowledgeBase, sources: Sequence[str] = ()) -> list[LiveChunk]:
    """Return every chunk of the configured sources that readers see."""
    wanted = sources or [source.name for source in kb.settings.sources]
    with kb.database.transaction() as connection:
        return [
            LiveChunk(
                source_id,
                source,
                path,
                revision_id,
                ordinal,
                terms_in(connection, language_of(kb, source), input_text(title, heads, text)),
            )
            for source_id, source, path, revision_id, ordinal, title, heads, text in (
                connection.execute(_CHUNKS).fetchall()
            )
            if source in wanted
        ]


@dataclass(frozen=True)
class Scored:
    """What a chunk scores, and as a share of what it could."""

    bm25: float
    share: float


def scores(kb: KnowledgeBase, question: str, chunks: Iterable[LiveChunk]) -> dict[Place, Scored]:
    """Score chunks, each source in its own language; those that score nothing are left out."""
    chunks = list(chunks)
    languages = {chunk.source: language_of(kb, chunk.source) for chunk in chunks}
    with kb.database.transaction() as connection:
        asked = {one: terms_in(connection, one, question) for one in set(languages.values())}
    mean = sum(chunk.length for chunk in chunks) / max(1, len(chunks)) or 1.0
    idf: dict[str, float] = {}
    for term in {term for terms in asked.values() for term in terms}:
        df = sum(term in chunk.terms and term in asked[languages[chunk.source]] for chunk in chunks)
        idf[term] = math.log(1 + (len(chunks) - df + 0.5) / (df + 0.5))
    found: dict[Place, Scored] = {}
    for chunk in chunks:
        terms = asked[languages[chunk.source]]
        score = 0.0
        for term, times in terms.items():
            tf = min(chunk.terms[term], MOST_COUNTED)
            length = min(chunk.length, LONGEST)
            score += times * idf[term] * tf / (tf + K1 * (1 - B + B * length / mean))
        if score:
            best = sum(times * idf[term] for term, times in terms.items())
            found[chunk.place] = Scored(score, score / best)
    return found
