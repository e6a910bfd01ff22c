"""Words of what readers see, counted exactly after any sequence of changes."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import bm25s
import numpy
import psycopg
import pytest
from psycopg.pq import TransactionStatus

from kb_assets.errors import DatabaseUnavailableError
from kb_assets.index import lexical, merge, publish
from kb_assets.index.merge import merge_postings
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.lexical import top_positions
from kb_assets.retrieval.search import POOL
from kb_assets.settings import Settings
from kb_assets.settings.retrieval import Language
from tests import bm25
from tests.oracle import assert_words_true, rows_of

WORDS = {
    "english": "restore restores restored backup backups the of and to index indexes query "
    "queries running run max_retry_count KafkaConsumer --dry-run app.settings TS-4290 zebra "
    "server servers is not be or don't Ann's haus gift",
    "german": "Wiederherstellung Sicherung Sicherungen der die das und nicht Häuser Haus "
    "Abfrage Abfragen läuft max_retry_count KafkaConsumer gift Straße über server Servern zebra",
}
QUERIES = [
    "restoring a backup",
    "haus gift server",
    "KafkaConsumer max_retry_count --dry-run",
    "query query query zebra",
    "die Häuser und Sicherungen",
    "ts-4290 settings",
    "to be or not to be",
    "nothingness",
]
SPLITTING = {"strategy": "markdown", "size": 30, "overlap": 0}
STEPS = 40
DOCUMENTS = 60
HAPPENED = ("found", "dead", "not merged", "merged with one another", "merged with all")
STATES = "select generation, merged_generation, base_generation from kb.lexical_source"


def text(rng: random.Random, language: str) -> str:
    """Return a document of a few chunks, some of them with a heading, some common words."""
    words = WORDS[language].split()
    weights = [1 / (place + 1) for place in range(len(words))]
    rng.shuffle(words)
    parts = [
        "# " * (rng.random() < 0.2) + " ".join(rng.choices(words, weights, k=rng.randint(1, 25)))
        for _ in range(rng.randint(1, 4))
    ]
    return "\n\n".join(parts) + "\n"


def assert_exact(kb: KnowledgeBase, *queries: str, sources: tuple[str, ...] = ()) -> int:
    """Every chunk's score is what the formula gives; return how many were found."""
    chunks = bm25.live_chunks(kb, sources)
    total = 0
    for query in queries:
        results = kb.search(query, mode="lexical", limit=1000, merge=False, sources=sources)
        found = {(hit.source, hit.path, hit.ordinal): hit for hit in results}
        expected = bm25.scores(kb, query, chunks)
        assert len(found) == len(results)
        assert found.keys() == expected.keys(), query
        for place, scored in expected.items():
            assert found[place].lexical_score == pytest.approx(scored.bm25, rel=1e-4)
            assert found[place].score == pytest.approx(scored.share, rel=1e-4)
            assert found[place].vector_score is None
        shares = sorted((scored.share for scored in expected.values()), reverse=True)
        assert [hit.score for hit in results] == pytest.approx(shares, rel=1e-4)
        for limit in (1, 5, 20):
            best = kb.search(query, mode="lexical", limit=limit, merge=False, sources=sources)
            assert [hit.score for hit in best] == pytest.approx(shares[:limit], rel=1e-4)
        total += len(found)
    return total


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    made = {"english": tmp_path / "english", "german": tmp_path / "german"}
    for folder in made.values():
        folder.mkdir()
    return made


@pytest.fixture
def open_kb(
    make_settings: Callable[..., Settings], folders: dict[str, Path]
) -> Iterator[Callable[..., KnowledgeBase]]:
    """Open knowledge bases over both folders; languages and splitting can be changed."""
    opened: list[KnowledgeBase] = []

    def make(*, german: str = "german", **overrides: Any) -> KnowledgeBase:
        languages = {"english": "", "german": german}
        sources = [
            {"name": name, "uri": str(folder), "language": languages[name]}
            for name, folder in folders.items()
        ]
        limits = {"max_deleted_share": 1.0}
        made = make_settings(
            sources=sources, limits=limits, **({"splitting": SPLITTING} | overrides)
        )
        opened.append(KnowledgeBase(made))
        return opened[-1]

    yield make
    for kb in opened:
        kb.close()


