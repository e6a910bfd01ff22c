"""What a look at the sources starts, and when it starts nothing; ticks are driven, effects seen."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from kb_assets import KnowledgeBase
from kb_assets.chunks.plan import recipe_of
from kb_assets.defs.build import build_definitions
from kb_assets.defs.index_runs import JOB
from kb_assets.defs.partitions import EXECUTION_VARIABLE, SHARD_TAG
from kb_assets.defs.processes import process_tags
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.defs.source_changes import SENSOR
from kb_assets.documents.files import LocalFolder
from kb_assets.documents.listing import Listed
from kb_assets.documents.patterns import Patterns
from kb_assets.documents.source import Entry
from kb_assets.documents.watch import SideBySide, Watcher, fingerprints
from kb_assets.errors import SourceError
from kb_assets.fingerprints import shards_of
from kb_assets.settings import Settings, SourceSettings
from tests.defs.conftest import index, write_config, write_documents

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.usefixtures("settled"),
]


class Watch:
    """The sensor, tick by tick, and runs for what it asks for."""

    def __init__(self, kb: KnowledgeBase, instance: dg.DagsterInstance) -> None:
        resource = KnowledgeBaseResource(kb.settings, knowledge_base=kb)
        self.instance = instance
        self.definitions = build_definitions(kb.settings, resource)
        self.resources = {"knowledge_base": resource}
        self.cursor: str | None = None
        self.skipped = ""

    def tick(self, *, remember: bool = True) -> list[dg.RunRequest]:
        """Evaluate the sensor once, as Dagster's daemon does."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            repository_def=self.definitions.get_repository_def(),
            resources=self.resources,
            sensor_name=SENSOR,
        ) as context:
            data = self.definitions.resolve_sensor_def(SENSOR).evaluate_tick(context)
        if remember:
            self.cursor = data.cursor
        self.skipped = data.skip_message or ""
        return list(data.run_requests or [])

    def run(self, requests: list[dg.RunRequest]) -> list[bool]:
        """Execute what was asked for, here and now."""
        job = self.definitions.resolve_job_def(JOB)
        return [
            job.execute_in_process(
                instance=self.instance, tags=dict(request.tags), raise_on_error=False
            ).success
            for request in requests
        ]

    def going(self, request: dg.RunRequest) -> dg.DagsterRun:
        """Pretend that a run over the same shards has started."""
        run = self.instance.create_run_for_job(
            self.definitions.resolve_job_def(JOB), tags={**request.tags, **process_tags()}
        )
        self.instance.report_run_canceling(run)
        return run


@pytest.fixture
def watch(kb: KnowledgeBase) -> Iterator[Watch]:
    with dg.instance_for_test() as instance:
        yield Watch(kb, instance)


