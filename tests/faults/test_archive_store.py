"""The archive's store and the local disk go wrong: nothing is deleted that is not proven there."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from kb_assets.archive.clean import remove_leftovers
from kb_assets.errors import (
    ArchiveCorruptError,
    KbError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
)
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.settings import Settings
from tests.faults.archiving import MARCH, ArchivingProcess, Shelf, interrupt
from tests.servers.flaky_proxy import Fault, FlakyProxy
from tests.servers.s3_servers import Bucket, FolderObjects, MotoServer, Objects, RcloneServer

FAULTS: dict[str, list[Fault]] = {
    "PUT": ["refuse", "lose", "fail", "lose_and_fail", "too_slow", "unsupported", "error_body"],
    "GET": ["refuse", "fail", "cut", "shorten", "flip", "error_body"],
    "HEAD": ["refuse", "fail"],
}
MOST_REQUESTS = 20
LATER = timedelta(days=4)

Open = Callable[[Settings], KnowledgeBase]
Make = Callable[..., Settings]


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with RcloneServer(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(params=["moto", "rclone"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return request.getfixturevalue(request.param).new_bucket().known(monkeypatch)


@pytest.fixture
def far(make_settings: Make, open_settings: Open, bucket: Bucket) -> Iterator[Shelf]:
    """A knowledge base whose archive is a bucket, with eight messages of an old month."""
    archive = {"uri": bucket.uri(), "options": bucket.options}
    kb = open_settings(make_settings(archive=archive))
    with Shelf(kb, lambda key: bucket.objects.read(f"kb/{key}")) as far:
        far.append(*range(8))
        yield far


@pytest.fixture
def flaky(
    make_settings: Make, open_settings: Open, far: Shelf, bucket: Bucket, proxy: FlakyProxy
) -> KnowledgeBase:
    """The same knowledge base, the proxy before its store."""
    options = bucket.options | {"endpoint": proxy.url}
    return open_settings(make_settings(archive={"uri": bucket.uri(), "options": options}))


def months() -> Iterator[date]:
    for number in count():
        yield date(1990 + number // 12, number % 12 + 1, 1)


@pytest.mark.parametrize("method", FAULTS)
def test_any_request_may_go_wrong(
    far: Shelf, flaky: KnowledgeBase, proxy: FlakyProxy, method: str
) -> None:
    fresh = months()
    for fault in FAULTS[method]:
        for at in range(MOST_REQUESTS):
            shelf = far.only(next(fresh))
            # What is cold is read before late rows are copied.
            for numbers in ((1, 2), (2, 3))[: 2 if method == "GET" else 1]:
                shelf.append(*numbers)
                asked = proxy.count(method)
                proxy.script(method, *[None] * at, fault)
                with suppress(KbError):
                    flaky.archive_messages([*shelf.months])
                shelf.oracle.check()
                is_used = proxy.count(method) > asked + at
                proxy.forget()
                shelf.settle()
            if not is_used:
                break
        else:
            raise AssertionError("a run never ends")
        assert at > 0


@pytest.mark.parametrize(
    ("method", "fault", "error"),
    [
        ("PUT", "fail", ObjectStoreUnavailableError),
        ("PUT", "error_body", ObjectStoreUnavailableError),
        ("PUT", "refuse", ObjectStoreUnavailableError),
        ("GET", "cut", ObjectStoreUnavailableError),
        ("GET", "flip", ArchiveCorruptError),
        ("GET", "shorten", ArchiveCorruptError),
        ("HEAD", "fail", ObjectStoreUnavailableError),
    ],
)
@pytest.mark.parametrize("bucket", ["moto"], indirect=True)
def test_a_store_that_never_works_changes_nothing(
    far: Shelf,
    flaky: KnowledgeBase,
    proxy: FlakyProxy,
    method: str,
    fault: Fault,
    error: type[KbError],
) -> None:
    for late in (False, True):
        if late:
            far.append(8, 9)
        live = len(far.oracle.look().live)
        proxy.script(method, *[fault] * 60)
        with pytest.raises(error):
            flaky.archive_messages()
        far.oracle.check()
        assert len(far.oracle.look().live) == live
        proxy.forget()
        far.settle()


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_change_nothing_and_say_what_to_do(
    far: Shelf, open_settings: Open, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as changed:
        changed.setenv(name, "canary")
        stranger = open_settings(far.kb.settings)
        with pytest.raises(ObjectStoreError, match="may not be used") as caught:
            stranger.archive_messages()
    assert "credentials in the environment" in caught.value.fix
    assert "archive.uri" in caught.value.fix
    assert len(far.oracle.look().live) == 8
    far.oracle.check()
    far.settle()


def test_a_missing_bucket_changes_nothing_and_says_what_to_do(
    far: Shelf, make_settings: Make, open_settings: Open, bucket: Bucket
) -> None:
    lost = {"uri": "s3://nobucket/kb", "options": bucket.options}
    with pytest.raises(ObjectStoreError, match="no bucket for s3://nobucket/kb") as caught:
        open_settings(make_settings(archive=lost)).archive_messages()
    assert "archive.uri" in caught.value.fix
    assert len(far.oracle.look().live) == 8
    far.oracle.check()
    far.settle()


@pytest.fixture(params=["folder", "moto", "rclone"])
def place(request: pytest.FixtureRequest) -> tuple[Shelf, Objects, str]:
    """A shelf, its objects as seen from behind, and what their names begin with."""
    if request.param == "folder":
        shelf: Shelf = request.getfixturevalue("shelf")
        return shelf, FolderObjects(Path(shelf.kb.archive_store.uri)), ""
    server = request.getfixturevalue(request.param)
    bucket = server.new_bucket().known(request.getfixturevalue("monkeypatch"))
    archive = {"uri": bucket.uri(), "options": bucket.options}
    settings = request.getfixturevalue("make_settings")(archive=archive)
    kb = request.getfixturevalue("open_settings")(settings)
    shelf = Shelf(kb, lambda key: bucket.objects.read(f"kb/{key}"))
    request.addfinalizer(shelf.connections.close)
    shelf.append(*range(8))
    return shelf, bucket.objects, "kb/"


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": flipped,
    "truncated": lambda content: content[:-10],
    "empty": lambda content: b"",
}


def newest_object(shelf: Shelf) -> str:
    ((key,),) = shelf.oracle.execute(
        "select object_key from kb.archive_segment where object_key is not null"
        " order by id desc limit 1"
    )
    return str(key)


@pytest.mark.parametrize("damage", [*DAMAGE, "gone"])
@pytest.mark.parametrize("late", [False, True])
def test_an_object_that_is_damaged_before_it_is_verified_is_not_committed(
    place: tuple[Shelf, Objects, str], late: bool, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, objects, prefix = place
    if late:
        shelf.archive()
        shelf.append(*range(6, 12))
    live = len(shelf.oracle.look().live)

    def harm() -> None:
        name = prefix + newest_object(shelf)
        if damage == "gone":
            objects.remove(name)
        else:
            objects.write(name, DAMAGE[damage](objects.read(name)))

    with monkeypatch.context() as changed:
        interrupt("uploaded", harm, changed.setattr)
        with pytest.raises(ArchiveCorruptError, match="is not what its manifest says"):
            shelf.archive()
    assert shelf.states()[-1] == "stale"
    assert len(shelf.oracle.look().live) == live
    shelf.oracle.check()
    harmed = newest_object(shelf)
    shelf.settle()
    remove_leftovers(shelf.kb.archiver, shelf.kb.archive_store, datetime.now(UTC) + LATER)
    assert prefix + harmed not in objects.keys()  # noqa: SIM118
    shelf.settle()


@pytest.mark.parametrize("damage", [*DAMAGE, "gone"])
def test_an_object_that_is_damaged_after_the_commit_is_found_and_never_used(
    place: tuple[Shelf, Objects, str], damage: str
) -> None:
    shelf, objects, prefix = place
    shelf.archive()
    shelf.append(8, 9)
    name = prefix + newest_object(shelf)
    whole = objects.read(name)
    if damage == "gone":
        objects.remove(name)
    else:
        objects.write(name, DAMAGE[damage](whole))
    assert [one.segment for one in shelf.kb.verify_archive().damaged] == [1]
    for ask in (
        lambda: shelf.kb.query_messages("select count(*) from messages"),
        lambda: shelf.kb.restore_month(MARCH),
        shelf.archive,
    ):
        with pytest.raises(ArchiveCorruptError):
            ask()
    assert shelf.late() == {"m8", "m9"}
    objects.write(name, whole)
    shelf.oracle.check()
    assert shelf.kb.query_messages("select count(*) from messages").rows == [(10,)]
    shelf.settle()


def test_what_was_put_under_our_key_by_another_is_not_replaced(
    place: tuple[Shelf, Objects, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, objects, prefix = place

    def put_first() -> None:
        objects.write(prefix + newest_object(shelf), b"Somebody else's.")

    with monkeypatch.context() as changed:
        interrupt("noted", put_first, changed.setattr)
        with pytest.raises(ObjectStoreError, match="other content"):
            shelf.archive()
    assert objects.read(prefix + newest_object(shelf)) == b"Somebody else's."
    shelf.oracle.check()
    shelf.settle()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("closed", "DiskError"),
        ("noted", "ObjectStoreUnavailableError"),
        ("uploaded", "DiskError"),
    ],
)
def test_a_full_disk_says_so_and_nothing_is_deleted(
    shelf: Shelf, late: bool, step: str, error: str
) -> None:
    if late:
        shelf.archive()
        shelf.append(*range(6, 12))
    live = len(shelf.oracle.look().live)
    with ArchivingProcess(shelf.kb.settings, shelf.months, step, disk_bytes=1000) as process:
        assert f"kb_assets.errors.{error}: " in process.wait()
    assert len(shelf.oracle.look().live) == live
    shelf.oracle.check()
    shelf.settle()
