"""Objects over the real S3 protocol, spoken by moto on loopback."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kb_assets.documents.open import open_source
from kb_assets.documents.pairing import Object, paired
from kb_assets.documents.source import Content, DocumentSource, Entry
from kb_assets.errors import DocumentError, SourceError, SourceUnavailableError
from kb_assets.settings import SourceSettings
from tests.servers.s3_servers import MotoServer


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@dataclass(frozen=True)
class Bucket:
    name: str
    endpoint: str
    s3: Any

    def write(self, key: str, content: bytes = b"text") -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self.s3.delete_object(Bucket=self.name, Key=key)

    def source(self, prefix: str = "kb", **settings: Any) -> DocumentSource:
        options = {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "allow_http": "true",
            **settings.pop("options", {}),
        }
        uri = f"s3://{self.name}/{prefix}"
        return open_source(SourceSettings(name="s", uri=uri, options=options, **settings), Path())


@pytest.fixture
def bucket(server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = server.new_bucket()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return Bucket(made.name, made.endpoint, server.s3)


def listed(source: DocumentSource) -> dict[str, Entry]:
    entries = list(source.entries())
    assert len({entry.path for entry in entries}) == len(entries)
    return {entry.path: entry for entry in entries}


def test_objects_below_the_prefix_are_listed_and_read(bucket: Bucket) -> None:
    paths = ("a.md", "x/y/b.md", "100%.md", "a b#c?.md", "ä*~.md", "back\\slash.md")
    for path in paths:
        bucket.write(f"kb/{path}", path.encode())
    for other in ("kb2/c.md", "kb.md", "kb/d.png", "kb/.git/e.md"):
        bucket.write(other)
    source = bucket.source()
    entries = listed(source)
    assert set(entries) == set(paths)
    for path, entry in entries.items():
        assert entry.size_bytes == len(path.encode())
        assert entry.token is not None
        assert source.read(entry) == Content(path.encode(), None, entry.token)


def test_the_whole_bucket_can_be_the_source(bucket: Bucket) -> None:
    bucket.write("a.md")
    bucket.write("x/b.md")
    source = bucket.source(prefix="")
    assert set(listed(source)) == {"a.md", "x/b.md"}
    assert source.read(listed(source)["x/b.md"]).content == b"text"


def test_a_token_changes_with_content_and_with_its_sidecar(bucket: Bucket) -> None:
    source = bucket.source()
    bucket.write("kb/a.md", b"one")
    tokens = [listed(source)["a.md"].token]
    bucket.write("kb/a.md", b"two")
    tokens.append(listed(source)["a.md"].token)
    bucket.write("kb/a.md.meta.yaml", b"k: 1")
    tokens.append(listed(source)["a.md"].token)
    bucket.write("kb/a.md.meta.yaml", b"k: 2")
    entry = listed(source)["a.md"]
    tokens.append(entry.token)
    assert None not in tokens
    assert len(set(tokens)) == 4
    assert source.read(entry) == Content(b"two", b"k: 2", entry.token)
    bucket.delete("kb/a.md.meta.yaml")
    assert source.read(entry) == Content(b"two", None, tokens[1])
    assert listed(source)["a.md"].token == tokens[1]


def test_the_token_is_that_of_the_bytes_that_were_read(bucket: Bucket) -> None:
    source = bucket.source()
    bucket.write("kb/a.md", b"one")
    before = listed(source)["a.md"]
    bucket.write("kb/a.md", b"two")
    content = source.read(before)
    assert content.content == b"two"
    assert content.token == listed(source)["a.md"].token != before.token


def test_versioned_buckets_give_the_same_token_when_listed_and_when_read(bucket: Bucket) -> None:
    bucket.s3.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    bucket.write("kb/a.md", b"one")
    source = bucket.source()
    entry = listed(source)["a.md"]
    assert source.read(entry).token == entry.token


def test_more_objects_than_a_page_holds_are_all_listed_with_their_sidecars(bucket: Bucket) -> None:
    for number in range(1100):
        bucket.write(f"kb/{number:04}.md", b"")
    for number in range(990, 1010):
        bucket.write(f"kb/{number:04}.md.meta.yaml", b"")
    entries = listed(bucket.source())
    assert set(entries) == {f"{number:04}.md" for number in range(1100)}
    assert {path for path, entry in entries.items() if entry.sidecar} == {
        f"{number:04}.md" for number in range(990, 1010)
    }


def test_a_listing_is_streamed_and_not_hoarded() -> None:
    taken = 0

    def objects() -> Iterator[Object]:
        nonlocal taken
        for taken in range(1, 1001):
            yield Object(f"folder/{taken:08}.md", "token", 1)

    for given, _ in enumerate(paired(objects(), lambda path: True), start=1):
        assert taken - given <= 1
    assert given == 1000


KEYS = ("a.md", "a.md!", "a.md-x/b.md", "a.md.md", "a.md.meta.yaml", "a.md/c.md", "a.mdx", "b.md")


def pairs(keys: list[str]) -> dict[str, str | None]:
    objects = [Object(key, f"<{key}>", 1) for key in keys]
    entries = list(paired(objects, lambda path: path.endswith((".md", "!", "x"))))
    assert all(
        entry.token == f"<{entry.path}>" + (f"+<{entry.sidecar}>" if entry.sidecar else "")
        for entry in entries
    )
    return {entry.path: entry.sidecar for entry in entries}


def test_sidecars_find_their_documents_across_the_keys_between() -> None:
    keys = sorted((*KEYS, "gone.md.meta.yaml", "b.png.meta.yaml"), key=str.encode)
    assert pairs(keys) == {
        key: "a.md.meta.yaml" if key == "a.md" else None
        for key in KEYS
        if not key.endswith(".meta.yaml")
    }


def test_a_sidecar_that_comes_first_is_kept_for_its_document() -> None:
    assert pairs(["z.md.meta.yaml", "a.md", "z.md"]) == {"a.md": None, "z.md": "z.md.meta.yaml"}


def test_a_sidecar_that_comes_too_late_fails_the_listing() -> None:
    with pytest.raises(SourceError, match=r"a\.md\.meta\.yaml"):
        pairs(["a.md", "z.md", "a.md.meta.yaml"])


def reason(source: DocumentSource, entry: Entry) -> str:
    with pytest.raises(DocumentError) as caught:
        source.read(entry)
    return caught.value.reason


def test_an_object_gone_after_the_listing_is_said_to_have_vanished(bucket: Bucket) -> None:
    bucket.write("kb/a.md")
    source = bucket.source()
    entry = listed(source)["a.md"]
    bucket.delete("kb/a.md")
    assert reason(source, entry) == "vanished_while_reading"


def test_objects_over_the_limit_are_refused(bucket: Bucket) -> None:
    bucket.write("kb/a.md", b"12345678")
    bucket.write("kb/b.md", b"1")
    bucket.write("kb/b.md.meta.yaml", b"k" * 65_537)
    entries = listed(bucket.source())
    assert bucket.source(max_document_bytes=8).read(entries["a.md"]).content == b"12345678"
    assert reason(bucket.source(max_document_bytes=7), entries["a.md"]) == "too_large"
    assert reason(bucket.source(), entries["b.md"]) == "sidecar_too_large"


def test_a_path_made_up_by_someone_cannot_leave_the_prefix(bucket: Bucket) -> None:
    bucket.write("secret.md", b"secret")
    assert reason(bucket.source(), Entry("../secret.md", None, 1)) == "outside_root"


def test_a_missing_bucket_is_an_error_and_no_empty_source(bucket: Bucket) -> None:
    source = replace(bucket, name="nobucket").source()
    with pytest.raises(SourceError, match="s3://nobucket/kb"):
        list(source.entries())
    with pytest.raises(SourceError, match="s3://nobucket/kb"):
        source.read(Entry("a.md", None, 1))


def test_a_prefix_with_nothing_below_it_is_empty(bucket: Bucket) -> None:
    assert listed(bucket.source("nothing/here")) == {}


def test_a_server_that_does_not_answer_makes_the_source_unavailable(bucket: Bucket) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        source = replace(bucket, endpoint=closed).source()
        with pytest.raises(SourceUnavailableError):
            list(source.entries())
        with pytest.raises(SourceUnavailableError):
            source.read(Entry("a.md", None, 1))


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_refused_credentials_are_an_error_of_the_source(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bucket.write("kb/a.md")
    entry = listed(bucket.source())["a.md"]
    monkeypatch.setenv(name, "wrong")
    source = bucket.source()
    with pytest.raises(SourceError, match="may not be read"):
        list(source.entries())
    with pytest.raises(SourceError, match="may not be read"):
        source.read(entry)


@pytest.mark.parametrize("key", ["kb//a.md", "kb/./a.md"])
def test_a_key_that_is_no_path_fails_the_listing_and_is_named(bucket: Bucket, key: str) -> None:
    bucket.write("kb/b.md")
    bucket.write(key)
    with pytest.raises(SourceError) as caught:
        list(bucket.source().entries())
    assert key in caught.value.why


@pytest.mark.parametrize(
    "options",
    [
        {"secret_access_key": "canary"},
        {"aws_session_token": "canary"},
        {"endpint": "x"},
        {"connect_timeout": "soon"},
    ],
)
def test_options_that_are_secret_or_unknown_are_refused(
    bucket: Bucket, options: dict[str, str]
) -> None:
    with pytest.raises(SourceError) as caught:
        bucket.source(options=options)
    assert "canary" not in str(caught.value)


def test_plain_http_is_refused_unless_it_is_allowed(bucket: Bucket) -> None:
    with pytest.raises(SourceError, match="as it is set up"):
        list(bucket.source(options={"allow_http": "false"}).entries())
