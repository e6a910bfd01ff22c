import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kb_assets.documents import beneath
from kb_assets.documents.files import LocalFolder
from kb_assets.documents.open import open_source
from kb_assets.documents.patterns import Patterns
from kb_assets.documents.source import Content, Entry
from kb_assets.errors import DocumentError, SourceError, SourceUnavailableError
from kb_assets.settings import SourceSettings

HOUR = 3600 * 10**9


def an_hour_later() -> int:
    return time.time_ns() + HOUR


def write(root: Path, *paths: str, text: str = "text") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def folder(
    root: Path,
    include: tuple[str, ...] = ("**/*.md",),
    exclude: tuple[str, ...] = (),
    *,
    limit: int = 1_000_000,
    clock: Callable[[], int] = an_hour_later,
) -> LocalFolder:
    return LocalFolder(root, Patterns(include, exclude), max_document_bytes=limit, clock=clock)


def listed(source: LocalFolder) -> dict[str, Entry]:
    entries = list(source.entries())
    assert len({entry.path for entry in entries}) == len(entries)
    return {entry.path: entry for entry in entries}


def reason(source: LocalFolder, entry: Entry) -> str:
    with pytest.raises(DocumentError) as caught:
        source.read(entry)
    assert entry.path.split("/")[-1] in caught.value.what
    return caught.value.reason


TREE = ("a.md", "B.MD", "docs/a.md", "docs/x/y.md", "docs/x/z.txt", "x/y/a.md", "notes/[old].md")


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (("**/*.md",), (), {"a.md", "docs/a.md", "docs/x/y.md", "x/y/a.md", "notes/[old].md"}),
        (("*.md",), (), {"a.md"}),
        (("docs/*.md",), (), {"docs/a.md"}),
        (("*/*.md",), (), {"docs/a.md", "notes/[old].md"}),
        (("docs/**/*.md",), (), {"docs/a.md", "docs/x/y.md"}),
        (("**/x/**/*.md",), (), {"docs/x/y.md", "x/y/a.md"}),
        (("docs/**",), (), {"docs/a.md", "docs/x/y.md", "docs/x/z.txt"}),
        (("./docs/",), (), {"docs/a.md", "docs/x/y.md", "docs/x/z.txt"}),
        (("**/?.md",), ("docs/**",), {"a.md", "x/y/a.md"}),
        (("**/*.md",), ("**/x/", "a.md"), {"docs/a.md", "notes/[old].md"}),
        (("**",), ("**/*.md", "**/*.MD"), {"docs/x/z.txt"}),
        (("notes/[old].md",), (), {"notes/[old].md"}),
        (("**/*.MD",), (), {"B.MD"}),
        ((), (), set()),
    ],
)
def test_patterns_choose_paths(
    tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], expected: set[str]
) -> None:
    write(tmp_path, *TREE)
    assert set(listed(folder(tmp_path, include, exclude))) == expected


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (("**/*.md",), {"a.md", ".draft.md"}),
        (("**/*.md", ".github/**/*.md"), {"a.md", ".draft.md", ".github/b.md", ".github/c/d.md"}),
        (("**/.git*/*.md",), {".github/b.md", ".git/c.md"}),
        (("**",), {"a.md", ".draft.md"}),
        (("*/*.md", "?git/*"), set()),
        (("*/c/*.md", ".git/*"), {".git/c.md"}),
    ],
)
def test_hidden_folders_are_entered_only_if_a_pattern_writes_the_dot(
    tmp_path: Path, include: tuple[str, ...], expected: set[str]
) -> None:
    write(tmp_path, "a.md", ".draft.md", ".github/b.md", ".github/c/d.md", ".git/c.md", ".kb/e.md")
    assert set(listed(folder(tmp_path, include))) == expected


def test_a_source_is_opened_from_settings_relative_to_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "docs/a.md", "docs/b.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    for uri, root in (("docs", tmp_path), ("~/docs", Path("/")), (str(tmp_path / "docs"), Path())):
        source = open_source(SourceSettings(name="s", uri=uri), root)
        assert [entry.path for entry in source.entries()] == ["a.md"]
        assert source.read(next(source.entries())).content == b"text"


def test_a_uri_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="ftp://"):
        open_source(SourceSettings(name="s", uri="ftp://host/docs"), tmp_path)


