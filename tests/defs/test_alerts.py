"""What the alerts' sensor posts, when, and that nothing is lost or given away."""

import logging
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from kb_assets import KnowledgeBase
from kb_assets.database.connect import DatabaseUrls
from kb_assets.defs import alerts, webhook
from kb_assets.defs.alerts import alerts_sensor
from kb_assets.defs.build import build_definitions
from kb_assets.defs.instance import dagster_instance
from kb_assets.defs.webhook import WEBHOOK_VARIABLE
from kb_assets.errors import AlertNotDeliveredError, AlertRefusedError
from kb_assets.settings import Settings
from tests.defs.conftest import index, write_documents
from tests.servers.webhook_server import Reply, WebhookServer

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

SECRET = "T0KEN-canary"


class Ticks:
    """The sensor as the daemon runs it: what one tick leaves behind is what the next gets."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance = settings, instance
        self.cursor: str | None = None
        self.once()

    def once(self) -> str:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        with context:
            data = alerts_sensor(self.settings).evaluate_tick(context)
        self.cursor = data.cursor
        return data.skip_message or ""

    def twice(self) -> str:
        """What happened before is dealt with by the second."""
        self.once()
        return self.once()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    monkeypatch.setattr(webhook, "_pause", lambda _: 0.01)
    with WebhookServer() as one:
        monkeypatch.setenv(WEBHOOK_VARIABLE, f"{one.url}/services/{SECRET}")
        yield one


@pytest.fixture
def instance(kb: KnowledgeBase) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(kb) as one:
        yield one


@pytest.fixture
def ticks(kb: KnowledgeBase, instance: dg.DagsterInstance, server: WebhookServer) -> Ticks:
    return Ticks(kb.settings, instance)


def break_a_run(instance: dg.DagsterInstance, error: Exception, **tags: str) -> str:
    @dg.op
    def breaks() -> None:
        raise error

    @dg.job
    def broken() -> None:
        breaks()

    names = {name.replace("_", "/", 1): value for name, value in tags.items()}
    return broken.execute_in_process(instance=instance, raise_on_error=False, tags=names).run_id


def end_a_run(instance: dg.DagsterInstance, settings: Settings) -> None:
    run = instance.create_run_for_job(
        build_definitions(settings).resolve_job_def("index_documents")
    )
    instance.report_run_failed(run, message="Its process was killed.")


def look(
    instance: dg.DagsterInstance,
    *,
    passed: bool,
    shard: str = "",
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    words: str = "Look at it.",
) -> None:
    """Let a check say something of a shard, or of all of them."""

    @dg.asset
    def published_documents() -> None: ...

    @dg.asset_check(asset="published_documents")
    def holds() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed, severity=severity, description=words)

    dg.materialize(
        [published_documents, holds],
        instance=instance,
        tags={"dagster/partition": shard, "kb/shard": shard} if shard else {},
    )


def test_a_mass_delete_is_told_once_and_so_is_its_end(
    kb: KnowledgeBase, ticks: Ticks, server: WebhookServer, tmp_path: Path
) -> None:
    index(kb)
    ticks.twice()
    assert server.requests == []
    for file in (tmp_path / "wiki").glob("*.md"):
        file.unlink()

    index(kb)
    ticks.twice()
    index(kb)
    ticks.twice()

    [told] = [text for text in server.texts if "no_document_vanished_by_accident" in text]
    assert "raw_documents: no_document_vanished_by_accident" in told
    assert "12 documents are gone and kept." in told
    assert (
        "<http://127.0.0.1:3000/assets/raw_documents?view=checks"
        "&checkDetail=no_document_vanished_by_accident|Open>" in told
    )

    write_documents(tmp_path / "wiki", 12)
    index(kb)
    ticks.twice()
    assert "green again" in server.texts[-1].splitlines()[0]
    assert "no_document_vanished_by_accident" in server.texts[-1]


def test_a_failed_run_is_told_with_what_to_do(
    kb: KnowledgeBase, ticks: Ticks, server: WebhookServer, tmp_path: Path
) -> None:
    (tmp_path / "wiki").rename(tmp_path / "elsewhere")
    run = index(kb)

    ticks.twice()

    [told] = server.texts
    [request] = server.taken
    assert request.body["text"].startswith("Knowledge base: 1 run failed")
    assert "*index_documents, wiki-01-of-04...wiki-04-of-04*: failed" in told
    assert f"<http://127.0.0.1:3000/runs/{run.run_id}|Open>" in told
    assert "raw_documents: " in told
    assert request.headers["content-type"] == "application/json"
    ticks.twice()
    assert len(server.taken) == 1


def test_what_happened_before_is_not_told(
    kb: KnowledgeBase, instance: dg.DagsterInstance, server: WebhookServer
) -> None:
    break_a_run(instance, RuntimeError("long ago"))

    Ticks(kb.settings, instance).twice()

    assert server.requests == []


def test_a_check_is_red_shard_by_shard(
    instance: dg.DagsterInstance, ticks: Ticks, server: WebhookServer
) -> None:
    first, second = "wiki-01-of-04", "wiki-02-of-04"
    look(instance, passed=False, shard=first)
    look(instance, passed=True, shard=second)
    look(instance, passed=False, shard=first)
    ticks.twice()
    assert server.texts[-1].count("red") == 2, "in the head, and once below it"
    assert first in server.texts[-1]

    look(instance, passed=False, shard=second)
    ticks.twice()
    assert second in server.texts[-1]
    assert len(server.taken) == 2

    look(instance, passed=True, words="All is well.")
    ticks.twice()
    assert "1 check is green again" in server.texts[-1]
    look(instance, passed=True, shard=first)
    ticks.twice()
    assert len(server.taken) == 3
    look(instance, passed=False, shard=first)
    ticks.twice()
    assert len(server.taken) == 4


def test_a_warning_that_becomes_an_error_is_told_again(
    instance: dg.DagsterInstance, ticks: Ticks, server: WebhookServer
) -> None:
    warning, error = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
    for severity in (warning, warning, error, error, warning):
        look(instance, passed=False, severity=severity)
        ticks.twice()

    assert ["A warning." in text for text in server.texts] == [True, False]


def test_a_flood_is_one_message(
    kb: KnowledgeBase, instance: dg.DagsterInstance, ticks: Ticks, server: WebhookServer
) -> None:
    for _ in range(47):
        end_a_run(instance, kb.settings)

    ticks.twice()

    [told] = server.texts
    assert "47 runs failed" in told
    assert told.count("Its process was killed.") == 10
    assert told.endswith("and 37 more: <http://127.0.0.1:3000/runs|all runs>")


def test_more_than_a_tick_deals_with_is_told_by_the_next(
    kb: KnowledgeBase,
    instance: dg.DagsterInstance,
    ticks: Ticks,
    server: WebhookServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alerts, "MOST_EVENTS", 2)
    for _ in range(5):
        end_a_run(instance, kb.settings)

    for _ in range(4):
        ticks.once()

    heads = [text.splitlines()[0] for text in server.texts]
    assert heads == [
        "*Knowledge base: 2 runs failed*",
        "*Knowledge base: 2 runs failed*",
        "*Knowledge base: 1 run failed*",
    ]


def test_nothing_secret_is_told(
    instance: dg.DagsterInstance, ticks: Ticks, server: WebhookServer
) -> None:
    break_a_run(instance, RuntimeError(f"connect failed: password={SECRET}"))
    break_a_run(instance, dg.Failure(f"Cannot reach postgresql://me:{SECRET}@db:5432/kb now."))
    look(instance, passed=False, words=f"Wrong: https://key:{SECRET}@provider/v1")

    ticks.twice()

    [told] = server.texts
    assert SECRET not in told
    assert "breaks: RuntimeError. The run says more." in told
    assert "Cannot reach postgresql://***@db:5432/kb now." in told


def test_what_documents_say_is_shown_and_not_rendered(
    instance: dg.DagsterInstance, ticks: Ticks, server: WebhookServer
) -> None:
    look(instance, passed=False, words="<!channel> <http://evil|click> & so on\n\n*now*")

    ticks.twice()

    assert "&lt;!channel&gt; &lt;http://evil|click&gt; &amp; so on *now*" in server.texts[0]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_tried_again_at_once(
    instance: dg.DagsterInstance, ticks: Ticks, server: WebhookServer, status: int
) -> None:
    server.script(Reply(status), Reply(status))
    break_a_run(instance, RuntimeError("broken"))

    ticks.twice()

    assert (len(server.requests), len(server.taken)) == (3, 1)


def test_a_webhook_that_asks_for_time_gets_it(
    instance: dg.DagsterInstance,
    ticks: Ticks,
    server: WebhookServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv(WEBHOOK_VARIABLE, f"{server.url}/services/{SECRET}")
    server.script(Reply(429, {"Retry-After": "2"}))
    break_a_run(instance, RuntimeError("broken"))
    ticks.once()

    began = time.monotonic()
    ticks.once()

    assert 2 <= time.monotonic() - began < 5
    assert len(server.taken) == 1


def test_one_that_asks_for_more_than_a_tick_has_waits_for_a_later_one(
    instance: dg.DagsterInstance, ticks: Ticks, server: WebhookServer
) -> None:
    server.script(Reply(429, {"Retry-After": "3600"}))
    break_a_run(instance, RuntimeError("broken"))
    ticks.once()

    with pytest.raises(AlertNotDeliveredError, match=r"Status 429\."):
        ticks.once()
    assert len(server.requests) == 1

    ticks.once()
    assert len(server.taken) == 1


def test_a_webhook_that_is_down_gets_everything_when_it_is_back(
    kb: KnowledgeBase, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_pause", lambda _: 0.01)
    with WebhookServer() as gone:
        pass
    monkeypatch.setenv(WEBHOOK_VARIABLE, f"{gone.url}/services/{SECRET}")
    ticks = Ticks(kb.settings, instance)
    break_a_run(instance, RuntimeError("broken"), kb_shard="first")
    ticks.once()
    for _ in range(2):
        with pytest.raises(AlertNotDeliveredError, match=r"gave no answer\. ConnectError"):
            ticks.once()
    break_a_run(instance, RuntimeError("broken"), kb_shard="second")

    with WebhookServer() as back:
        monkeypatch.setenv(WEBHOOK_VARIABLE, f"{back.url}/services/{SECRET}")
        ticks.twice()
    assert "broken, first" in back.texts[0]
    assert "broken, second" in "".join(back.texts)


def test_a_slow_webhook_does_not_hold_the_daemon(
    instance: dg.DagsterInstance,
    ticks: Ticks,
    server: WebhookServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.2)
    server.always = Reply(after_seconds=1.0)
    break_a_run(instance, RuntimeError("broken"))
    ticks.once()

    began = time.monotonic()
    with pytest.raises(AlertNotDeliveredError, match="ReadTimeout"):
        ticks.once()
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("status", [301, 400, 403, 404, 410])
def test_a_webhook_that_refuses_is_not_asked_again(
    instance: dg.DagsterInstance, ticks: Ticks, server: WebhookServer, status: int
) -> None:
    server.always = Reply(status)
    break_a_run(instance, RuntimeError("broken"))
    ticks.once()

    with pytest.raises(AlertRefusedError, match=f"Status {status}"):
        ticks.once()

    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [Reply(500), Reply(404), None])
def test_the_address_is_in_no_error_and_no_log(
    instance: dg.DagsterInstance,
    ticks: Ticks,
    server: WebhookServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fault: Reply | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    if fault is None:
        monkeypatch.setenv(WEBHOOK_VARIABLE, f"http://[{SECRET}/services/{SECRET}")
    else:
        server.always = fault
    break_a_run(instance, RuntimeError("broken"))
    ticks.once()

    with pytest.raises((AlertNotDeliveredError, AlertRefusedError)) as raised:
        ticks.once()

    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert SECRET not in caplog.text


def test_an_event_that_arrives_late_is_told_all_the_same(
    kb: KnowledgeBase,
    instance: dg.DagsterInstance,
    ticks: Ticks,
    server: WebhookServer,
    database_urls: DatabaseUrls,
) -> None:
    """Numbers are given when an event is written, and it is seen when that is committed."""
    with psycopg.connect(database_urls.dagster, autocommit=True) as observer:
        early = break_a_run(instance, RuntimeError("early"))
        moved = observer.execute(
            "WITH gone AS (DELETE FROM event_logs WHERE run_id = %s RETURNING *) "
            "SELECT row_to_json(gone) FROM gone",
            [early],
        ).fetchall()
        break_a_run(instance, RuntimeError("late"))
        ticks.once()
        for (row,) in moved:
            observer.execute(
                "INSERT INTO event_logs SELECT * FROM json_populate_record(null::event_logs, %s)",
                [psycopg.types.json.Json(row)],
            )
        ticks.once()

    assert "2 runs failed" in server.texts[0]


def test_it_runs_by_itself_where_there_is_a_webhook(
    settings: Settings, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert alerts_sensor(settings).default_status is dg.DefaultSensorStatus.RUNNING
    monkeypatch.delenv(WEBHOOK_VARIABLE)

    stopped = build_definitions(settings).resolve_sensor_def("alerts")

    assert stopped.default_status is dg.DefaultSensorStatus.STOPPED
    with dg.instance_for_test() as instance, dg.build_sensor_context(instance=instance) as context:
        assert "KB_ALERT_WEBHOOK_URL is not set" in (
            stopped.evaluate_tick(context).skip_message or ""
        )
