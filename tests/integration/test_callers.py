"""Searching as a caller: nothing foreign is ever found, and no less than what is theirs."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Composable

from kb_assets.errors import SettingsError
from kb_assets.index.vectors import index_name
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.query import Caller
from kb_assets.retrieval.search import index_state
from kb_assets.settings import Settings
from tests.faults import corpus
from tests.servers.chat_server import ChatServer

TENANTS = ("alpha", "beta", "gamma")
TAGS = ("red", "green", "blue", "api")
DOCUMENTS = 50
QUERIES = 300

CALLERS = [
    Caller(("alpha",)),
    Caller(("beta", "gamma")),
    Caller((), ("red",)),
    Caller(("alpha", "gamma"), ("green", "blue")),
    Caller(("beta",), ("api",)),
    Caller((), ("nobody has this",)),
    Caller(TENANTS),
]

FILTERS: list[dict[str, Any]] = [
    {},
    {"sources": ("beta",)},
    {"sources": ("alpha", "beta")},
    {"tags": ("red",)},
    {"path_prefix": "deep/"},
    {"metadata": {"year": 2024}},
    {"where": 'tags has "green" or metadata.year >= 2025'},
    {"where": 'not tags has "green"'},
    {"where": 'source in ("alpha", "beta", "gamma") or path != ""'},
]


def documents(tenant: str) -> Iterator[tuple[str, str]]:
    """Every tenant's documents: most of their texts are those of the others, too."""
    for number in range(DOCUMENTS):
        rng = random.Random(f"{tenant}/{number}")
        tags = [tag for tag in TAGS if rng.random() < 0.25]
        parts = [
            corpus.paragraph("shared", number, 0),
            corpus.paragraph("shared", number % 10, 1),
            corpus.paragraph(*([tenant] if number % 3 == 0 else []), number, 2),
        ]
        head = f"---\ntags: {tags}\nyear: {2020 + number % 7}\n---\n"
        path = f"{'deep/' * (number % 4 == 0)}{number}.md"
        yield path, head + corpus.document(*parts)


@pytest.fixture
def sources(tmp_path: Path) -> list[dict[str, str]]:
    return [{"name": name, "uri": str(tmp_path / name)} for name in TENANTS]


@pytest.fixture
def kb(
    make_settings: Callable[..., Settings], sources: list[dict[str, str]], tmp_path: Path
) -> Iterator[KnowledgeBase]:
    for tenant in TENANTS:
        for path, text in documents(tenant):
            file = tmp_path / tenant / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    with KnowledgeBase(make_settings(sources=sources, splitting=corpus.SPLITTING)) as opened:
        opened.index()
        yield opened


def may_see(caller: Caller, source: str, tags: tuple[str, ...]) -> bool:
    return (not caller.sources or source in caller.sources) and (
        not caller.tags or bool({*caller.tags} & {*tags})
    )


def assert_theirs(kb: KnowledgeBase, query: str, caller: Caller, **chosen: Any) -> int:
    """A caller's hits are those a reader has who filters by what the caller may see."""
    found = kb.search(query, caller=caller, **chosen)
    for hit in found:
        assert may_see(caller, hit.source, hit.tags), (query, caller, chosen)
    # Everything that matches at all, as a reader: what is not theirs is taken out here.
    among = {key: value for key, value in chosen.items() if key not in ("limit", "mode")}
    if not among.get("sources"):
        among["sources"] = caller.sources
    else:
        named = [one for one in among["sources"] if not caller.sources or one in caller.sources]
        among["sources"] = tuple(named)
        if not named:
            assert not found.hits
            return 0
    everything = kb.search(query, limit=1000, mode=chosen["mode"], **among)
    theirs = [hit for hit in everything if may_see(caller, hit.source, hit.tags)]
    assert len(found) == min(chosen["limit"], len(theirs)), (query, caller, chosen)
    scores = {(hit.source, hit.path, hit.ordinal): hit.score for hit in theirs}
    for hit in found:
        assert hit.score == pytest.approx(scores[hit.source, hit.path, hit.ordinal], abs=1e-4)
    if chosen["mode"] == "lexical":
        best = [hit.score for hit in theirs[: len(found)]]
        assert [hit.score for hit in found] == pytest.approx(best, abs=1e-4)
    return len(found)


