"""The query log: what is kept of searches, and that it is never in their way."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kb_assets.database.connect import Database, DatabaseUrls
from kb_assets.errors import DatabaseUnavailableError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval import log
from kb_assets.retrieval.hits import Hit, Results
from kb_assets.retrieval.log import QueryLog, forget_old_queries
from kb_assets.retrieval.query import Caller, Filters, Query
from kb_assets.settings import SearchSettings, Settings

A_HIT = Hit("wiki", "a.md", ("A",), 0, 9, 0.25, "some text", "A", ordinal=3, last_ordinal=4)
RESULTS = Results((A_HIT,), "hybrid", "hash-64", "hash", ("A note.",), {"total": 0.125}, 7)


def rows(database: Database, columns: str = "question") -> list[Any]:
    with database.transaction() as connection:
        found = connection.execute(f"select {columns} from kb.query_log order by id").fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.fixture
def query_log(database: Database) -> QueryLog:
    return QueryLog(lambda: database, SearchSettings())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries wait for others for longer than a test takes."""
    monkeypatch.setattr(log, "WAIT_SECONDS", 3600.0)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries hardly wait."""
    monkeypatch.setattr(log, "WAIT_SECONDS", 0.01)


class Unavailable:
    """A writer's database that is not there at first."""

    def __init__(self, database: Database, failures: int) -> None:
        self.asked = 0
        self._database = database
        self._failures = failures

    def __call__(self) -> Database:
        self.asked += 1
        if self.asked <= self._failures:
            raise DatabaseUnavailableError("The database could not be reached, or gave up.")
        return self._database


# What is written, and when.


@pytest.mark.usefixtures("patient")
def test_closing_writes_what_was_asked_and_found(query_log: QueryLog, database: Database) -> None:
    filters = Filters(("wiki",), tags=("api",), metadata={"year": 2026})
    query_log.add(Query("how?", filters=filters, caller=Caller(("wiki",), name="ann")), RESULTS)
    query_log.add(Query("who?"), Results((), "lexical"))
    assert rows(database) == []
    query_log.close()
    columns = "question, caller, mode, space, filters, seconds, hits, notes"
    hit = {"source": "wiki", "path": "a.md", "ordinal": 3, "last_ordinal": 4, "score": 0.25}
    named = {"sources": ["wiki"], "tags": ["api"], "metadata": {"year": 2026}}
    assert rows(database, columns) == [
        ("how?", "ann", "hybrid", "hash-64", named, {"total": 0.125}, [hit], ["A note."]),
        ("who?", None, "lexical", None, {}, {}, [], []),
    ]
    assert all(rows(database, "asked_at between now() - interval '1 minute' and now()"))


@pytest.mark.usefixtures("patient")
def test_a_hundred_are_written_at_once(query_log: QueryLog, database: Database) -> None:
    for number in range(100):
        query_log.add(Query(f"{number}"), RESULTS)
    until(lambda: len(rows(database)) == 100)
    assert rows(database) == [str(number) for number in range(100)]
    assert len(set(rows(database, "xmin::text"))) == 1
    query_log.add(Query("one more"), RESULTS)
    query_log.close()
    assert len(rows(database)) == 101


@pytest.mark.usefixtures("hasty")
def test_one_alone_is_written_after_a_while(query_log: QueryLog, database: Database) -> None:
    for question in ("first", "second"):
        query_log.add(Query(question), RESULTS)
        until(lambda question=question: question in rows(database))


def test_with_no_days_nothing_is_written_at_all() -> None:
    switched_off = QueryLog(lambda: pytest.fail("asked"), SearchSettings(log_days=0))
    for number in range(200):
        switched_off.add(Query(f"{number}"), RESULTS)
    switched_off.close()
    assert switched_off._thread is None
    assert switched_off._waiting == []


def test_threads_lose_nothing(query_log: QueryLog, database: Database) -> None:
    def ask(thread: int) -> None:
        for number in range(50):
            query_log.add(Query(f"{thread} {number}"), RESULTS)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    query_log.close()
    expected = {f"{thread} {number}" for thread in range(8) for number in range(50)}
    assert sorted(rows(database)) == sorted(expected)


def test_what_no_column_can_hold_is_written_all_the_same(
    query_log: QueryLog, database: Database
) -> None:
    hits = (Hit("s", "p", (), 0, 1, math.nan, "t", None),)
    results = Results(hits, "vector", notes=("said \x00 and \ud800",))
    query_log.add(Query("'; drop table kb.source; --\x00", caller=Caller(name="a\x00nn")), results)
    query_log.close()
    hit = {"source": "s", "path": "p", "ordinal": 0, "last_ordinal": 0, "score": None}
    assert rows(database, "question, caller, hits, notes") == [
        ("'; drop table kb.source; --", "ann", [hit], ["said  and ?"])
    ]


# What goes wrong.