def shards(requests: list[dg.RunRequest]) -> list[str]:
    return [request.tags[SHARD_TAG] for request in requests]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file counts as just written, so that tests need not wait until it does not."""
    monkeypatch.setattr("kb_assets.documents.files._RACY_NS", 0)


def found(kb: KnowledgeBase) -> set[str]:
    hits = kb.search("number lighthouses", mode="lexical", limit=50).hits
    return {hit.path for hit in hits}


def test_the_first_tick_starts_what_was_never_read_and_the_next_one_nothing(
    kb: KnowledgeBase, watch: Watch
) -> None:

    first = watch.tick()
    again = watch.tick()

    assert shards(first) == ["wiki-01-of-04...wiki-04-of-04"]
    assert again == []
    assert watch.run(first) == [True]
    assert len(found(kb)) == 12
    assert watch.tick() == []
    assert watch.skipped == "No source changed."


def test_what_a_run_has_read_is_not_started_whoever_started_that(
    kb: KnowledgeBase, watch: Watch
) -> None:
    index(kb)

    assert watch.tick() == []


def test_only_the_shard_of_a_changed_document_is_started(kb: KnowledgeBase, watch: Watch) -> None:
    folder = kb.settings.root / "wiki"
    index(kb)
    watch.tick()

    (folder / "document-3.md").write_text("# Document 3\n\nNow it is about lighthouses in fog.\n")
    (own,) = [one for one in kb.settings.shards if one.owns("document-3.md")]
    requests = watch.tick()

    assert shards(requests) == [own.key]
    assert watch.run(requests) == [True]
    assert any("fog" in hit.text for hit in kb.search("fog", mode="lexical").hits)


def test_a_new_and_a_deleted_document_are_changes(kb: KnowledgeBase, watch: Watch) -> None:
    folder = kb.settings.root / "wiki"
    index(kb)
    watch.tick()

    (folder / "document-5.md").rename(folder / "other.md")
    watch.run(watch.tick())

    assert "other.md" in found(kb)
    assert "document-5.md" not in found(kb)


def test_a_shard_that_a_run_works_on_is_started_when_that_has_ended(
    kb: KnowledgeBase, watch: Watch
) -> None:
    requests = watch.tick(remember=False)
    run = watch.going(requests[0])

    assert watch.tick() == []
    assert "being worked on: wiki-01-of-04" in watch.skipped
    watch.instance.report_run_canceled(run)
    assert shards(watch.tick()) == shards(requests)


def test_ticks_that_overlap_ask_for_one_run_and_a_state_that_comes_again_for_another(
    kb: KnowledgeBase, watch: Watch
) -> None:
    one, other = watch.tick(remember=False), watch.tick()
    assert [request.run_key for request in one] == [request.run_key for request in other]

    watch.run(one)
    watch.cursor = None
    with kb.database.transaction() as connection:
        connection.execute("update kb.shard set listing_fingerprint = null")
    (again,) = watch.tick()

    assert again.run_key != one[0].run_key


def test_in_a_cluster_every_shard_is_a_run(
    kb: KnowledgeBase, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXECUTION_VARIABLE, "cluster")

    assert shards(watch.tick()) == [shard.key for shard in kb.settings.shards]


def test_a_run_that_fails_is_left_to_the_schedule(kb: KnowledgeBase, watch: Watch) -> None:
    """A provider that is down is not asked every half minute."""
    assert len(watch.tick()) == 1
    assert watch.tick() == []


def test_an_empty_folder_starts_one_run_that_deletes_nothing(
    kb: KnowledgeBase, watch: Watch
) -> None:
    """As a disk that is not mounted looks."""
    folder = kb.settings.root / "wiki"
    index(kb)
    watch.tick()

    folder.rename(kb.settings.root / "elsewhere")
    folder.mkdir()
    requests = watch.tick()
    watch.run(requests)

    assert len(requests) == 1
    assert len(found(kb)) == 12
    assert sum(one.account.missing for one in kb.status().shards) == 12
    assert watch.tick() == []
    folder.rmdir()
    (kb.settings.root / "elsewhere").rename(folder)
    watch.run(watch.tick())
    assert len(found(kb)) == 12
    assert sum(one.account.missing for one in kb.status().shards) == 0


def test_a_source_that_cannot_be_listed_keeps_no_other_from_being_watched(
    environment: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_config(tmp_path, handbook=1, wiki=1)
    write_documents(tmp_path / "wiki", 3)
    (tmp_path / "handbook").rmdir()

    with KnowledgeBase.open(file) as kb, dg.instance_for_test() as instance:
        watch = Watch(kb, instance)
        assert shards(watch.tick()) == ["wiki"]
        assert watch.tick() == []
        assert capfd.readouterr().err.count("handbook is not watched") == 1
        assert "does not exist" in watch.skipped
        (tmp_path / "handbook").mkdir()
        write_documents(tmp_path / "handbook", 1)
        assert shards(watch.tick()) == ["handbook"]


def test_object_stores_are_watched_only_if_they_ask_for_it(tmp_path: Path) -> None:
    def watched(watch: bool | None, uri: str) -> bool:
        return SourceSettings(name="docs", uri=uri, watch=watch).is_watched

    assert watched(None, "docs")
    assert not watched(None, "s3://bucket/docs")
    assert watched(True, "s3://bucket/docs")
    assert not watched(False, "docs")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, dg.DefaultSensorStatus.RUNNING),
        ({"enabled": False}, dg.DefaultSensorStatus.STOPPED),
        ({"watch_seconds": 0}, None),
    ],
)
def test_it_runs_by_itself_as_the_schedule_does(
    tmp_path: Path, schedule: dict[str, object], expected: dg.DefaultSensorStatus | None
) -> None:
    settings = Settings.load(write_config(tmp_path, wiki=4), schedule=schedule)
    sensors = {one.name: one for one in build_definitions(settings).sensors or []}

    assert (sensors[SENSOR].default_status if SENSOR in sensors else None) == expected


def test_fingerprints_are_those_of_a_run(tmp_path: Path) -> None:
    write_documents(tmp_path, 20)
    (tmp_path / "broken.md").symlink_to("nowhere")
    source = LocalFolder(tmp_path, Patterns(("**/*.md",), ()), max_document_bytes=1_000_000)
    later = LocalFolder(
        tmp_path,
        Patterns(("document-*.md",), ()),
        max_document_bytes=1_000_000,
        clock=lambda: time.time_ns() + 10**10,
    )
    four = shards_of("wiki", 4)

    found = fingerprints(later.entries(), four)

    for shard in four:
        with Listed(later.entries(), shard) as listed:
            assert found[shard] == listed.fingerprint
    assert fingerprints(source.entries(), four) != found


def test_a_listing_that_hangs_is_waited_for_no_longer_than_it_may_be() -> None:
    calls, side, free = list[str](), SideBySide[int](), threading.Event()

    def hang() -> int:
        calls.append("hang")
        free.wait(30)
        return 1

    started = time.monotonic()
    first = side.run({"slow": hang, "quick": lambda: 2}, 0.2)
    second = side.run({"slow": hang, "quick": lambda: 3}, 0.2)
    took = time.monotonic() - started
    free.set()
    time.sleep(0.1)

    assert (first, second) == ({"quick": 2}, {"quick": 3})
    assert took < 5
    assert calls == ["hang"]
    assert side.run({"slow": lambda: 4}, 5) == {"slow": 4}


def test_only_what_is_raised_on_purpose_is_told_as_a_source_that_cannot_be_listed() -> None:
    def refuse() -> int:
        raise SourceError("There is no such folder.")

    def break_down() -> int:
        raise ZeroDivisionError

    found = SideBySide[int]().run({"docs": refuse}, 5)
    assert isinstance(found["docs"], SourceError)
    with pytest.raises(ZeroDivisionError):
        SideBySide[int]().run({"docs": break_down}, 5)


def test_a_slow_source_is_told_with_what_to_do(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()

    class Hanging:
        def entries(self) -> Iterator[Entry]:
            free.wait(30)
            yield from ()

    monkeypatch.setattr("kb_assets.documents.watch.open_source", lambda *_: Hanging())
    looks = Watcher(kb.settings, recipe_of(kb.settings.splitting)).look(kb.database, 0.1)
    free.set()

    assert "watch = false" in str(looks["wiki"])