def test_no_query_finds_what_is_not_the_callers(kb: KnowledgeBase) -> None:
    rng = random.Random(3)
    texts = [text for tenant in TENANTS for _, text in documents(tenant)]
    found = 0
    for number in range(QUERIES):
        words = rng.choice(texts).split("\n---\n")[1].split()
        query = " ".join(rng.sample(words, k=rng.randint(1, 8)))
        found += assert_theirs(
            kb,
            query,
            rng.choice(CALLERS),
            mode=("hybrid", "vector", "lexical")[number % 3],
            limit=rng.choice([1, 3, 10, 40, 500]),
            merge=False,
            **rng.choice(FILTERS),
        )
    assert found > 10 * QUERIES


def test_all_of_the_callers_is_found_where_nothing_else_narrows(kb: KnowledgeBase) -> None:
    chunks = kb.search("ba ke lo", mode="vector", limit=1000, merge=False)
    assert len(chunks) == 3 * 3 * DOCUMENTS
    for caller in CALLERS:
        theirs = {
            (hit.source, hit.path, hit.ordinal)
            for hit in chunks
            if may_see(caller, hit.source, hit.tags)
        }
        for limit in (1, 30, 31, 100, 1000):
            hits = kb.search(
                "ba ke lo", mode="vector", limit=limit, merge=False, caller=caller
            ).hits
            assert len(hits) == min(limit, len(theirs)), (caller, limit)
            assert {(hit.source, hit.path, hit.ordinal) for hit in hits} <= theirs
        passages = kb.search("ba ke lo", limit=1000, caller=caller).hits
        assert all(may_see(caller, hit.source, hit.tags) for hit in passages)
        assert bool(passages) == bool(theirs)


def test_passages_that_are_merged_reach_into_no_other_document(kb: KnowledgeBase) -> None:
    for caller in CALLERS[:5]:
        for hit in kb.search("shared ba ke lo mi", limit=100, caller=caller, per_document=1):
            assert may_see(caller, hit.source, hit.tags)
            (row,) = _rows(
                kb,
                "select r.text from kb.document_revision r join kb.document d"
                " on d.live_revision_id = r.id join kb.source s on s.id = d.source_id"
                " where s.name = %s and d.path = %s",
                hit.source,
                hit.path,
            )
            assert row[0].encode()[hit.byte_start : hit.byte_end].decode() == hit.text


def test_a_caller_of_nothing_known_finds_nothing(kb: KnowledgeBase, tmp_path: Path) -> None:
    for tags in (("nobody has this",), ("*",), ("",), ("{}",), ("{red}",), ("red,green",)):
        for mode in ("hybrid", "vector", "lexical"):
            assert not kb.search("shared ba ke", mode=mode, caller=Caller((), tags)).hits
    with pytest.raises(SettingsError):
        kb.search("shared", caller=Caller(("nowhere",)))


def test_a_source_that_was_never_indexed_shows_nothing(
    kb: KnowledgeBase,
    make_settings: Callable[..., Settings],
    sources: list[dict[str, str]],
    tmp_path: Path,
) -> None:
    (tmp_path / "new").mkdir()
    more = [*sources, {"name": "new", "uri": str(tmp_path / "new")}]
    with KnowledgeBase(make_settings(sources=more)) as other:
        for mode in ("hybrid", "vector", "lexical"):
            assert not other.search("shared ba ke", mode=mode, caller=Caller(("new",))).hits


