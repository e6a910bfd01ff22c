"""Objects in a folder, over S3 as moto speaks it, and as rclone's gateway does."""

import hashlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kb_assets.errors import NotFoundError, ObjectStoreError, ObjectStoreUnavailableError
from kb_assets.object_store import ObjectStore
from tests.servers.flaky_proxy import Fault, FlakyProxy
from tests.servers.s3_servers import Bucket, FolderObjects, MotoServer, Objects, RcloneServer

KEY = "message/year=2025/month=03/0000000001-ab.parquet"
CONTENT = bytes(range(256)) * 1000


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
def strict_bucket(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket in a store that knows conditional puts."""
    return moto.new_bucket().known(monkeypatch)


@dataclass(frozen=True)
class Place:
    """A store, and what is in it, seen from behind."""

    uri: str
    objects: Objects
    options: dict[str, str] = field(default_factory=dict)
    prefix: str = ""

    def store(self) -> ObjectStore:
        return ObjectStore(self.uri, self.options, setting="archive.uri")

    @property
    def raw(self) -> bytes:
        return self.objects.read(self.prefix + KEY)

    def overwrite(self, content: bytes) -> None:
        self.objects.write(self.prefix + KEY, content)


def in_bucket(bucket: Bucket, proxy: FlakyProxy | None = None) -> Place:
    endpoint = {"endpoint": proxy.url} if proxy else {}
    return Place(bucket.uri(), bucket.objects, bucket.options | endpoint, "kb/")


def in_folder(folder: Path) -> Place:
    return Place(str(folder / "deep" / "archive"), FolderObjects(folder / "deep" / "archive"))


@pytest.fixture(params=["folder", "moto", "rclone"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "folder":
        return in_folder(tmp_path)
    return in_bucket(request.getfixturevalue(request.param).new_bucket().known(monkeypatch))


@pytest.fixture(params=["folder", "moto"])
def strict_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place that is asked to make an object, and does not replace one."""
    if request.param == "folder":
        return in_folder(tmp_path)
    return in_bucket(request.getfixturevalue("strict_bucket"))


@pytest.fixture
def flaky(bucket: Bucket, proxy: FlakyProxy) -> Place:
    return in_bucket(bucket, proxy)


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return file


def put(store: ObjectStore, file: Path) -> None:
    store.put_file(KEY, file, sha256(file.read_bytes()))


def test_what_was_put_is_there(place: Place, file: Path, tmp_path: Path) -> None:
    store = place.store()
    assert store.size(KEY) is None
    put(store, file)
    assert place.raw == CONTENT
    assert store.size(KEY) == len(CONTENT)
    assert store.read(KEY) == CONTENT
    copy = tmp_path / "copy"
    assert store.fetch(KEY, copy) == (len(CONTENT), sha256(CONTENT))
    assert copy.read_bytes() == CONTENT
    assert store.url(KEY) == f"{place.uri}/{KEY}"


def test_small_things_and_nothing_can_be_put(place: Place) -> None:
    store = place.store()
    store.put_bytes("a.json", b"{}")
    store.put_bytes("empty", b"")
    assert store.read("a.json") == b"{}"
    assert store.read("empty") == b""
    assert store.size("empty") == 0


def test_the_same_can_be_put_again(place: Place, file: Path) -> None:
    for _ in range(2):
        put(place.store(), file)
    assert place.raw == CONTENT
    assert len(place.objects.keys()) == 1


@pytest.mark.parametrize(("start", "size"), [(0, 1), (4095, 100_000), (255_999, None), (7, 0)])
def test_a_slice_of_a_file_can_be_put(
    place: Place, file: Path, start: int, size: int | None
) -> None:
    wanted = CONTENT[start:] if size is None else CONTENT[start : start + size]
    place.store().put_file(KEY, file, sha256(wanted), start=start, size=size)
    assert place.raw == wanted
    place.store().put_file(KEY, file, sha256(wanted), start=start, size=size)


def test_keys_are_listed_by_whole_parts(place: Place) -> None:
    store = place.store()
    assert list(store.list()) == []
    keys = {"a/b", "a/b c/d%20", "a/.x.part/y", "ab/c", "a.json"}
    for key in keys:
        store.put_bytes(key, b"x")
    assert sorted(store.list()) == sorted(keys)
    assert sorted(store.list("a/")) == sorted(key for key in keys if key.startswith("a/"))
    assert list(store.list("nothing/")) == []


def test_many_keys_are_listed(place: Place) -> None:
    for number in range(1100):
        place.objects.write(f"{place.prefix}many/{number}", b"")
    assert sorted(place.store().list("many/")) == sorted(f"many/{n}" for n in range(1100))


def test_empty_folders_are_removed_and_nothing_else(place: Place) -> None:
    store = place.store()
    for key in ("a/b/c", "a/d", "e"):
        store.put_bytes(key, b"x")
    store.delete(["a/b/c"])
    store.tidy("a/")
    store.tidy("nothing/")
    assert sorted(store.list()) == ["a/d", "e"]
    if isinstance(place.objects, FolderObjects):
        assert [found.name for found in (place.objects.folder / "a").iterdir()] == ["d"]
    store.delete(["a/d"])
    store.tidy("a/")
    if isinstance(place.objects, FolderObjects):
        assert [found.name for found in place.objects.folder.iterdir()] == ["e"]


@pytest.mark.parametrize("other", [b"other", bytes(len(CONTENT)), b""])
def test_other_content_is_never_replaced(place: Place, file: Path, other: bytes) -> None:
    place.overwrite(other)
    with pytest.raises(ObjectStoreError, match="other content"):
        put(place.store(), file)
    assert place.raw == other


@pytest.mark.parametrize("other", [CONTENT, bytes(len(CONTENT))])
def test_what_another_put_after_we_looked_is_not_replaced(
    strict_place: Place, file: Path, other: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = strict_place.store()
    strict_place.overwrite(other)
    monkeypatch.setattr(store, "size", lambda key: None)
    if other == CONTENT:
        put(store, file)
    else:
        with pytest.raises(ObjectStoreError, match="other content"):
            put(store, file)
    assert strict_place.raw == other


def test_what_is_not_there_is_said_not_to_be_there(place: Place, tmp_path: Path) -> None:
    store = place.store()
    store.put_bytes("a", b"a")
    for ask in (lambda: store.read(KEY), lambda: store.fetch(KEY, tmp_path / "copy")):
        with pytest.raises(NotFoundError, match="0000000001-ab"):
            ask()


def test_objects_are_deleted_and_those_that_are_gone_are_fine(place: Place, file: Path) -> None:
    store = place.store()
    put(store, file)
    store.put_bytes("kept", b"kept")
    store.delete(["gone", KEY, "gone too"])
    assert place.objects.keys() == [f"{place.prefix}kept"]
    store.delete([KEY])
    assert store.size(KEY) is None


@pytest.mark.parametrize("size", [0, 1, 20 * 1024 * 1024])
def test_a_file_is_one_request(flaky: Place, proxy: FlakyProxy, file: Path, size: int) -> None:
    file.write_bytes(os.urandom(size))
    put(flaky.store(), file)
    assert [seen.method for seen in proxy.seen] == ["HEAD", "PUT", "HEAD"]
    assert flaky.raw == file.read_bytes()


FRUGAL = """
import resource, sys
from pathlib import Path
from kb_assets.object_store import ObjectStore

store = ObjectStore(sys.argv[1], {"endpoint": sys.argv[2], "allow_http": "true"})
store.put_bytes("first", b"")
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
most = (int(status["VmData"].split()[0]) + 48 * 1024) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
store.put_file(sys.argv[3], Path(sys.argv[4]), b"")
"""


def test_a_large_file_is_not_held_in_memory(
    rclone: RcloneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = rclone.new_bucket().known(monkeypatch)
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(64 * 1024 * 1024)
    arguments = [bucket.uri(), bucket.endpoint, KEY, str(file)]
    subprocess.run([sys.executable, "-c", FRUGAL, *arguments], check=True)
    assert in_bucket(bucket).store().size(KEY) == file.stat().st_size


@pytest.mark.parametrize(
    "fault", ["lose", "lose_and_fail", "refuse", "fail", "too_slow", "error_body"]
)
def test_one_put_that_goes_wrong_is_made_good(
    flaky: Place, proxy: FlakyProxy, file: Path, fault: Fault
) -> None:
    proxy.script("PUT", fault)
    put(flaky.store(), file)
    assert flaky.raw == CONTENT
    assert len(flaky.objects.keys()) == 1


def test_a_lost_acknowledgement_is_not_sent_again(strict_bucket: Bucket, file: Path) -> None:
    with FlakyProxy(strict_bucket.endpoint) as proxy:
        proxy.script("PUT", "lose")
        put(in_bucket(strict_bucket, proxy).store(), file)
    assert [(seen.method, seen.status) for seen in proxy.seen] == [
        *(("HEAD", 404), ("PUT", 0), ("GET", 200)),
    ]


@pytest.mark.parametrize("fault", ["refuse", "fail", "too_slow", "error_body"])
def test_a_put_that_never_works_is_unavailable(
    flaky: Place, proxy: FlakyProxy, file: Path, fault: Fault
) -> None:
    proxy.script("PUT", *[fault] * 20)
    with pytest.raises(ObjectStoreUnavailableError):
        put(flaky.store(), file)
    assert flaky.objects.keys() == []


def test_a_store_that_refuses_conditional_puts_gets_plain_ones(
    flaky: Place, proxy: FlakyProxy, file: Path
) -> None:
    proxy.script("PUT", *["unsupported"] * 20)
    put(flaky.store(), file)
    assert flaky.raw == CONTENT


def test_conditional_puts_can_be_switched_off(bucket: Bucket, file: Path) -> None:
    place = in_bucket(bucket)
    place.options["conditional_put"] = "disabled"
    put(place.store(), file)
    assert place.raw == CONTENT


def test_a_download_that_breaks_off_goes_on(flaky: Place, proxy: FlakyProxy, file: Path) -> None:
    flaky.overwrite(CONTENT)
    proxy.script("GET", "cut")
    assert flaky.store().fetch(KEY, file) == (len(CONTENT), sha256(CONTENT))


def test_a_download_that_always_breaks_off_is_unavailable(
    flaky: Place, proxy: FlakyProxy, file: Path
) -> None:
    flaky.overwrite(CONTENT)
    proxy.script("GET", *["cut"] * 20)
    with pytest.raises(ObjectStoreUnavailableError):
        flaky.store().fetch(KEY, file)


@pytest.mark.parametrize("fault", ["shorten", "flip", "error_body"])
def test_a_download_that_is_wrong_has_another_hash(
    flaky: Place, proxy: FlakyProxy, file: Path, fault: Fault
) -> None:
    flaky.overwrite(CONTENT)
    proxy.script("GET", fault)
    assert flaky.store().fetch(KEY, file)[1] != sha256(CONTENT)


def test_a_put_is_not_done_if_what_is_read_back_is_wrong(
    flaky: Place, proxy: FlakyProxy, file: Path
) -> None:
    proxy.script("PUT", "lose")
    proxy.script("GET", "flip")
    with pytest.raises(ObjectStoreError, match="other content"):
        put(flaky.store(), file)


def everything(store: ObjectStore, file: Path) -> list[Callable[[], object]]:
    return [
        lambda: put(store, file),
        lambda: store.read(KEY),
        lambda: store.fetch(KEY, file.with_name("copy")),
        lambda: store.delete([KEY]),
        lambda: list(store.list()),
    ]


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_say_what_to_do(
    bucket: Bucket, file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = in_bucket(bucket)
    place.overwrite(CONTENT)
    monkeypatch.setenv(name, "canary")
    store = place.store()
    for ask in (*everything(store, file), lambda: store.size(KEY)):
        with pytest.raises(ObjectStoreError, match="may not be used") as caught:
            ask()
        assert "credentials in the environment" in caught.value.fix
        assert "archive.uri" in caught.value.fix
    assert place.raw == CONTENT


def test_a_missing_bucket_says_what_to_do(bucket: Bucket, file: Path) -> None:
    store = ObjectStore("s3://nobucket/kb", bucket.options, setting="archive.uri")
    for ask in everything(store, file):
        with pytest.raises(ObjectStoreError, match="no bucket for s3://nobucket/kb") as caught:
            ask()
        assert "archive.uri" in caught.value.fix


def test_a_server_that_is_not_there_is_unavailable(bucket: Bucket, file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        store = ObjectStore(bucket.uri(), {**bucket.options, "endpoint": closed})
        with pytest.raises(ObjectStoreUnavailableError):
            put(store, file)


@pytest.mark.parametrize(
    ("uri", "options", "said"),
    [
        ("s3://b/kb", {"access_key_id": "k", "secret_access_key": "canary"}, "is a secret"),
        ("s3://b/kb", {"endpint": "x"}, "cannot be opened"),
        ("memory:///kb", {}, "cannot be opened"),
        ("http://127.0.0.1/kb", {}, "cannot be opened"),
    ],
)
def test_what_is_no_store_of_ours_is_refused(uri: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(ObjectStoreError, match=said) as caught:
        ObjectStore(uri, options)
    assert "canary" not in str(caught.value)


def test_a_folder_can_be_given_as_an_address(tmp_path: Path) -> None:
    ObjectStore((tmp_path / "a b").as_uri()).put_bytes(KEY, b"x")
    assert (tmp_path / "a b" / KEY).read_bytes() == b"x"


def test_a_file_is_no_folder(file: Path) -> None:
    with pytest.raises(ObjectStoreError, match="cannot be used"):
        ObjectStore(str(file))


def test_a_file_and_its_folders_are_on_the_disk_before_it_is_there(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = in_folder(tmp_path).store()
    target = Path(store.url(KEY))
    synced: list[tuple[str, bool]] = []

    def record(handle: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{handle}").readlink()), target.exists()))

    monkeypatch.setattr(os, "fsync", record)
    put(store, file)
    *folders, (part, was_there), last = synced
    above = target.parents
    assert folders == [(str(folder), False) for folder in (above[3], above[2], above[1])]
    assert part.endswith(".part")
    assert not was_there
    assert last == (str(target.parent), True)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file grow beyond a size."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, file: Path) -> None:
    place = in_folder(tmp_path)
    store = place.store()
    with disk_of(len(CONTENT) - 1), pytest.raises(ObjectStoreUnavailableError, match="large"):
        put(store, file)
    assert place.objects.keys() == []
    put(store, file)
    assert place.raw == CONTENT


KILLED = """
import os, sys, time
from pathlib import Path
from kb_assets.object_store import ObjectStore

os.fsync = lambda handle: time.sleep(600) if os.path.isfile(f"/proc/self/fd/{handle}") else None
ObjectStore(sys.argv[1]).put_file(sys.argv[2], Path(sys.argv[3]), b"")
"""


def test_a_killed_process_leaves_no_object_and_its_litter_is_deleted(
    tmp_path: Path, file: Path
) -> None:
    place = in_folder(tmp_path)
    command = [sys.executable, "-c", KILLED, place.uri, KEY, str(file)]
    process = subprocess.Popen(command)
    give_up = time.monotonic() + 30
    while not list(Path(place.uri).rglob("*.part")) and time.monotonic() < give_up:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = place.store()
    assert len(place.objects.keys()) == 1
    assert store.size(KEY) is None
    assert list(store.list()) == []
    store.delete([KEY])
    assert place.objects.keys() == []