class Changes:
    """Changes the folders at random, by a seed."""

    def __init__(self, folders: dict[str, Path], seed: int) -> None:
        self._rng = random.Random(seed)
        self._folders = folders
        self._number = 0

    def fill(self, documents: int) -> None:
        for _ in range(documents):
            self.add()

    def make(self) -> None:
        for _ in range(self._rng.randint(1, 6)):
            self._rng.choice([self.add, self.edit, self.edit, self.delete, self.rename])()
        if self._rng.random() < 0.1:
            for _ in range(DOCUMENTS // 3):
                self.delete()

    def add(self) -> None:
        language = self._rng.choice([*self._folders])
        self._number += 1
        path = self._folders[language] / f"{self._number}.md"
        path.write_text(text(self._rng, language))

    def edit(self) -> None:
        if path := self._any():
            # The same text twice, or that of another document, or none.
            other = self._any() or path
            content = text(self._rng, path.parent.name)
            path.write_text(self._rng.choice([content, content, other.read_text(), "\n"]))

    def delete(self) -> None:
        if path := self._any():
            path.unlink()

    def rename(self) -> None:
        if path := self._any():
            self._number += 1
            folder = self._folders[self._rng.choice([*self._folders])]
            path.rename(folder / f"{self._number}.md")

    def _any(self) -> Path | None:
        paths = [path for folder in self._folders.values() for path in sorted(folder.iterdir())]
        return self._rng.choice(paths) if paths else None


def test_scores_are_exact_after_any_sequence_of_changes(
    open_kb: Callable[..., KnowledgeBase],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merge, "MOST_GENERATIONS", 2)
    monkeypatch.setattr(merge, "LARGEST_TAIL", 0.6)
    monkeypatch.setattr(merge, "MOST_DEAD", 0.5)
    monkeypatch.setattr(publish, "MAX_DOCUMENTS", 7)
    changes = Changes(folders, seed=4290)
    changes.fill(DOCUMENTS)
    kb = open_kb()
    seen: Counter[str] = Counter()
    for step in range(STEPS):
        if step:
            changes.make()
        if step == 12:
            kb = open_kb(german="dutch")
        elif step == 20:
            kb = open_kb(splitting=SPLITTING | {"size": 15}, search={"language": "simple"})
        elif step == 28:
            kb = open_kb()
        kb.index()
        assert_words_true(kb)
        seen["found"] += assert_exact(kb, *QUERIES[step % 3 :: 3])
        for generation, merged, base in rows_of(kb, STATES):
            seen["not merged"] += generation > merged
            seen["merged with one another"] += merged > base
            seen["merged with all"] += generation == base
        dead = rows_of(kb, "select count(*) from kb.lexical_document where is_dead")
        seen["dead"] += dead[0][0]
    assert min(seen[what] for what in HAPPENED) > 5, seen
    for source in folders:
        assert assert_exact(kb, *QUERIES, sources=(source,))


def test_a_source_of_which_nothing_is_left(
    open_kb: Callable[..., KnowledgeBase], folders: dict[str, Path]
) -> None:
    changes = Changes(folders, seed=1)
    changes.fill(12)
    kb = open_kb()
    kb.index()
    for path in folders["german"].iterdir():
        path.unlink()
    kb.index()
    assert_words_true(kb)
    assert assert_exact(kb, *QUERIES)
    for path in folders["english"].iterdir():
        path.unlink()
    kb.index()
    assert_words_true(kb)
    assert assert_exact(kb, *QUERIES) == 0
    (folders["german"] / "new.md").write_text("Die Sicherung der Häuser.\n")
    kb.index()
    assert_words_true(kb)
    assert assert_exact(kb, *QUERIES) == 2


def test_the_ranking_is_that_of_bm25s(
    open_kb: Callable[..., KnowledgeBase], folders: dict[str, Path]
) -> None:
    changes = Changes(folders, seed=7)
    changes.fill(150)
    kb = open_kb()
    kb.index()
    chunks = bm25.live_chunks(kb, ("english",))
    reference = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    reference.index([[*chunk.terms.elements()] for chunk in chunks], show_progress=False)
    for query in ("restore backups", "query query index", "KafkaConsumer --dry-run", "zebra"):
        with kb.database.transaction() as connection:
            asked = [*bm25.terms_in(connection, "english", query).elements()]
        _, scores = reference.retrieve([asked], k=10, show_progress=False)
        all_scores = reference.get_scores(asked)
        hits = kb.search(query, mode="lexical", merge=False, sources=("english",))
        assert [hit.lexical_score for hit in hits] == pytest.approx(scores[0].tolist(), rel=1e-4)
        by_place = dict(zip((one.place for one in chunks), all_scores.tolist(), strict=True))
        for hit in hits:
            assert hit.lexical_score == pytest.approx(
                by_place[hit.source, hit.path, hit.ordinal], rel=1e-4
            )


EXAMPLES: dict[str, tuple[str, str]] = {
    "simple": ("The backups", "backups"),
    "arabic": ("الكتاب جديد", "كتاب"),
    "armenian": ("մեծ գիրք", "Գիրք"),
    "basque": ("etxeak eta liburuak", "Etxeak"),
    "catalan": ("els llibres nous", "llibres"),
    "danish": ("bøgerne i huset", "huse"),
    "dutch": ("de boeken op tafel", "boek"),
    "english": ("restoring the backups", "restored backup"),
    "finnish": ("kirjat ja talot", "kirja"),
    "french": ("les sauvegardes des maisons", "sauvegarde maison"),
    "german": ("die Sicherungen der Häuser", "Sicherung Haus"),
    "greek": ("τα βιβλία", "Βιβλία"),
    "hindi": ("किताबें नई हैं", "किताब"),
    "hungarian": ("a könyvek és a házak", "könyv"),
    "indonesian": ("bukunya ada di rumah", "buku"),
    "irish": ("na leabhair nua", "leabhair"),
    "italian": ("i libri delle case", "libro"),
    "lithuanian": ("knygos ir namai", "knyga"),
    "nepali": ("किताबहरू नयाँ छन्", "किताब"),
    "norwegian": ("bøkene i husene", "huset"),
    "portuguese": ("os livros das casas", "livro"),
    "romanian": ("cărțile din case", "casele"),
    "russian": ("резервные копии серверов", "резервная копия сервер"),
    "serbian": ("књиге и куће", "књига"),
    "spanish": ("los libros de las casas", "libro"),
    "swedish": ("böckerna i husen", "hus"),
    "tamil": ("புத்தகங்கள் இங்கே", "புத்தகம்"),
    "turkish": ("kitaplar ve evler", "kitap"),
    "yiddish": ("ביכער אין הײַזער", "ביכער"),
}
"""A text of each language, and a question, in other forms of its words where its stemmer copes."""


def test_every_language_finds_other_forms_of_a_word(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    assert EXAMPLES.keys() == set(get_args(Language))
    sources = []
    for language, (stored, _) in EXAMPLES.items():
        (tmp_path / language).mkdir()
        (tmp_path / language / "a.md").write_text(f"{stored}\n")
        sources.append({"name": language, "uri": str(tmp_path / language), "language": language})
    with KnowledgeBase(make_settings(sources=sources)) as kb:
        kb.index()
        assert_words_true(kb)
        for language, (_, asked) in EXAMPLES.items():
            assert assert_exact(kb, asked, sources=(language,)) == 1, language
        assert len(bm25.live_chunks(kb)) == len(EXAMPLES)


def test_stop_words_alone_find_nothing_by_words_and_something_by_meaning(
    open_kb: Callable[..., KnowledgeBase], folders: dict[str, Path]
) -> None:
    (folders["english"] / "a.md").write_text("To be or not to be, that is the question.\n")
    kb = open_kb(search={"vector_weight": 0.5})
    kb.index()
    query = "to be or not to be"
    assert kb.search(query, mode="lexical").hits == ()
    (hit,) = kb.search(query)
    assert hit.lexical_score == 0
    assert hit.score == pytest.approx(0.5 * (hit.vector_score or 0))
    assert kb.search(query, mode="vector")[0].lexical_score is None


def test_the_best_is_the_best_in_whatever_language(
    open_kb: Callable[..., KnowledgeBase], folders: dict[str, Path]
) -> None:
    """`die` is a word to English, and nothing to German: there, the rest says more."""
    for number in range(2 * POOL):
        (folders["english"] / f"{number}.md").write_text("zebra zebra zebra\n")
    (folders["german"] / "a.md").write_text("Das Zebra sieht\n")
    kb = open_kb()
    kb.index()
    (hit,) = kb.search("die zebra", mode="lexical", limit=1)
    everything = kb.search("die zebra", mode="lexical", limit=1000)
    assert len(everything) > 2 * POOL
    assert hit == everything[0]
    assert hit.source == "german"
    assert (hit.lexical_score or 0) < (everything[1].lexical_score or 0)
    assert_exact(kb, "die zebra")


def test_a_word_asked_twice_counts_twice(
    open_kb: Callable[..., KnowledgeBase], folders: dict[str, Path]
) -> None:
    (folders["english"] / "a.md").write_text("A zebra.\n")
    (folders["english"] / "b.md").write_text("A server.\n")
    kb = open_kb()
    kb.index()
    once, twice = kb.search("zebra", mode="lexical")[0], kb.search("zebra zebra", mode="lexical")[0]
    assert twice.lexical_score == pytest.approx(2 * (once.lexical_score or 0))
    assert twice.score == pytest.approx(once.score)
    first, second = kb.search("zebra zebra server", mode="lexical")
    assert (first.path, second.path) == ("a.md", "b.md")


def test_a_word_five_hundred_times_is_counted_as_far_as_a_byte_goes(
    open_kb: Callable[..., KnowledgeBase], folders: dict[str, Path]
) -> None:
    (folders["english"] / "a.md").write_text("zebra " * 500 + "\n")
    (folders["english"] / "b.md").write_text("zebra server\n")
    kb = open_kb(splitting={"strategy": "fixed", "size": 8000, "overlap": 0})
    kb.index()
    assert len(bm25.live_chunks(kb)) == 2
    assert_words_true(kb)
    assert assert_exact(kb, "zebra", "server zebra") == 4


def test_what_was_never_analysed_is_said_and_mended_by_the_next_run(
    open_kb: Callable[..., KnowledgeBase], folders: dict[str, Path]
) -> None:
    Changes(folders, seed=3).fill(12)
    kb = open_kb()
    kb.index()
    before = {
        (hit.path, hit.ordinal): hit.vector_score
        for hit in kb.search("server", limit=1000, merge=False)
    }
    assert not kb.search("server").notes
    with kb.database.transaction() as connection:
        connection.execute("delete from kb.lexical_source")
    results = kb.search("server", limit=1000, merge=False)
    assert {(hit.path, hit.ordinal): hit.vector_score for hit in results} == before
    (note,) = results.notes
    assert "kb index" in note
    words = kb.search("server", mode="lexical")
    assert words.hits == ()
    assert "kb index" in words.notes[0]
    assert not kb.search("server", mode="vector").notes
    kb.index()
    assert_words_true(kb)
    assert assert_exact(kb, *QUERIES)
    assert not kb.search("server").notes


def test_half_of_the_sources_analysed(
    open_kb: Callable[..., KnowledgeBase], folders: dict[str, Path]
) -> None:
    Changes(folders, seed=3).fill(20)
    kb = open_kb()
    kb.index()
    with kb.database.transaction() as connection:
        connection.execute("delete from kb.lexical_source where language = 'german'")
    results = kb.search("server zebra", limit=1000, merge=False)
    assert {hit.source for hit in results} == {"english", "german"}
    assert len(results) == len(bm25.live_chunks(kb))
    assert {hit.lexical_score for hit in results if hit.source == "german"} == {0.0}
    assert results.notes
    assert assert_exact(kb, *QUERIES, sources=("english",))


def test_a_source_analysed_otherwise_while_a_run_publishes_is_not_mixed(
    open_kb: Callable[..., KnowledgeBase],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another run, with another language, may come between analysing and publishing."""
    changes = Changes(folders, seed=5)
    changes.fill(12)
    kb, other = open_kb(), open_kb(german="dutch")
    kb.index()
    analyse = lexical.analyse

    def analysed_meanwhile(run: Any, language: str, groups: Any, *, few: bool) -> Any:
        for found in analyse(run, language, groups, few=few):
            if language == "german":
                with other.database.transaction() as rival:
                    publish.lock_publishing(rival)
                    row = rival.execute("select id from kb.source where name = 'german'").fetchone()
                    assert row is not None
                    lexical.rebuild_source(rival, row[0], "dutch")
            yield found

    monkeypatch.setattr(lexical, "analyse", analysed_meanwhile)
    changes.fill(12)
    kb.index()
    assert_words_true(kb)


def test_readers_are_not_disturbed_by_a_merge(
    open_kb: Callable[..., KnowledgeBase],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = Changes(folders, seed=11)
    changes.fill(20)
    kb = open_kb()
    monkeypatch.setattr("kb_assets.knowledge_base.indexing.merge_postings", lambda database: 0)
    for _ in range(6):
        kb.index()
        changes.make()
    kb.index()
    query = "select source_id, term, block, generation, ordinals from kb.lexical_posting order by 1"
    with psycopg.connect(kb.urls.reader) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        before = reader.execute(query).fetchall()
        assert merge_postings(kb.database) == 2
        assert sorted(reader.execute(query)) == sorted(before)
        reader.rollback()
        after = reader.execute(query).fetchall()
        assert len(after) < len(before)
    terms = Counter((source, term, block) for source, term, block, *_ in after)
    assert set(terms.values()) == {1}
    assert merge_postings(kb.database) == 0
    assert_words_true(kb)
    assert assert_exact(kb, *QUERIES)


@pytest.mark.parametrize("statement", ["copy_documents", "copy_postings"])
def test_a_merge_that_is_cut_short_leaves_everything_as_it_was(
    open_kb: Callable[..., KnowledgeBase],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
) -> None:
    changes = Changes(folders, seed=13)
    changes.fill(20)
    kb = open_kb()
    monkeypatch.setattr(merge, "MOST_DEAD", 0.0)
    kb.index()
    for folder in folders.values():
        sorted(folder.iterdir())[0].unlink()
    monkeypatch.setattr("kb_assets.knowledge_base.indexing.merge_postings", lambda database: 0)
    kb.index()
    state = rows_of(kb, "select * from kb.lexical_source order by source_id")
    original = getattr(merge, statement)

    def killed(connection: psycopg.Connection[Any], *arguments: Any) -> None:
        original(connection, *arguments)
        assert connection.info.transaction_status == TransactionStatus.INTRANS
        query = "select pg_terminate_backend(%s)"
        with psycopg.connect(kb.urls.writer) as other:
            other.execute(query, (connection.info.backend_pid,))
        connection.execute("select 1")

    with monkeypatch.context() as patched:
        patched.setattr(merge, statement, killed)
        with pytest.raises(DatabaseUnavailableError, match="could not be reached"):
            merge_postings(kb.database)
    assert rows_of(kb, "select * from kb.lexical_source order by source_id") == state
    assert_words_true(kb)
    assert assert_exact(kb, *QUERIES)
    assert merge_postings(kb.database)
    assert_words_true(kb)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 5000, 100_000])
@pytest.mark.parametrize("count", [1, 10, 300, 200_000])
def test_the_best_positions_are_those_that_sorting_gives(size: int, count: int) -> None:
    rng = numpy.random.default_rng(size + count)
    for share in (0.0, 0.001, 0.5, 1.0):
        scores = rng.random(size, dtype=numpy.float32) * (rng.random(size) < share)
        # Many are equal, as scores of short texts are.
        scores = (numpy.round(scores, 2)).astype(numpy.float32)
        expected = numpy.argsort(-scores, kind="stable")
        expected = expected[scores[expected] > 0][:count]
        assert top_positions(scores, count).tolist() == expected.tolist()