def test_tags_of_a_caller_are_those_of_documents_however_they_are_written(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    (folder / "a.md").write_text("---\ntags: [M\u00fcnchen]\n---\nAll about owls.\n")
    knowledge_base.index()
    for tag in ("M\u00fcnchen", "Mu\u0308nchen", " M\u00fcnchen ", "M\u00fcnchen\x00"):
        assert len(knowledge_base.search("owls", caller=Caller((), (tag,)))) == 1
    assert not knowledge_base.search("owls", caller=Caller((), ("\x00", "\ud800"))).hits


def test_a_retagged_document_is_seen_by_others_from_its_publish_on(
    knowledge_base: KnowledgeBase, folder: Path
) -> None:
    red, green = Caller((), ("red",)), Caller((), ("green",))
    for tag, seen in (("red", (1, 0)), ("green", (0, 1))):
        (folder / "a.md").write_text(f"---\ntags: [{tag}]\n---\nAll about owls.\n")
        knowledge_base.index()
        for mode in ("hybrid", "vector", "lexical"):
            found = [len(knowledge_base.search("owls", mode=mode, caller=c)) for c in (red, green)]
            assert tuple(found) == seen


def test_no_foreign_passage_is_shown_to_the_chat_model(
    kb: KnowledgeBase,
    make_settings: Callable[..., Settings],
    sources: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with ChatServer() as server:
        answer = {"base_url": server.base_url, "min_score": 0}
        with KnowledgeBase(make_settings(sources=sources, answer=answer)) as asking:
            for caller in CALLERS:
                reply = asking.ask("shared ba ke lo", caller=caller)
                list(reply)
                assert all(may_see(caller, hit.source, hit.tags) for hit in reply.hits)
        sighted = [caller for caller in CALLERS if "nobody has this" not in caller.tags]
        for (_, user), caller in zip(server.prompts, sighted, strict=True):
            for tenant in TENANTS:
                assert (f"{tenant}:" in user) <= (not caller.sources or tenant in caller.sources)


Statement = tuple[Any, Any]


@dataclass
class Recorder:
    """What is asked of the database."""

    statements: list[Statement]

    def plans(self, connection: psycopg.Connection[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each statement and its plan, in a transaction that is set up as it was."""
        for query, parameters in self.statements:
            text = query.as_string(connection) if isinstance(query, Composable) else query
            if "set_config" in text:
                connection.execute(query, parameters)
            elif isinstance(query, Composable):
                explain = SQL("explain (format json) ") + query
                ((plan,),) = connection.execute(explain, parameters).fetchall()
                yield text, plan[0]["Plan"]


def nodes_of(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder([])
    original = psycopg.Connection.execute

    def execute(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
        made.statements.append((query, params))
        return original(self, query, params, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    return made


def test_the_vector_index_is_asked_and_no_table_is_read_through(
    make_settings: Callable[..., Settings],
    sources: list[dict[str, str]],
    tmp_path: Path,
    recorder: Recorder,
) -> None:
    for number in range(1250):
        file = tmp_path / TENANTS[number % 3] / f"{number}.md"
        file.parent.mkdir(exist_ok=True)
        tag = "rare" if number % 100 == 0 else TAGS[number % 2]
        parts = (corpus.paragraph(number, part) for part in range(4))
        file.write_text(f"---\ntags: [{tag}]\n---\n{corpus.document(*parts)}")
    with KnowledgeBase(make_settings(sources=sources, splitting=corpus.SPLITTING)) as kb:
        kb.index()
        with kb.database.session() as connection:
            connection.execute("analyze")
        space = index_state(kb.reader).space
        assert space is not None
        for caller, filters, asks_index in (
            (None, {}, True),
            (None, {"sources": ("alpha",)}, True),
            (None, {"tags": ("red",)}, True),
            (None, {"tags": ("rare",), "sources": ("alpha",)}, False),
            (Caller(("alpha",)), {}, True),
            (Caller(("alpha", "beta")), {"path_prefix": "1"}, True),
            (Caller((), ("red",)), {}, True),
            (Caller(("alpha",), ("rare",)), {}, False),
        ):
            del recorder.statements[:]
            assert len(kb.search("ba ke lo mi", caller=caller, merge=False, **filters)) == 10
            asked = list(recorder.statements)
            database = kb.reader if caller is None else kb.callers
            with database.transaction() as connection:
                (role,) = connection.execute("select current_user").fetchone() or ("",)
                assert role == ("kb_reader" if caller is None else "kb_caller")
                indexes = set()
                for statement, plan in Recorder(asked).plans(connection):
                    for node in nodes_of(plan):
                        indexes.add(node.get("Index Name"))
                        reads_all = node["Node Type"].endswith("Seq Scan")
                        large = node.get("Relation Name") in ("chunk", space.table[1])
                        large |= node.get("Relation Name") == "document" and "<=>" in statement
                        assert not (reads_all and large), f"{caller} {filters}: {statement}"
            assert (index_name(space) in indexes) == asks_index, (caller, filters)


def _rows(kb: KnowledgeBase, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with kb.database.transaction() as connection:
        return connection.execute(query, parameters).fetchall()
