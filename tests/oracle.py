"""What must hold after any fault: the formulas every fault test ends with.

They are computed here from files and tables, not by asking the code under test; where that
code has an opinion of its own (`KnowledgeBase.status`), it must agree.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import psycopg
import pytest

from kb_assets.chunks.plan import recipe_of
from kb_assets.documents.open import open_source
from kb_assets.embeddings.space import Space, list_spaces
from kb_assets.fingerprints import content_hash, input_text
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import SourceSettings
from tests.bm25 import LONGEST, MOST_COUNTED, LiveChunk, language_of, live_chunks

Embed = Callable[[str, int], numpy.ndarray]
"""The pure function E that the test's provider is: a text and a length to its vector."""

_PLACES = """
select d.path, live.content_hash, p.fingerprint, live.state, d.pending_revision_id is not null,
    d.missing_since is not null or d.vanished_at is not null, q.reason, q.detail
from kb.document d
join kb.source s on s.id = d.source_id and s.name = %s
left join kb.document_revision live on live.id = d.live_revision_id
left join kb.processing_recipe p on p.id = live.recipe_id
left join kb.quarantine q on q.document_id = d.id
"""

_LEFT_BEHIND = {
    "revisions that are neither live nor pending": """
        select r.id from kb.document_revision r join kb.document d on d.id = r.document_id
        where r.id is distinct from d.live_revision_id
            and r.id is distinct from d.pending_revision_id""",
    "documents whose revision does not exist": """
        select d.path from kb.document d
        left join kb.document_revision live on live.id = d.live_revision_id
        left join kb.document_revision pending on pending.id = d.pending_revision_id
        where (d.live_revision_id is not null and live.document_id is distinct from d.id)
            or (d.pending_revision_id is not null and pending.document_id is distinct from d.id)""",
    "claims of runs that are over": "select input_hash from kb.embedding_claim",
}

_TEXTS = """
select distinct on (c.input_hash) c.input_hash, r.title, c.heading_path, c.text
from kb.chunk c join kb.document_revision r on r.id = c.revision_id
order by c.input_hash
"""

_LIVE_TEXTS = """
select d.path, c.ordinal, c.input_hash, r.title, c.heading_path, c.text
from kb.document d
join kb.document_revision r on r.id = d.live_revision_id
join kb.chunk c on c.revision_id = r.id
"""

_LIVE_REVISIONS = """
select r.id, d.path, r.text
from kb.document d join kb.document_revision r on r.id = d.live_revision_id
"""

_LIVE_CHUNKS = """
select c.revision_id, c.ordinal, c.byte_start, c.byte_end, c.text
from kb.document d join kb.chunk c on c.revision_id = d.live_revision_id
order by c.revision_id, c.ordinal
"""

_DOCUMENTS = """
select s.name, d.path, r.content_hash, p.fingerprint, r.title, r.tags, r.metadata, r.media_type,
    r.text, q.stage, q.reason
from kb.document d
join kb.source s on s.id = d.source_id
left join kb.document_revision r on r.id = d.live_revision_id
left join kb.processing_recipe p on p.id = r.recipe_id
left join kb.quarantine q on q.document_id = d.id
order by s.name, d.path
"""

_CHUNKS = """
select s.name, d.path, c.ordinal, c.text, c.heading_path, c.byte_start, c.byte_end,
    c.input_hash, c.token_count
from kb.document d
join kb.source s on s.id = d.source_id
join kb.chunk c on c.revision_id = d.live_revision_id
order by s.name, d.path, c.ordinal
"""

_WORDS = """
select s.id, l.language, l.chunks, l.tokens, l.next_ordinal
from kb.source s left join kb.lexical_source l on l.source_id = s.id
where s.name = %s
"""

_WORDS_OF_DOCUMENTS = """
select first_ordinal, chunks, tokens, revision_id, is_dead
from kb.lexical_document where source_id = %s order by first_ordinal
"""

_POSTINGS = """
select term, block, ordinals, counts, lengths from kb.lexical_posting where source_id = %s
"""