@pytest.mark.usefixtures("hasty")
def test_entries_wait_for_a_database_that_is_not_there(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Unavailable(database, failures=3)
    query_log = QueryLog(writer, SearchSettings())
    for number in range(150):
        query_log.add(Query(f"{number}"), RESULTS)
    until(lambda: len(rows(database)) == 150)
    query_log.close()
    assert rows(database) == [str(number) for number in range(150)]
    assert query_log.dropped == 0
    assert caplog.text.count("The query log could not be written") == 3


@pytest.mark.usefixtures("patient")
def test_it_does_not_ask_a_missing_database_again_and_again(database: Database) -> None:
    writer = Unavailable(database, failures=1)
    query_log = QueryLog(writer, SearchSettings())
    for number in range(250):
        query_log.add(Query(f"{number}"), RESULTS)
    until(lambda: query_log._has_failed and len(query_log._waiting) == 250)
    assert writer.asked == 1
    query_log.close()
    assert len(rows(database)) == 250


def test_what_cannot_be_written_when_it_closes_is_dropped_and_counted(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    query_log = QueryLog(Unavailable(database, failures=99), SearchSettings())
    query_log.add(Query("lost"), RESULTS)
    query_log.close()
    assert query_log.dropped == 1
    assert "0 entries wait, 1 were dropped" in caplog.text
    assert query_log._thread is None


@pytest.mark.usefixtures("patient")
def test_more_than_it_holds_are_dropped_and_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MAX_WAITING", 120)
    query_log = QueryLog(Unavailable(database, failures=1), SearchSettings())
    for number in range(100):
        query_log.add(Query(f"{number}"), RESULTS)
    until(lambda: query_log._has_failed and len(query_log._waiting) == 100)
    for number in range(100, 200):
        query_log.add(Query(f"{number}"), RESULTS)
    assert query_log.dropped == 80
    query_log.close()
    assert rows(database) == [str(number) for number in range(120)]


@pytest.mark.usefixtures("patient")
def test_what_failed_goes_before_what_came_meanwhile_as_far_as_there_is_room(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MAX_WAITING", 120)
    asked, fail = threading.Event(), threading.Event()

    def failing_slowly() -> Database:
        if not asked.is_set():
            asked.set()
            fail.wait()
            raise DatabaseUnavailableError("The database could not be reached, or gave up.")
        return database

    query_log = QueryLog(failing_slowly, SearchSettings())
    for number in range(100):
        query_log.add(Query(f"{number}"), RESULTS)
    asked.wait()
    for number in range(100, 160):
        query_log.add(Query(f"{number}"), RESULTS)
    fail.set()
    until(lambda: query_log._has_failed)
    query_log.close()
    assert rows(database) == [str(number) for number in (*range(60), *range(100, 160))]
    assert query_log.dropped == 40


def test_a_refusal_loses_its_entries_only(
    query_log: QueryLog,
    database: Database,
    database_urls: DatabaseUrls,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with psycopg.connect(database_urls.migrator, autocommit=True) as migrator:
        migrator.execute("revoke insert on kb.query_log from kb_writer")
        query_log.add(Query("refused"), RESULTS)
        query_log.close()
        migrator.execute("grant insert on kb.query_log to kb_writer")
    query_log.add(Query("taken"), RESULTS)
    query_log.close()
    assert rows(database) == ["taken"]
    assert query_log.dropped == 1
    assert "permission denied" in caplog.text


@pytest.mark.usefixtures("hasty")
def test_searches_do_not_wait_for_a_database_that_hangs(database: Database) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hanging() -> Database:
        asked.set()
        answer.wait()
        return database

    query_log = QueryLog(hanging, SearchSettings())
    query_log.add(Query("first"), RESULTS)
    asked.wait()
    for number in range(300):
        query_log.add(Query(f"{number}"), RESULTS)
    answer.set()
    query_log.close()
    assert len(rows(database)) == 301


# How long it is kept.


@pytest.fixture
def asked(database: Database) -> None:
    """25 questions of 31 days ago, 5 of 29 days ago, 5 of today."""
    with database.transaction() as connection:
        connection.execute(
            "insert into kb.query_log (asked_at, question, mode, seconds, hits)"
            " select now() - make_interval(days => age), age::text, 'hybrid', '{}', '[]'"
            " from unnest(array_fill(31, '{25}') || array_fill(29, '{5}') || array_fill(0, '{5}'))"
            " age"
        )


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("days", "left"), [(math.inf, 35), (1e300, 35), (30, 10), (28.5, 5), (0, 0)]
)
def test_old_questions_are_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch, days: float, left: int
) -> None:
    monkeypatch.setattr(log, "MAX_DELETED", 10)
    assert forget_old_queries(database, days) == 35 - left
    assert len(rows(database)) == left


@pytest.mark.usefixtures("asked")
def test_indexing_forgets_old_questions(
    make_settings: Callable[..., Settings], database: Database
) -> None:
    with KnowledgeBase(make_settings()) as knowledge_base:
        knowledge_base.index()
    assert set(rows(database)) == {"29", "0"}
    with KnowledgeBase(make_settings(search={"log_days": 0})) as knowledge_base:
        knowledge_base.index()
    assert rows(database) == []


@pytest.mark.usefixtures("patient")
def test_closing_a_knowledge_base_writes_its_log(
    knowledge_base: KnowledgeBase, database: Database
) -> None:
    for question in ("first", "second"):
        knowledge_base.query_log.add(Query(question), RESULTS)
        knowledge_base.close()
        assert question in rows(database)
    assert "database" not in knowledge_base.__dict__, "nothing stays open"


def test_a_search_is_noted(knowledge_base: KnowledgeBase, folder: Path, database: Database) -> None:
    (folder / "tides.md").write_text("# Tides\n\nTides rise and fall.\n")
    knowledge_base.index()
    results = knowledge_base.search("when do tides rise", where='path = "tides.md"')
    knowledge_base.close()
    ((question, mode, filters, hits, seconds),) = rows(
        database, "question, mode, filters, hits, seconds"
    )
    assert (question, mode) == ("when do tides rise", "hybrid")
    assert filters == {"where": {"field": "path", "operator": "=", "value": "tides.md"}}
    assert [(hit["path"], hit["score"]) for hit in hits] == [("tides.md", results[0].score)]
    assert seconds == results.seconds