def test_a_token_changes_with_content_and_with_its_sidecar(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    source = folder(tmp_path)
    tokens = [listed(source)["a.md"].token]
    write(tmp_path, "a.md", text="TEXT")
    tokens.append(listed(source)["a.md"].token)
    os.utime(tmp_path / "a.md", (1, 1))
    tokens.append(listed(source)["a.md"].token)
    write(tmp_path, "a.md.meta.yaml", text="k: 1")
    tokens.append(listed(source)["a.md"].token)
    write(tmp_path, "a.md.meta.yaml", text="k: 2")
    tokens.append(listed(source)["a.md"].token)
    (tmp_path / "a.md.meta.yaml").unlink()
    assert listed(source)["a.md"].token == tokens[2]
    assert None not in tokens
    assert len(set(tokens)) == len(tokens)


def test_what_is_read_carries_the_token_of_the_listing(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.md", "b.md.meta.yaml")
    source = folder(tmp_path)
    entries = listed(source)
    assert set(entries) == {"a.md", "b.md"}
    assert entries["b.md"].sidecar == "b.md.meta.yaml"
    assert source.read(entries["a.md"]) == Content(b"text", None, entries["a.md"].token)
    assert source.read(entries["b.md"]) == Content(b"text", b"text", entries["b.md"].token)


def test_within_two_seconds_of_a_change_nothing_is_trusted(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    os.utime(tmp_path / "a.md", (1, 1))
    changed = (tmp_path / "a.md").stat().st_ctime_ns
    for age, trusted in ((1_999_999_999, False), (2_000_000_001, True)):
        source = folder(tmp_path, clock=lambda age=age: changed + age)
        entry = listed(source)["a.md"]
        assert (entry.token is not None) == trusted
        assert (source.read(entry).token is not None) == trusted


@pytest.mark.parametrize("written", ["a.md", "a.md.meta.yaml"])
def test_a_modification_time_close_to_now_is_not_trusted_either(
    tmp_path: Path, written: str
) -> None:
    write(tmp_path, "a.md", "a.md.meta.yaml")
    now = an_hour_later()
    for modified, trusted in ((now - 10**9, False), (now + 10**9, False), (now + HOUR, True)):
        os.utime(tmp_path / written, ns=(modified, modified))
        source = folder(tmp_path, clock=lambda: now)
        entry = listed(source)["a.md"]
        assert (entry.token is not None) == trusted
        assert (source.read(entry).token is not None) == trusted


@pytest.mark.parametrize("changed", ["a.md", "a.md.meta.yaml"])
def test_a_file_that_changes_while_it_is_read_has_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    write(tmp_path, "a.md", "a.md.meta.yaml")
    source = folder(tmp_path)
    entry = listed(source)["a.md"]
    target = (tmp_path / changed).stat().st_ino
    read = os.read

    def read_and_change(file: int, most: int) -> bytes:
        data = read(file, most)
        if os.fstat(file).st_ino == target:
            os.utime(tmp_path / changed, (1, 1))
        return data

    monkeypatch.setattr(beneath.os, "read", read_and_change)
    content = source.read(entry)
    assert content.content == b"text"
    assert content.token is None


def test_an_orphaned_sidecar_is_no_document(tmp_path: Path) -> None:
    write(tmp_path, "gone.md.meta.yaml")
    assert listed(folder(tmp_path, ("**",))) == {}


def test_a_sidecar_that_is_gone_when_read_counts_as_none(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "a.md.meta.yaml")
    source = folder(tmp_path)
    entry = listed(source)["a.md"]
    (tmp_path / "a.md.meta.yaml").unlink()
    assert source.read(entry) == Content(b"text", None, listed(source)["a.md"].token)


def test_a_huge_sidecar_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    write(tmp_path, "a.md.meta.yaml", text="k: " + "x" * 65_536)
    source = folder(tmp_path)
    assert reason(source, listed(source)["a.md"]) == "sidecar_too_large"


def test_links_to_files_inside_are_followed_and_out_of_it_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "docs/a.md")
    write(tmp_path, "secret.md", text="secret")
    links = {
        "inside.md": "docs/a.md",
        "docs/up.md": "../docs/a.md",
        "outside.md": "../secret.md",
        "absolute.md": str(tmp_path / "secret.md"),
        "sibling.md": str(tmp_path / "root2.md"),
        "broken.md": "nowhere.md",
        "loop.md": "loop.md",
    }
    for link, target in links.items():
        (root / link).symlink_to(target)
    source = folder(root)
    entries = listed(source)
    assert {path: entry.problem for path, entry in entries.items()} == {
        "docs/a.md": None,
        "inside.md": None,
        "docs/up.md": None,
        "outside.md": "outside_root",
        "absolute.md": "outside_root",
        "sibling.md": "outside_root",
        "broken.md": "broken_link",
        "loop.md": "broken_link",
    }
    for path in ("inside.md", "docs/up.md"):
        assert source.read(entries[path]) == Content(b"text", None, entries[path].token)
    for path, entry in entries.items():
        if entry.problem:
            assert reason(source, entry) == entry.problem, path


def test_a_link_turned_outside_after_the_listing_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "a.md", "docs/b.md", "deep/er/c.md")
    write(tmp_path, "secret.md", "b.md", "er/c.md", text="secret")
    source = folder(root)
    entries = listed(source)
    (root / "a.md").unlink()
    (root / "a.md").symlink_to("../secret.md")
    (root / "docs").rename(tmp_path / "moved")
    (root / "docs").symlink_to("..")
    (root / "deep").rename(tmp_path / "moved too")
    (root / "deep").symlink_to("..")
    assert reason(source, entries["a.md"]) == "outside_root"
    assert reason(source, entries["docs/b.md"]) == "vanished_while_reading"
    assert reason(source, entries["deep/er/c.md"]) == "vanished_while_reading"


@pytest.mark.parametrize(
    "path", ["../secret.md", "docs/../../secret.md", "/etc/hostname", "./a.md"]
)
def test_a_path_made_up_by_someone_cannot_leave_the_root(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    write(root, "a.md", "docs/a.md")
    write(tmp_path, "secret.md")
    assert reason(folder(root), Entry(path, None, 4)) == "outside_root"


def test_folders_that_are_links_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "docs/a.md")
    write(tmp_path, "other/b.md")
    (root / "docs" / "loop").symlink_to("..")
    (root / "inside").symlink_to("docs")
    (root / "outside").symlink_to("../other")
    (root / "folder.md").symlink_to("docs")
    (root / "folder2.md").symlink_to("../other")
    assert set(listed(folder(root))) == {"docs/a.md"}


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path, "real/docs/a.md")
    (tmp_path / "link").symlink_to("real")
    source = folder(tmp_path / "link")
    assert source.read(listed(source)["docs/a.md"]).content == b"text"


