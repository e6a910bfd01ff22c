"""Backups when something fails: an error that says what to do, or success after all.

Whatever happened, no check is green for it, and the last good backup is there, and verifies.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pyrage
import pytest

from kb_assets.backup.manifest import Manifest
from kb_assets.backup.place import BackupPlace, DrillFacts
from kb_assets.database.cluster import ADMINISTRATOR
from kb_assets.defs.partitions import BACKUP
from kb_assets.errors import (
    BackupBusyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    DiskError,
    KbError,
    ObjectStoreUnavailableError,
    SettingsError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.backup_drafts import KEY, draft
from tests.defs.conftest import evaluate_all
from tests.faults.shim import Background
from tests.integration.test_object_store import disk_of
from tests.servers.flaky_proxy import Fault, FlakyProxy
from tests.servers.s3_servers import Bucket, MotoServer

FAULTS: dict[str, list[Fault]] = {
    "PUT": ["lose", "fail", "lose_and_fail", "error_body"],
    "HEAD": ["fail"],
    "GET": ["cut", "flip"],
}
FALSE_ANSWERS: tuple[Fault, ...] = ("flip", "error_body")
MOST_REQUESTS = 20
CHECKS = ("backup_matches_manifest", "backup_is_fresh")
KEEP_ONE = {"keep_daily": 1, "keep_weekly": 0, "keep_monthly": 0}
NOW = datetime.now(UTC)
DAY = timedelta(days=1)

Open = Callable[[Settings], KnowledgeBase]
Make = Callable[..., KnowledgeBase]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_BACKUP_KEY", KEY.decode())


@pytest.fixture
def make(make_settings: Callable[..., Settings], open_settings: Open, tmp_path: Path) -> Make:
    """Open a knowledge base over the test's database, with a section [backup]."""

    def make(**backup: Any) -> KnowledgeBase:
        return open_settings(make_settings(home=tmp_path / "home", backup=backup))

    return make


@pytest.fixture
def kb(make: Make) -> KnowledgeBase:
    """An empty knowledge base, whose backups go to a folder, of which one is kept."""
    return make(**KEEP_ONE)


