"""Messages, hot and cold, as one table: each once, whatever happens meanwhile."""

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import psycopg
import pytest

from kb_assets.archive.cache import ObjectCache
from kb_assets.archive.manifest import ObjectFacts
from kb_assets.archive.plan import manifest_key
from kb_assets.archive.store import Segment, find_segments
from kb_assets.errors import (
    ArchiveCorruptError,
    DiskError,
    ObjectStoreError,
    SettingsError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.messages.message import Message
from kb_assets.object_store import ObjectStore
from kb_assets.settings import Settings
from tests.servers.s3_servers import MotoServer

START = datetime(2023, 1, 1, tzinfo=UTC)
ALL = "select * from messages"
RECENT = datetime.now(UTC) - timedelta(days=2)


def talk(conversation: str, start: datetime, count: int = 10, **fields: object) -> list[Message]:
    """Return some messages of one conversation, a minute apart."""
    given = {"role": "user", "content": f"This is {conversation}.", "token_count": 4, **fields}
    return [
        Message(
            f"{conversation}-{number}", conversation, start + timedelta(minutes=number), **given
        )
        for number in range(count)
    ]


def month(number: int, day: int = 15) -> datetime:
    """Return a moment of a month, counted from January 2023."""
    return START.replace(year=2023 + number // 12, month=number % 12 + 1, day=day)


@pytest.fixture
def kb(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[KnowledgeBase]:
    with KnowledgeBase(make_settings(archive={"uri": str(tmp_path / "cold")})) as opened:
        yield opened


def segments(kb: KnowledgeBase, *states: str) -> list[Segment]:
    with kb.database.transaction() as connection:
        return find_segments(connection, states=states or ("committed",))


def object_of(kb: KnowledgeBase, place: int = 0) -> Path:
    return Path(kb.archive_store.url(segments(kb)[place].object_key))


def cached(kb: KnowledgeBase) -> list[Path]:
    return sorted((kb.settings.home_folder / "archive-cache").glob("*.parquet"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def ids(kb: KnowledgeBase, where: str = "true") -> list[str]:
    rows = kb.query_messages(f"select id from messages where {where}").rows
    return sorted(id_ for (id_,) in rows)


def execute(kb: KnowledgeBase, statement: str, *values: object) -> None:
    with psycopg.connect(kb.urls.migrator, autocommit=True) as connection:
        connection.execute(statement, values or None)


def test_hot_and_cold_rows_are_one_table(kb: KnowledgeBase) -> None:
    old = talk("old", month(0), metadata={"n": 1.50, "ü": [None, "'"]}, language="de")
    new = talk("new", RECENT, user_id="u")
    kb.messages.append([*old, *new])
    select = "select * from messages order by conversation_id, created_at"
    before = kb.query_messages(select)
    assert (before.hot_rows, before.scanned_objects) == (20, 0)
    assert kb.archive_messages().months[0].rows == 10
    after = kb.query_messages(select)
    assert (after.hot_rows, after.scanned_objects, after.fetched_objects) == (10, 1, 1)
    assert after.rows == before.rows, "every value of every column is what it was"
    assert after.columns == before.columns
    assert after.rows[10][:5] == ("old-0", "old", month(0), "user", "This is old.")
    assert json.loads(after.rows[10][7]) == {"n": 1.5, "ü": [None, "'"]}
    found = kb.query_messages(
        "select conversation_id c, sum(token_count) tokens, max(metadata->>'$.n') n"
        " from messages group by c order by c"
    )
    assert found.columns == ("c", "tokens", "n")
    assert found.rows == [("new", 40, None), ("old", 40, "1.5")]


def test_a_late_message_is_seen_and_a_repeated_one_only_once(kb: KnowledgeBase) -> None:
    old = talk("old", month(0))
    kb.messages.append([*old, *talk("other", month(1))])
    kb.archive_messages()
    late = talk("old", month(0), 12)[10:]
    assert kb.messages.append([*old, *late]).late == 12
    assert ids(kb) == sorted(one.id for one in [*old, *late, *talk("other", month(1))])
    assert ids(kb, "conversation_id = 'old'") == sorted(one.id for one in [*old, *late])
    assert kb.query_messages("from messages where conversation_id = 'other'").scanned_objects == 1
    kb.archive_messages()
    assert len(segments(kb)) == 3
    assert ids(kb, "conversation_id = 'old'") == sorted(one.id for one in [*old, *late])


def test_a_late_row_costs_its_own_months_objects_only_where_it_is_wanted(kb: KnowledgeBase) -> None:
    for number in range(4):
        kb.messages.append(talk(f"c{number}", month(number)))
    kb.archive_messages()
    kb.messages.append(talk("c1", month(1)))
    found = kb.query_messages("select count(*) from messages where conversation_id = 'c2'")
    assert (found.rows, found.scanned_objects, found.hot_rows) == ([(10,)], 1, 0)
    found = kb.query_messages("select count(*) from messages where created_at > '2024-01-01'")
    assert (found.rows, found.scanned_objects) == ([(0,)], 0)
    found = kb.query_messages("select count(*) from messages where created_at < '2023-03-01'")
    assert (found.rows, found.scanned_objects, found.hot_rows) == ([(20,)], 2, 0)


def test_one_conversation_among_24_months_takes_two_objects_at_most(kb: KnowledgeBase) -> None:
    for number in range(24):
        last = month(number, day=28) + timedelta(days=5)
        kb.messages.append(
            [
                *talk(f"a{number:02}", month(number)),
                *talk(f"z{number:02}", month(number)),
                *talk(f"m{number:02}", month(number), 5),
                *talk(f"m{number:02}", last, 10)[5:],
            ]
        )
    kb.archive_messages()
    assert len({one.month for one in segments(kb)}) >= 24
    for conversation, objects in (("a07", 1), ("z23", 1), ("m11", 2)):
        sql = f"select id from messages where conversation_id = '{conversation}'"
        first, second = kb.query_messages(sql), kb.query_messages(sql)
        assert len(first.rows) == 10
        assert first.scanned_objects == objects
        assert first.fetched_objects <= objects
        assert (second.fetched_objects, sorted(second.rows)) == (0, sorted(first.rows))
    nobody = kb.query_messages("select id from messages where conversation_id = 'nobody'")
    assert nobody.rows == []
    both = "from messages where conversation_id in ('a03', 'z04') order by created_at limit 1"
    assert kb.query_messages(f"select id {both}").scanned_objects == 2
    spring = "created_at >= '2024-03-01' and created_at < '2024-04-01' and role = 'user'"
    assert kb.query_messages(f"select count(*) from messages where {spring}").scanned_objects <= 1
    assert kb.query_messages("select * from messages limit 0").scanned_objects == 0
    assert kb.query_messages("select count(*) from messages").rows == [(720,)]


def test_a_conversation_nobody_counted_is_found_all_the_same(kb: KnowledgeBase) -> None:
    kb.messages.append([*talk("a", month(0)), *talk("z", month(1))])
    execute(kb, "delete from kb.conversation")
    kb.archive_messages()
    assert len(ids(kb, "conversation_id = 'a'")) == 10


def test_names_that_look_like_sql_are_only_names(kb: KnowledgeBase) -> None:
    names = [
        "it's",
        "a' or 'b",
        "a\\'b",
        "x\ny",
        "%s %(x)s",
        "{a}",
        "(conversation_id = 'c')",
        "🙂",
    ]
    for number, name in enumerate(names):
        kb.messages.append(talk(name, month(number % 3), 2))
        kb.messages.append(talk(name, RECENT, 4)[2:])
    kb.archive_messages()
    for name in names:
        literal = "'" + name.replace("'", "''") + "'"
        assert len(ids(kb, f"conversation_id = {literal}")) == 4, name
        assert len(ids(kb, f"conversation_id in ({literal}, 'nobody')")) == 4, name
    assert ids(kb, "conversation_id = 'a' || chr(0)") == []


def test_what_was_erased_is_not_read_though_it_is_in_an_object(kb: KnowledgeBase) -> None:
    kb.messages.append([*talk("gone", month(0)), *talk("kept", month(0)), *talk("gone", RECENT, 3)])
    kb.archive_messages()
    execute(
        kb,
        "with e as (insert into kb.erasure (scope, subject_hash, run_id)"
        " values ('conversation', '', 'test') returning id)"
        " insert into kb.erased_conversation select 'gone', id from e",
    )
    assert {id_.partition("-")[0] for id_ in ids(kb)} == {"kept"}
    assert ids(kb, "conversation_id = 'gone'") == []
    assert ids(kb, "conversation_id >= 'g' and conversation_id < 'h'") == []


def test_a_reader_sees_each_message_once_while_months_leave_and_come_back(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb_assets.archive.commit._PAUSE_SECONDS", 0.1)
    for number in range(2):
        kb.messages.append(talk(f"c{number}", month(number), 300))
    stop = threading.Event()
    counts: list[tuple[int, int]] = []

    def read_on() -> None:
        while not stop.wait(0.01):
            found = kb.query_messages("select count(*), count(distinct id) from messages")
            counts.append(found.rows[0])

    with ThreadPoolExecutor(1) as readers:
        reading = readers.submit(read_on)
        try:
            kb.archive_messages()
            for number in range(2):
                kb.restore_month(month(number).date().replace(day=1), 0)
            kb.archive_messages()
        finally:
            stop.set()
        reading.result()
    assert len(counts) > 3
    assert set(counts) == {(600, 600)}


def leave(kb: KnowledgeBase) -> None:
    """A month's partition leaves; it waits for readers."""
    kb.archive_messages()


def come_back(kb: KnowledgeBase) -> None:
    kb.restore_month(date(2023, 1, 1))


@pytest.mark.parametrize(
    ("archived", "late", "meanwhile"),
    [(False, 0, leave), (True, 5, leave), (True, 5, come_back)],
)
def test_the_snapshot_is_one_moment_whatever_happens_between_its_statements(
    kb: KnowledgeBase,
    monkeypatch: pytest.MonkeyPatch,
    archived: bool,
    late: int,
    meanwhile: Callable[[KnowledgeBase], None],
) -> None:
    """The list of segments was read, and the rows are not yet."""
    messages = talk("c", month(0), 10 + late)
    kb.messages.append(messages[:10])
    if archived:
        kb.archive_messages()
    kb.messages.append(messages[10:])
    working: list[threading.Thread] = []

    def find_segments_slowly(*arguments: object, **named: object) -> list[Segment]:
        found = find_segments(*arguments, **named)
        if not working:
            working.append(threading.Thread(target=meanwhile, args=(kb,)))
            working[0].start()
            working[0].join(10 if archived else 3)
            assert working[0].is_alive() != archived
        return found

    monkeypatch.setattr("kb_assets.archive.snapshot.find_segments", find_segments_slowly)
    assert ids(kb) == sorted(one.id for one in messages)
    working[0].join()
    assert ids(kb) == sorted(one.id for one in messages)


def test_an_object_is_hashed_each_time_and_fetched_anew_if_it_is_damaged_here(
    kb: KnowledgeBase,
) -> None:
    kb.messages.append(talk("c", month(0)))
    kb.archive_messages()
    assert kb.query_messages(ALL).fetched_objects == 1
    assert kb.query_messages(ALL).fetched_objects == 0
    (file,) = cached(kb)
    whole = file.read_bytes()
    flip(file)
    found = kb.query_messages(ALL)
    assert (len(found.rows), found.fetched_objects) == (10, 1)
    assert file.read_bytes() == whole
    file.write_bytes(whole[:-1])
    assert kb.query_messages(ALL).fetched_objects == 1
    flip(file)
    flip(object_of(kb))
    with pytest.raises(ArchiveCorruptError) as caught:
        kb.query_messages(ALL)
    assert str(object_of(kb)) in caught.value.what
    assert not list(file.parent.glob("*.part"))
    object_of(kb).unlink()
    with pytest.raises(ArchiveCorruptError, match="not there"):
        kb.query_messages(ALL)


def test_the_cache_keeps_what_was_used_last_and_no_more_than_it_may(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    def opened(cache_bytes: int) -> KnowledgeBase:
        archive = {"uri": str(tmp_path / "cold"), "cache_bytes": cache_bytes}
        return KnowledgeBase(make_settings(archive=archive))

    with opened(10**9) as kb:
        for number in range(3):
            kb.messages.append(talk(f"c{number}", month(number)))
        kb.archive_messages()
        assert kb.query_messages(ALL).fetched_objects == 3
        names = [f"{one.sha256.hex()}.parquet" for one in segments(kb)]
        size = sum(file.stat().st_size for file in cached(kb))
        abandoned = cached(kb)[0].with_name("x.part")
        abandoned.write_bytes(b"x")
        os.utime(abandoned, (0, 0))
        for number in (1, 0, 2):
            assert len(ids(kb, f"conversation_id = 'c{number}'")) == 10
    with opened(size - 1) as kb:
        assert len(ids(kb, "conversation_id = 'c0'")) == 10
        assert {file.name for file in cached(kb)} == {names[0], names[2]}
        assert not abandoned.exists()
        assert kb.query_messages(ALL).fetched_objects == 1
        assert len(cached(kb)) == 2
    with opened(0) as kb:
        assert len(kb.query_messages(ALL).rows) == 30
        assert cached(kb) == []


def test_a_file_in_use_is_not_removed(kb: KnowledgeBase, tmp_path: Path) -> None:
    for number in range(2):
        kb.messages.append(talk(f"c{number}", month(number)))
    kb.archive_messages()
    one, other = (segment.facts for segment in segments(kb))
    first, second = (ObjectCache(tmp_path / "cache", kb.archive_store, 0) for _ in range(2))
    with first.borrow() as borrowed:
        (file,) = borrowed.files([one])
        with second.borrow() as elsewhere:
            assert elsewhere.files([other, one]) == [second.path(other), file]
            assert second.path(other).exists()
        assert file.exists()
        assert not second.path(other).exists()
    assert not file.exists()


def test_an_object_that_was_replaced_leaves_the_cache(kb: KnowledgeBase, tmp_path: Path) -> None:
    """Whoever replaced it, wherever: it may hold what was erased since."""
    kb.messages.append([*talk("c", month(0)), *talk("d", month(1))])
    kb.archive_messages()
    assert kb.query_messages(ALL).fetched_objects == 2
    kept = [file for file in cached(kb) if "d-0" in read_ids(file)]
    with KnowledgeBase(kb.settings.model_copy(update={"home": tmp_path / "elsewhere"})) as other:
        other.restore_month(date(2023, 1, 1), 0)
        other.messages.append(talk("e", month(0)))
        other.archive_messages()
    assert kb.query_messages("select 1").fetched_objects == 0
    assert cached(kb) == kept
    assert kb.query_messages(ALL).fetched_objects == 1


def read_ids(file: Path) -> set[str]:
    return {id_ for (id_,) in duckdb.execute(f"select id from '{file}'").fetchall()}


def take_turns(folder: str, uri: str, facts: list[ObjectFacts], rounds: int) -> int:
    """Use objects in a process of its own, with room for one of them."""
    cache = ObjectCache(Path(folder), ObjectStore(uri), facts[0].object_bytes)
    fetched = 0
    for number in range(rounds):
        with cache.borrow() as borrowed:
            for one in facts if number % 2 else reversed(facts):
                (file,) = borrowed.files([one])
                assert len(file.read_bytes()) == one.object_bytes
            fetched += borrowed.fetched
    return fetched


def test_processes_share_a_cache_that_is_too_small_for_them(
    kb: KnowledgeBase, tmp_path: Path
) -> None:
    for number in range(3):
        kb.messages.append(talk(f"c{number}", month(number)))
    kb.archive_messages()
    facts = [segment.facts for segment in segments(kb)]
    arguments = (str(tmp_path / "cache"), kb.archive_store.uri, facts, 20)
    new_process = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, new_process) as processes:
        working = [processes.submit(take_turns, *arguments) for _ in range(2)]
        assert all(one.result() >= 20 for one in working)
    assert len(list((tmp_path / "cache").glob("*.parquet"))) <= 1
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_cache_that_cannot_be_written_is_told(kb: KnowledgeBase, tmp_path: Path) -> None:
    kb.messages.append(talk("c", month(0)))
    kb.archive_messages()
    folder = kb.settings.home_folder / "archive-cache"
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("no folder")
    with pytest.raises(DiskError, match="archive-cache"):
        kb.query_messages(ALL)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("", "one SELECT"),
        ("select 1; select 2", "one SELECT"),
        ("delete from messages", "one SELECT"),
        ("copy messages to 'x'", "one SELECT"),
        ("attach 'x.db'", "one SELECT"),
        ("set memory_limit = '1TB'", "one SELECT"),
        ("install httpfs", "one SELECT"),
        ("pragma database_list", "one SELECT"),
        ("create table x as from messages", "one SELECT"),
        ("select '\ud800'", "one SELECT"),
        ("selec 1", 'near "selec"'),
        ("select nope from messages", "nope"),
        ("select id from message", "message"),
        ("select $1", "parameters"),
        ("select content::int from messages", "Could not convert"),
        ("with x as (delete from messages returning *) from x", "delete"),
        ("from read_csv('/etc/passwd')", "only"),
        ("from read_text('/etc/passwd')", "only"),
        ("from read_parquet('https://example.com/x.parquet')", "only"),
        ("from glob('/*')", "only"),
        ("from '/etc/passwd'", "/etc/passwd"),
        ("from SECRET", "SECRET"),
        ("from kb", "kb"),
        ("from range(100001)", "too much"),
        ("select repeat('x', 10_000) || range from range(30000)", "too much"),
        ("select list(a.range) from range(5000) a, range(20000) b", "memory"),
    ],
)
def test_a_query_reads_messages_and_nothing_else(kb: KnowledgeBase, sql: str, words: str) -> None:
    SECRET = [{"password": "canary"}]  # noqa: N806
    kb.messages.append([*talk("c", month(0)), *talk("new", RECENT)])
    kb.archive_messages()
    with pytest.raises(SettingsError) as caught:
        kb.query_messages(sql)
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.fix
    assert len(SECRET) == 1


def test_what_the_cache_holds_beside_is_not_lent(kb: KnowledgeBase) -> None:
    for number in range(2):
        kb.messages.append(talk(f"c{number}", month(number)))
    kb.archive_messages()
    kb.query_messages(ALL)
    for file in cached(kb):
        query = f"select count(*) from messages, read_parquet('{file}') where conversation_id = 'x'"
        with pytest.raises(SettingsError, match="asks for more"):
            kb.query_messages(query)


def test_more_than_memory_holds_goes_to_the_disk(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb_assets.archive.guarded._MEMORY", "192MB")
    found = kb.query_messages(
        "select count(*) from (select text from"
        " (select repeat(md5(range::text), 20) text from range(500000)) group by text)"
    )
    assert found.rows == [(500_000,)]


def test_without_a_section_there_is_no_archive(knowledge_base: KnowledgeBase) -> None:
    for work in (
        lambda: knowledge_base.query_messages(ALL),
        knowledge_base.archive_messages,
        knowledge_base.verify_archive,
        lambda: knowledge_base.restore_month(date(2023, 1, 1)),
    ):
        with pytest.raises(SettingsError, match="archive"):
            work()


def damage_bit(kb: KnowledgeBase, one: Segment) -> str:
    flip(Path(kb.archive_store.url(one.object_key)))
    return "SHA-256"


def damage_end(kb: KnowledgeBase, one: Segment) -> str:
    file = Path(kb.archive_store.url(one.object_key))
    file.write_bytes(file.read_bytes()[:-100])
    return "bytes"


def damage_place(kb: KnowledgeBase, one: Segment) -> str:
    Path(kb.archive_store.url(one.object_key)).unlink()
    return "not there"


def damage_manifest(kb: KnowledgeBase, one: Segment) -> str:
    beside = Path(kb.archive_store.url(manifest_key(one.object_key)))
    beside.write_text(beside.read_text().replace('"rows": 10', '"rows": 11'))
    return "something else"


def damage_manifest_text(kb: KnowledgeBase, one: Segment) -> str:
    Path(kb.archive_store.url(manifest_key(one.object_key))).write_bytes(b"\xff{")
    return "not JSON"


def damage_manifest_place(kb: KnowledgeBase, one: Segment) -> str:
    Path(kb.archive_store.url(manifest_key(one.object_key))).unlink()
    return "not there"


@pytest.mark.parametrize(
    "damage",
    [
        *(damage_bit, damage_end, damage_place),
        *(damage_manifest, damage_manifest_text, damage_manifest_place),
    ],
)
def test_what_is_damaged_is_named_and_the_others_are_still_looked_at(
    kb: KnowledgeBase, damage: Callable[[KnowledgeBase, Segment], str]
) -> None:
    for number in range(3):
        kb.messages.append(talk(f"c{number}", month(number)))
    kb.archive_messages()
    kb.restore_month(date(2023, 1, 1))
    kb.query_messages(ALL)
    told: list[tuple[int, int]] = []
    report = kb.verify_archive(watch=lambda done, of: told.append((done, of)))
    assert [one.damage for one in report.segments] == [None] * 3
    assert [one.state for one in report.segments] == ["restored", "committed", "committed"]
    assert told == [(0, 3), (1, 3), (2, 3)]
    words = damage(kb, segments(kb)[0])
    report = kb.verify_archive()
    (bad,) = report.damaged
    assert (bad.month, len(report.segments)) == (date(2023, 2, 1), 3)
    assert bad.damage is not None
    assert words in bad.damage.why
    assert bad.url.removesuffix("parquet") in bad.damage.what.replace(".json", ".")
    assert len(kb.query_messages(ALL).rows) == 30, "the cache has whole ones"


def test_a_row_that_is_not_its_hash_is_found_though_the_object_is_as_noted(
    kb: KnowledgeBase,
) -> None:
    """Whoever can write to the database and to the store still cannot make up rows."""
    kb.messages.append(talk("c", month(0)))
    kb.archive_messages()
    (segment,) = segments(kb)
    file = object_of(kb)
    duckdb.execute(
        f"copy (select * replace ('other' as content) from '{file}') to '{file}.new'"
        " (format parquet)"
    )
    content = Path(f"{file}.new").read_bytes()
    file.write_bytes(content)
    execute(
        kb,
        "update kb.archive_segment set sha256 = sha256(%s), bytes = %s where id = %s",
        content,
        len(content),
        segment.id,
    )
    (bad,) = kb.verify_archive().damaged
    assert bad.damage is not None
    assert "hash" in bad.damage.why


def test_all_of_it_works_on_s3_with_access_key_and_secret(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    with MotoServer() as server:
        bucket = server.new_bucket()
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        archive = {"uri": bucket.uri("kb/archive"), "options": bucket.options}
        with KnowledgeBase(make_settings(archive=archive)) as kb:
            kb.messages.append([*talk("c", month(0)), *talk("d", month(1))])
            kb.archive_messages()
            found = kb.query_messages("select id from messages where conversation_id = 'c'")
            assert (len(found.rows), found.fetched_objects) == (10, 1)
            assert kb.verify_archive().damaged == ()
            assert kb.restore_month(date(2023, 1, 1)).rows == 10
            (key, _) = (one for one in bucket.objects.keys() if "month=02" in one)  # noqa: SIM118
            assert key.startswith("kb/archive/message/year=2023/")
            bucket.objects.write(key, b"other")
            (bad,) = kb.verify_archive().damaged
            assert bad.url.startswith("s3://")
            bucket.objects.remove(key)
            (bad,) = kb.verify_archive().damaged
            assert bad.damage is not None
            assert "not there" in bad.damage.why
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with KnowledgeBase(make_settings(archive=archive)) as kb:
            with pytest.raises(ObjectStoreError, match="may not be used"):
                kb.query_messages(ALL)
            with pytest.raises(ObjectStoreError, match="may not be used"):
                kb.verify_archive()