def test_pipes_and_sockets_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    os.mkfifo(tmp_path / "a.md.meta.yaml")
    write(tmp_path, "a.md")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.md"))
        source = folder(tmp_path)
        problems = {path: entry.problem for path, entry in listed(source).items()}
        assert problems == {
            "pipe.md": "not_a_file",
            "socket.md": "not_a_file",
            "a.md": "sidecar_not_a_file",
        }
        for entry in listed(source).values():
            assert reason(source, entry) == entry.problem
        # Swapped after the listing: opening must not wait for a writer.
        assert reason(source, Entry("pipe.md", None, 4)) == "not_a_file"
        assert reason(source, Entry("socket.md", None, 4)) == "not_a_file"


def test_names_that_are_not_utf8_are_reported_and_never_mistaken(tmp_path: Path) -> None:
    for name in (b"caf\xe9.md", b"caf\xe8.md"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_text("text")
    write(tmp_path, "caf\\xe9.md")
    entries = listed(folder(tmp_path))
    assert {path: entry.problem for path, entry in entries.items()} == {
        "./caf\\xe9.md": "name_not_utf8",
        "./caf\\xe8.md": "name_not_utf8",
        "caf\\xe9.md": None,
    }
    assert reason(folder(tmp_path), entries["./caf\\xe9.md"]) == "name_not_utf8"
    assert folder(tmp_path).read(entries["caf\\xe9.md"]).content == b"text"


def test_names_that_differ_in_case_or_composition_are_different_documents(tmp_path: Path) -> None:
    names = {"Readme.md", "readme.md", "caf\u00e9.md", "cafe\u0301.md", "new\nline.md", "a b.md"}
    write(tmp_path, *names)
    source = folder(tmp_path)
    assert set(listed(source)) == names
    assert all(source.read(entry).content == b"text" for entry in source.entries())


def test_a_gigabyte_is_refused_by_its_size_without_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "huge.md").open("wb") as file:
        file.truncate(2**30)
    source = folder(tmp_path)
    monkeypatch.setattr(beneath.os, "read", lambda *_: pytest.fail("it was read"))
    entry = listed(source)["huge.md"]
    assert entry.size_bytes == 2**30
    assert reason(source, entry) == "too_large"


def test_a_document_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    write(tmp_path, "a.md", text="12345678")
    assert folder(tmp_path, limit=8).read(Entry("a.md", None, 8)).content == b"12345678"
    assert reason(folder(tmp_path, limit=7), Entry("a.md", None, 8)) == "too_large"