@pytest.fixture
def good(kb: KnowledgeBase) -> Manifest:
    """A backup of it that was proven."""
    return drilled(kb, kb.back_up().manifest)


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture
def bucket(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return moto.new_bucket().known(monkeypatch)


@pytest.fixture
def far(make: Make, bucket: Bucket) -> KnowledgeBase:
    """A knowledge base whose backups go to a bucket."""
    return make(uri=bucket.uri(), options=bucket.options, **KEEP_ONE)


@pytest.fixture
def flaky(make: Make, bucket: Bucket, proxy: FlakyProxy) -> KnowledgeBase:
    """The same, the proxy before its bucket."""
    options = bucket.options | {"endpoint": proxy.url}
    return make(uri=bucket.uri(), options=options, **KEEP_ONE)


def put(kb: KnowledgeBase, age: timedelta = timedelta()) -> Manifest:
    """Put a backup of one small file."""
    at = NOW - age
    backup_id = f"{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    work = kb.settings.root / f"files-{backup_id}"
    work.mkdir()
    (work / "schema.sql").write_text("select 1;" * 99)
    return kb.backup_place.put(draft(backup_id, at.isoformat(timespec="microseconds")), work)


def drilled(kb: KnowledgeBase, made: Manifest, *, passed: bool = True) -> Manifest:
    """Note a drill, later than all before, without making it."""
    (entry,) = (one for one in kb.backups() if one.id == made.id)
    began = datetime.now(UTC) + timedelta(seconds=len(entry.drills))
    moment = began.isoformat()
    failures = () if passed else ("kb.chunk has 3 rows, not 4.",)
    facts = DrillFacts(made.id, moment, moment, passed, "scratch", {"total": 1}, failures, ())
    kb.backup_place.note_drill(facts)
    return made


def require_good(kb: KnowledgeBase, *made: Manifest) -> None:
    """Make sure that backups are there, were proven, and are what their manifests say."""
    entries = {entry.id: entry for entry in kb.backups()}
    for one in made:
        assert entries[one.id].is_good
        assert entries[one.id].manifest == one
        assert kb.backup_place.verify(one) == ()


def require_next(kb: KnowledgeBase, good: Manifest) -> None:
    """Make sure that a failed run left nothing to stumble over: the next one makes a backup."""
    work = kb.settings.home_folder / "backup-work"
    assert not work.exists() or list(work.iterdir()) == []
    assert kb.backup_place.newest().id == good.id
    require_good(kb, good)
    made = kb.back_up().manifest
    assert made.number > good.number
    entry, problems = kb.verify_backup()
    assert (entry.manifest, problems) == (made, ())
    require_good(kb, good)


def require_clear(error: KbError) -> None:
    assert error.what
    assert error.fix


def objects_of(bucket: Bucket, made: Manifest) -> list[str]:
    return [key for key in bucket.objects.keys() if f"/{made.id}/" in key]  # noqa: SIM118


def superuser(kb: KnowledgeBase) -> str:
    return kb.settings.database_url.replace("kb_writer@", f"{ADMINISTRATOR}@")


# The store.


@pytest.mark.parametrize("method", FAULTS)
def test_any_request_of_an_upload_may_go_wrong(
    far: KnowledgeBase, flaky: KnowledgeBase, bucket: Bucket, proxy: FlakyProxy, method: str
) -> None:
    good = drilled(far, put(far, DAY))
    ours = objects_of(bucket, good)
    for fault in FAULTS[method]:
        for at in range(MOST_REQUESTS):
            made, asked = None, proxy.count(method)
            proxy.script(method, *[None] * at, fault)
            try:
                made = put(flaky)
            except KbError as error:
                require_clear(error)
            is_used = proxy.count(method) > asked + at
            proxy.forget()
            require_good(far, good)
            for one in far.backups()[:-1]:
                assert one.state == "whole" if made else one.state in ("unfinished", "whole")
                if one.state == "whole":
                    assert far.verify_backup(one.id)[1] == ()
            for key in set(bucket.objects.keys()) - set(ours):
                bucket.objects.remove(key)
            if not is_used:
                break
        else:
            raise AssertionError("an upload never ends")
        assert made is not None
        assert at > 0


def test_a_store_that_takes_nothing_makes_no_backup_and_the_next_run_does(
    far: KnowledgeBase, flaky: KnowledgeBase, proxy: FlakyProxy
) -> None:
    good = drilled(far, put(far, DAY))
    proxy.script("PUT", *["fail"] * 60)
    with pytest.raises(ObjectStoreUnavailableError, match="was put twice, and is not there") as no:
        flaky.back_up()
    require_clear(no.value)
    assert [entry.id for entry in far.backups()] == [good.id]
    proxy.forget()
    require_next(flaky, good)


def test_an_upload_whose_every_answer_is_lost_is_whole(
    far: KnowledgeBase, flaky: KnowledgeBase, proxy: FlakyProxy, bucket: Bucket
) -> None:
    good = drilled(far, put(far, DAY))
    proxy.script("PUT", *["lose"] * 200)
    made = flaky.back_up().manifest
    answers = [one.status for one in proxy.seen if one.method == "PUT"]
    assert len(answers) >= len(objects_of(bucket, made))
    assert set(answers) == {0}
    entry, problems = far.verify_backup()
    assert (entry.manifest, entry.is_signed, problems) == (made, True, ())
    require_good(far, good)


def test_what_is_read_wrongly_is_red_or_an_error(
    far: KnowledgeBase, flaky: KnowledgeBase, proxy: FlakyProxy
) -> None:
    good = drilled(far, put(far))
    for fault in ("cut", *FALSE_ANSWERS):
        for at in range(MOST_REQUESTS):
            before = len(proxy.seen)
            proxy.script("GET", *[None] * at, fault)
            try:
                entry, problems = flaky.verify_backup()
            except KbError as error:
                require_clear(error)
            else:
                asked = [one.path for one in proxy.seen[before:] if one.method == "GET"]
                if fault not in FALSE_ANSWERS or len(asked) <= at:
                    assert (entry.state, problems) == ("whole", ())
                elif asked[at].endswith(("manifest.json", "schema.sql")):
                    assert problems
            is_used = sum(one.method == "GET" for one in proxy.seen[before:]) > at
            proxy.forget()
            if not is_used:
                break
        assert at > 0
    require_good(far, good)


@pytest.mark.parametrize("fault", FALSE_ANSWERS)
def test_a_store_that_answers_falsely_turns_the_check_red(
    far: KnowledgeBase, flaky: KnowledgeBase, proxy: FlakyProxy, fault: Fault
) -> None:
    good = drilled(far, put(far))
    proxy.script("GET", None, *[fault] * 100)
    found = evaluate_all(flaky, (BACKUP, CHECKS[0]))
    assert not found[CHECKS[0]].passed
    assert good.id in (found[CHECKS[0]].description or "")
    proxy.forget()
    assert evaluate_all(flaky, (BACKUP, CHECKS[0]))[CHECKS[0]].passed
    require_good(far, good)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_store_that_does_not_know_us_turns_no_check_green(
    far: KnowledgeBase, open_settings: Open, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    good = drilled(far, put(far))
    with monkeypatch.context() as changed:
        changed.setenv(name, "canary")
        stranger = open_settings(far.settings)
        assert evaluate_all(stranger, *((BACKUP, check) for check in CHECKS)) == {}
        for ask in (stranger.back_up, stranger.prune_backups, stranger.verify_backup):
            with pytest.raises(KbError, match="may not be used") as refused:
                ask()
            require_clear(refused.value)
            assert "credentials in the environment" in refused.value.fix
    assert [entry.id for entry in far.backups()] == [good.id]
    require_good(far, good)


# The local disk.


@pytest.mark.parametrize(("disk_bytes", "words"), [(1_000, "pg_dump"), (1_000_000, "uploaded")])
def test_a_full_disk_of_the_home_makes_no_backup_and_the_next_run_does(
    kb: KnowledgeBase, good: Manifest, disk_bytes: int, words: str
) -> None:
    with psycopg.connect(superuser(kb)) as connection:
        connection.execute(
            "create table public.vectors as select array_agg(random())::vector(1000) as vector"
            " from generate_series(1, 1000000) number group by number % 1000"
        )
    with disk_of(disk_bytes), pytest.raises(DiskError, match=words) as full:
        kb.back_up()
    require_clear(full.value)
    assert "large" in full.value.why
    require_next(kb, good)


@pytest.mark.parametrize("disk_bytes", [100, 10_000])
def test_a_full_disk_of_the_destination_makes_no_backup_and_the_next_run_does(
    kb: KnowledgeBase, good: Manifest, disk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_whole = BackupPlace.put

    def put_on_full(place: BackupPlace, *values: Any) -> Manifest:
        with disk_of(disk_bytes):
            return put_whole(place, *values)

    with monkeypatch.context() as changed:
        changed.setattr(BackupPlace, "put", put_on_full)
        with pytest.raises(ObjectStoreUnavailableError, match="is not there") as full:
            kb.back_up()
    require_clear(full.value)
    assert "large" in full.value.why
    states = [entry.state for entry in kb.backups()]
    assert states == (["whole"] if disk_bytes == 100 else ["unfinished", "whole"])
    require_next(kb, good)


# Keys.


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("KB_BACKUP_KEY", "canary", "is too short"),
        ("KB_BACKUP_IDENTITY", "AGE-SECRET-KEY-1canary", "is no identity"),
    ],
)
def test_a_key_that_is_none_makes_no_backup(
    kb: KnowledgeBase,
    good: Manifest,
    open_settings: Open,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    words: str,
) -> None:
    with monkeypatch.context() as changed:
        changed.setenv(name, value)
        with pytest.raises(SettingsError, match=f"{name} {words}") as refused:
            open_settings(kb.settings).back_up()
    require_clear(refused.value)
    assert "canary" not in str(refused.value)
    require_next(kb, good)


def test_another_key_takes_nothing_for_good_and_deletes_nothing(
    kb: KnowledgeBase, good: Manifest, open_settings: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as changed:
        changed.setenv("KB_BACKUP_KEY", "another key of more than sixteen characters")
        stranger = open_settings(kb.settings)
        found = evaluate_all(stranger, *((BACKUP, check) for check in CHECKS))
        assert {name: one.passed for name, one in found.items()} == dict.fromkeys(CHECKS, False)
        assert "KB_BACKUP_KEY" in (found[CHECKS[0]].description or "")
        theirs = stranger.back_up().manifest
        assert stranger.prune_backups().delete == {}
    entry, problems = kb.verify_backup()
    assert (entry.id, entry.state, len(problems)) == (theirs.id, "forged", 1)
    assert kb.prune_backups().delete == {}
    require_good(kb, good)


def test_a_drill_with_another_identity_is_red_and_costs_no_backup(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, another = (str(pyrage.x25519.Identity.generate()) for _ in range(2))
    monkeypatch.setenv("KB_BACKUP_IDENTITY", ours)
    good = drilled(kb, put(kb, 2 * DAY))
    put(kb, DAY)
    monkeypatch.setenv("KB_BACKUP_IDENTITY", another)
    found = kb.drill(good.id)
    assert not found.passed
    assert "KB_BACKUP_IDENTITY" in found.failures[0]
    assert kb.prune_backups().delete == {}
    drilled(kb, good)
    require_good(kb, good)


# The database.


@pytest.mark.parametrize(
    ("role", "kind", "words"),
    [
        ("nobody", DatabaseUnavailableError, 'role "nobody" does not exist'),
        ("kb_caller", DatabaseRefusedError, "Row-level security hides"),
        ("kb_migrator", DatabaseRefusedError, "Row-level security hides"),
    ],
)
def test_a_role_that_may_not_see_everything_makes_no_backup(
    kb: KnowledgeBase,
    good: Manifest,
    open_settings: Open,
    role: str,
    kind: type[KbError],
    words: str,
) -> None:
    url = kb.settings.backup_database_url.replace("kb_backup@", f"{role}@")
    other = open_settings(kb.settings.model_copy(update={"backup_database_url": url}))
    with pytest.raises(kind, match=words) as refused:
        other.back_up()
    require_clear(refused.value)
    require_next(kb, good)


def test_without_a_program_for_the_server_no_backup_is_made(
    kb: KnowledgeBase, good: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "pg_dump"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.9'\n")
    program.chmod(0o755)
    with monkeypatch.context() as changed:
        changed.setattr("kb_assets.backup.programs._WHEEL_MAJORS", ())
        changed.setenv("PATH", str(program.parent))
        with pytest.raises(DatabaseRefusedError, match="no pg_dump for PostgreSQL 16") as refused:
            kb.back_up()
    require_clear(refused.value)
    assert "version 16 or later. The PATH has version 15" in refused.value.why
    require_next(kb, good)


def test_of_two_at_once_one_is_told_to_wait(
    kb: KnowledgeBase, good: Manifest, open_settings: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, put_whole = Event(), Event(), kb.backup_place.put

    def put_late(*values: Any) -> Manifest:
        begun.set()
        assert go_on.wait(60)
        return put_whole(*values)

    monkeypatch.setattr(kb.backup_place, "put", put_late)
    first = Background(lambda: kb.back_up(run_id="run-one").manifest)
    assert begun.wait(60)
    other = open_settings(kb.settings)
    try:
        with pytest.raises(BackupBusyError, match="Run run-one is at work, since") as busy:
            other.back_up()
    finally:
        go_on.set()
    require_clear(busy.value)
    made = first.result()
    assert other.backups()[0].manifest == made
    require_good(kb, good)
    assert [other.back_up().manifest.number, good.number] == [3, 1]


@pytest.mark.parametrize("option", ["--to-url", "--from-url"])
@pytest.mark.parametrize(
    "url",
    [
        "canary",
        "postgresql://kb:canary%zz@host/kb",
        "postgresql://kb:canary@127.0.0.1:1/kb",
        "",  # a database that is not there
    ],
)
def test_a_url_that_leads_nowhere_is_told_by_its_option(
    kb: KnowledgeBase, option: str, url: str
) -> None:
    good = drilled(kb, put(kb))
    url = url or kb.settings.database_url.replace("?", "_is_not_there?")
    with pytest.raises((SettingsError, DatabaseUnavailableError), match=option) as refused:
        if option == "--to-url":
            kb.restore_backup(to_url=url)
        else:
            kb.drill(from_url=url)
    require_clear(refused.value)
    assert option in refused.value.fix
    assert "KB_DATABASE_URL" not in str(refused.value)
    assert "canary" not in str(refused.value)
    require_good(kb, good)
    assert len(kb.backups()[0].drills) == 1


# The clock, and what is kept.


def set_clock(monkeypatch: pytest.MonkeyPatch, module: str, back: timedelta) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - back

    monkeypatch.setattr(f"kb_assets.{module}.datetime", Clock)


def test_a_backup_of_a_clock_that_moved_back_is_the_newest(
    kb: KnowledgeBase, good: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, "backup.stage", 10 * DAY)
    made = kb.back_up().manifest
    assert made.id < good.id
    assert [entry.id for entry in kb.backups()] == [made.id, good.id]
    assert kb.verify_backup() == (kb.backup_place.newest(), ())
    assert kb.prune_backups().delete == {}
    require_good(kb, good)


def test_a_clock_that_moved_back_deletes_nothing_and_is_red(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, good = put(kb, 2 * DAY), drilled(kb, put(kb))
    set_clock(monkeypatch, "knowledge_base.backing_up", 3 * DAY)
    set_clock(monkeypatch, "defs.backup_checks", 3 * DAY)
    with pytest.raises(SettingsError, match="the newest backup is of the future") as refused:
        kb.prune_backups()
    require_clear(refused.value)
    assert not evaluate_all(kb, (BACKUP, CHECKS[1]))[CHECKS[1]].passed
    assert [entry.id for entry in kb.backups()] == [good.id, old.id]
    require_good(kb, good)


@pytest.mark.parametrize("event", ["the good one fails", "another one passes", "one is finished"])
def test_what_becomes_the_last_good_one_while_others_are_deleted_stays(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    oldest, older = put(kb, 9 * DAY), drilled(kb, put(kb, 8 * DAY))
    good, spare, newest, slow = drilled(kb, put(kb, 7 * DAY)), *(put(kb, DAY) for _ in range(2)), \
        put(kb, 5 * DAY)  # fmt: skip
    file = Path(kb.backup_store.url(f"{slow.id}/manifest.json"))
    content = file.read_bytes()
    file.unlink()
    assert kb.plan_pruning().delete.keys() == {one.id for one in (oldest, older, spare, slow)}
    happen, stays = {
        "the good one fails": (lambda: drilled(kb, good, passed=False), older),
        "another one passes": (lambda: drilled(kb, spare), spare),
        "one is finished": (lambda: file.write_bytes(content), slow),
    }[event]
    delete = kb.backup_place.delete

    def delete_while_it_happens(backup_id: str) -> None:
        delete(backup_id)
        if backup_id == oldest.id:
            happen()

    monkeypatch.setattr(kb.backup_place, "delete", delete_while_it_happens)
    told = kb.prune_backups()
    gone = {oldest.id, older.id, spare.id, slow.id} - {stays.id}
    assert told.delete.keys() == gone
    assert stays.id in told.keep
    assert {entry.id for entry in kb.backups()} == {good.id, newest.id, stays.id}
    assert kb.verify_backup(stays.id)[1] == ()


def test_a_report_that_is_read_wrongly_once_costs_no_backup(
    far: KnowledgeBase, flaky: KnowledgeBase, proxy: FlakyProxy
) -> None:
    good, newest = drilled(far, put(far, 2 * DAY)), put(far)
    for at in range(MOST_REQUESTS):
        asked = proxy.count("GET")
        proxy.script("GET", *[None] * at, "flip")
        with suppress(KbError):
            flaky.prune_backups()
        is_used = proxy.count("GET") > asked + at
        proxy.forget()
        require_good(far, good)
        if not is_used:
            break
    assert at > 5
    assert far.verify_backup(newest.id)[1] == ()


@pytest.mark.parametrize("fault", ["lose", "fail"])
def test_a_deletion_that_goes_wrong_is_ended_the_next_time(
    far: KnowledgeBase, flaky: KnowledgeBase, proxy: FlakyProxy, fault: Fault
) -> None:
    good, doomed = drilled(far, put(far, 3 * DAY)), put(far, 2 * DAY)
    newest = put(far)
    for method in ("DELETE", "POST"):
        proxy.script(method, None, *[fault] * 30)
    with suppress(KbError):
        flaky.prune_backups()
    proxy.forget()
    require_good(far, good)
    flaky.prune_backups()
    assert {entry.id for entry in far.backups()} == {good.id, newest.id}
    assert not any(one.startswith(doomed.id) for one in far.backup_store.list())
    require_good(far, good)