def rows_of(kb: KnowledgeBase, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Return what the writer's database answers."""
    with kb.database.transaction() as connection:
        return connection.execute(query, parameters or None).fetchall()


def rows_as(role: str, kb: KnowledgeBase, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Return what the database answers another role, such as `archiver`; it may change things."""
    with psycopg.connect(getattr(kb.urls, role), autocommit=True) as connection:
        return connection.execute(query, parameters or None).fetchall()


def assert_accounted(kb: KnowledgeBase) -> None:
    """|found| = |live at the current content| + |quarantined, with a reason|; nothing waits."""
    live = quarantined = 0
    recipe = recipe_of(kb.settings.splitting).fingerprint
    for source in kb.settings.sources:
        found = _found(kb, source)
        known: set[str] = set()
        for path, hash_, fingerprint, state, waits, leaving, reason, detail in rows_of(
            kb, _PLACES, source.name
        ):
            known.add(path)
            assert not leaving, f"{path} is missing or vanished"
            assert not waits, f"{path} has a revision that waits"
            if reason is not None:
                assert reason, f"{path} is in quarantine without a reason"
                assert detail, f"{path} is in quarantine without an explanation"
                quarantined += 1
            else:
                assert path in found, f"{path} is live, and not in the source"
                assert hash_ == found[path], f"{path} is not live at its current content"
                assert (fingerprint, state) == (recipe, "chunked"), f"{path}: another recipe"
                live += 1
        assert known == set(found), "documents of the source that are not known, or the reverse"
    for what, query in _LEFT_BEHIND.items():
        assert rows_of(kb, query) == [], f"there are {what}"
    accounts = [shard.account for shard in kb.status().shards]
    assert sum(account.live for account in accounts) == live
    assert sum(account.quarantined for account in accounts) == quarantined
    assert all(account.is_settled for account in accounts), accounts


def assert_vectors_true(kb: KnowledgeBase, embed: Embed) -> None:
    """Every stored vector is E(its text), and every live chunk's text has one, or a reason.

    A vector no chunk has is known to be unused, so that it will be collected.
    """
    texts = {hash_: input_text(*rest) for hash_, *rest in rows_of(kb, _TEXTS)}
    unused = {hash_ for (hash_,) in rows_of(kb, "select input_hash from kb.embedding_unused")}
    for space in list_spaces(kb.database):
        vectors = vectors_of(kb, space)
        for hash_, vector in vectors.items():
            if hash_ not in texts:
                assert hash_ in unused, "a vector that nothing uses will never be collected"
                continue
            text = space.model.document_prefix + texts[hash_]
            exact = embed(text, space.model.dimensions)
            stored = exact.astype("f2" if space.precision == "halfvec" else "f4")
            assert numpy.array_equal(vector, stored), f"not the vector of {texts[hash_]!r}"
        if space.state == "live":
            refused = _refused(kb, space)
            for path, ordinal, hash_, *_ in rows_of(kb, _LIVE_TEXTS):
                known = hash_ in vectors or hash_ in refused
                assert known, f"chunk {ordinal} of {path} is live and has no vector"


def assert_same_index(one: KnowledgeBase, two: KnowledgeBase, *queries: str) -> None:
    """Two knowledge bases hold the same documents and chunks, and answer alike."""
    for query in (_DOCUMENTS, _CHUNKS):
        mine, other = rows_of(one, query), rows_of(two, query)
        for left, right in zip(mine, other, strict=False):
            assert left == right
        assert len(mine) == len(other)
    for query in queries:
        for mode in ("vector", "lexical", "hybrid"):
            mine, others = _answers(one, query, mode), _answers(two, query, mode)
            assert mine == pytest.approx(others, rel=1e-4, abs=1e-5), mode


def assert_chunks_whole(kb: KnowledgeBase) -> None:
    """Every live text has its chunks, all of them, each where it says it stands."""
    chunks: dict[int, list[tuple[Any, ...]]] = {}
    for revision_id, *chunk in rows_of(kb, _LIVE_CHUNKS):
        chunks.setdefault(revision_id, []).append(tuple(chunk))
    for revision_id, path, text in rows_of(kb, _LIVE_REVISIONS):
        content = text.encode()
        mine = chunks.get(revision_id, [])
        assert [ordinal for ordinal, *_ in mine] == list(range(len(mine))), path
        for ordinal, start, end, chunk_text in mine:
            assert content[start:end].decode() == chunk_text, f"chunk {ordinal} of {path}"
        starts = [start for _, start, _, _ in mine] + [len(content)]
        before = 0
        for (_, _, end, _), start in zip([(0, 0, 0, ""), *mine], starts, strict=True):
            before = max(before, end)
            gap = content[before : max(before, start)]
            assert not gap.strip(), f"{path} has text that is in no chunk"


def assert_words_true(kb: KnowledgeBase) -> None:
    """What BM25 counts is what readers see: no chunk more, none less, each with its terms.

    Postings of what is gone may be left, but of nothing else.
    """
    for source in kb.settings.sources:
        live = live_chunks(kb, [source.name])
        for source_id, language, *totals in rows_of(kb, _WORDS, source.name):
            if language is None:
                assert not live, f"the words of {source.name} were never analysed"
                continue
            assert language == language_of(kb, source.name)
            *counted, next_ordinal = totals
            assert counted == [len(live), sum(chunk.length for chunk in live)], source.name
            owners = _owners(kb, source_id, next_ordinal, live)
            found: dict[tuple[int, int], dict[str, tuple[int, int]]] = {}
            for ordinal, term, count, length in _postings(kb, source_id):
                assert ordinal in owners, f"{term!r} is said to be in a chunk that never was"
                place = owners[ordinal]
                if place is not None:
                    terms = found.setdefault(place, {})
                    assert term not in terms, f"{term!r} is counted twice"
                    terms[term] = (count, length)
            assert found == {
                (chunk.revision_id, chunk.ordinal): {
                    term: (min(count, MOST_COUNTED), min(chunk.length, LONGEST))
                    for term, count in chunk.terms.items()
                }
                for chunk in live
                if chunk.terms
            }


def assert_sound(kb: KnowledgeBase, embed: Embed) -> None:
    """All of the above that one knowledge base can be asked."""
    assert_accounted(kb)
    assert_chunks_whole(kb)
    assert_vectors_true(kb, embed)
    assert_words_true(kb)


def vectors_of(kb: KnowledgeBase, space: Space) -> dict[bytes, numpy.ndarray]:
    """Return every vector of a space by its text's hash."""
    schema, table = space.table
    query = f"select input_hash, vector from {schema}.{table}"
    return {hash_: vector.to_numpy() for hash_, vector in rows_of(kb, query)}


def live_vectors(kb: KnowledgeBase) -> dict[bytes, numpy.ndarray]:
    """Return every vector of the space that answers."""
    (space,) = (space for space in list_spaces(kb.database) if space.state == "live")
    return vectors_of(kb, space)


def repeated(texts: Sequence[str]) -> int:
    """Return how many of the texts were sent again."""
    return len(texts) - len(set(texts))


def _found(kb: KnowledgeBase, source: SourceSettings) -> dict[str, bytes | None]:
    """Return the hash of every document of a folder; None for what cannot be read."""
    listed = open_source(source, kb.settings.root).entries()
    return {entry.path: _hash(kb, source, entry.path, entry.sidecar) for entry in listed}


def _hash(kb: KnowledgeBase, source: SourceSettings, path: str, sidecar: str | None) -> Any:
    root = kb.settings.root / Path(source.uri)
    if not (root / path).is_file():
        return None
    try:
        beside = None if sidecar is None else (root / sidecar).read_bytes()
        return content_hash((root / path).read_bytes(), beside)
    except OSError:
        return None


def _refused(kb: KnowledgeBase, space: Space) -> set[bytes]:
    query = "select content_hash, reason, detail from kb.quarantine where space_id = %s"
    refused = rows_of(kb, query, space.id)
    assert all(reason and detail for _, reason, detail in refused)
    return {hash_ for hash_, _, _ in refused}


def _owners(
    kb: KnowledgeBase, source_id: int, next_ordinal: int, live: Sequence[LiveChunk]
) -> dict[int, tuple[int, int] | None]:
    """Return the chunk that each ordinal of a source stands for; None for one that is gone."""
    owners: dict[int, tuple[int, int] | None] = {}
    counted: dict[int, tuple[int, int]] = {}
    for first, chunks, tokens, revision_id, is_dead in rows_of(kb, _WORDS_OF_DOCUMENTS, source_id):
        for ordinal in range(chunks):
            assert first + ordinal not in owners, "two revisions share an ordinal"
            owners[first + ordinal] = None if is_dead else (revision_id, ordinal)
        if not is_dead:
            counted[revision_id] = (chunks, tokens)
    assert all(ordinal < next_ordinal for ordinal in owners)
    expected: dict[int, tuple[int, int]] = {}
    for chunk in live:
        chunks, tokens = expected.get(chunk.revision_id, (0, 0))
        expected[chunk.revision_id] = (chunks + 1, tokens + chunk.length)
    assert counted == expected
    return owners


def _postings(kb: KnowledgeBase, source_id: int) -> Iterator[tuple[int, str, int, int]]:
    """Return ordinal, term, count and length of every posting."""
    for term, block, ordinals, counts, lengths in rows_of(kb, _POSTINGS, source_id):
        columns = zip(
            numpy.frombuffer(ordinals, "<u2").tolist(),
            numpy.frombuffer(counts, "u1").tolist(),
            numpy.frombuffer(lengths, "<u2").tolist(),
            strict=True,
        )
        for ordinal, count, length in columns:
            yield block * 65_536 + ordinal, term, count, length


def _answers(kb: KnowledgeBase, query: str, mode: Any) -> dict[tuple[Any, ...], float]:
    """Return the score of each chunk that a query finds."""
    hits = kb.search(query, limit=1000, mode=mode, merge=False)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    found = {(hit.source, hit.path, hit.ordinal, hit.text): hit.score for hit in hits}
    assert len(found) == len(hits)
    return found