def test_a_file_that_grows_past_the_limit_while_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.md")
    source = folder(tmp_path, limit=100)
    entry = listed(source)["a.md"]
    read = os.read

    def read_and_grow(file: int, most: int) -> bytes:
        data = read(file, most)
        with (tmp_path / "a.md").open("a") as more:
            more.write("x" * 120)
        return data

    monkeypatch.setattr(beneath.os, "read", read_and_grow)
    assert reason(source, entry) == "too_large"


def test_a_file_gone_after_the_listing_is_said_to_have_vanished(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "docs/b.md")
    source = folder(tmp_path)
    entries = listed(source)
    (tmp_path / "a.md").unlink()
    (tmp_path / "docs/b.md").unlink()
    (tmp_path / "docs").rmdir()
    assert reason(source, entries["a.md"]) == "vanished_while_reading"
    assert reason(source, entries["docs/b.md"]) == "vanished_while_reading"


def test_a_root_gone_after_the_listing_makes_the_source_unavailable(tmp_path: Path) -> None:
    write(tmp_path, "root/a.md")
    source = folder(tmp_path / "root")
    entry = listed(source)["a.md"]
    (tmp_path / "root").rename(tmp_path / "unmounted")
    with pytest.raises(SourceUnavailableError):
        source.read(entry)


@pytest.mark.parametrize("root", ["missing", "file.md"])
def test_a_root_that_is_no_folder_is_an_error_and_no_empty_source(
    tmp_path: Path, root: str
) -> None:
    write(tmp_path, "file.md")
    with pytest.raises(SourceError) as caught:
        list(folder(tmp_path / root).entries())
    assert str(tmp_path / root) in caught.value.what
    assert caught.value.why
    assert caught.value.fix


def test_a_folder_that_goes_while_listed_fails_the_listing(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "docs/b.md")
    entries = folder(tmp_path).entries()
    assert next(entries).path == "a.md"
    (tmp_path / "docs").rename(tmp_path / "moved")
    with pytest.raises(SourceUnavailableError, match="docs"):
        list(entries)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that another user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(root: Path, code: str) -> str:
    """Run code as a user whom permissions mean something to; the tests may run as root."""
    program = f"""
        import os
        from pathlib import Path
        from kb_assets.documents.files import LocalFolder
        from kb_assets.documents.patterns import Patterns
        from kb_assets.documents.source import Entry
        from kb_assets.errors import KbError
        if os.getuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        patterns = Patterns(["**/*.md"], ["private/**"])
        source = LocalFolder(Path({str(root)!r}), patterns, max_document_bytes=100)
        try:
            {code}
        except KbError as error:
            print(type(error).__name__, getattr(error, "reason", ""))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LIST = "print(sorted((e.path, e.problem) for e in source.entries()))"


def test_an_unreadable_file_is_refused_and_the_others_are_read(public: Path) -> None:
    write(public, "root/a.md", "root/b.md")
    (public / "root/b.md").chmod(0)
    assert as_nobody(public / "root", LIST) == "[('a.md', None), ('b.md', None)]"
    assert as_nobody(public / "root", "source.read(Entry('b.md', None, 4))") == (
        "DocumentError unreadable"
    )


def test_an_unreadable_folder_fails_the_listing_unless_it_is_excluded(public: Path) -> None:
    write(public, "root/a.md", "root/closed/b.md", "root/private/c.md")
    (public / "root/private").chmod(0)
    assert "closed/b.md" in as_nobody(public / "root", LIST)
    (public / "root/closed").chmod(0)
    assert as_nobody(public / "root", LIST) == "SourceUnavailableError"


def test_a_root_that_may_not_be_read_is_an_error(public: Path) -> None:
    write(public, "root/a.md")
    (public / "root").chmod(0)
    assert as_nobody(public / "root", LIST) == "SourceError"


def test_a_path_too_long_for_an_index_is_listed_shortened_and_refused(tmp_path: Path) -> None:
    deep = "/".join(["d" * 249] * 8)
    write(tmp_path, f"{deep}/a.md", f"{deep}/b.md", "c.md")
    source = folder(tmp_path)
    entries = listed(source)
    refused = [entry for entry in entries.values() if entry.problem is not None]
    assert len(entries) == 3
    assert len(refused) == 2
    for entry in refused:
        assert len(entry.path.encode()) < 2000
        assert reason(source, entry) == "path_too_long"
