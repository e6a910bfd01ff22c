"""How long Dagster's pages take once there is a history, and what housekeeping makes of it.

    python -m benchmarks.dagster_history

One real run over a small corpus is repeated in Dagster's own tables, with all its events, checks
and tags, every quarter of an hour back from now. Then Chromium opens the pages of an asset, and
its clock stops when the last answer of the web server is there; and housekeeping deletes what is
older than thirty days. The history of assets is compared before and after.
"""

import argparse
import shutil
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
from playwright.sync_api import Page, Request, sync_playwright

import kb_assets.cli
from benchmarks.dagster_overhead import unindexed
from benchmarks.record import Row, record
from kb_assets import KnowledgeBase
from kb_assets.cli.children import Children
from kb_assets.defs.instance import dagster_instance
from kb_assets.defs.launch import run_index
from kb_assets.housekeeping.stage import HousekeepingReport, tend

RUNS = 10_000
FILES = 50
ROUNDS = 5
KEEP_DAYS = 30
BATCH = 500
AIM_SECONDS = 3.0

ASSET = "published_documents"
PAGES = {
    "asset page": (f"/assets/{ASSET}", "Latest materialization"),
    "events of the asset": (f"/assets/{ASSET}?view=events", "Materialized"),
    "checks of the asset": (f"/assets/{ASSET}?view=checks", "Latest execution"),
    "asset graph": ("/asset-groups", "operations"),
    "runs": ("/runs", "index_documents"),
}
"""What is opened, and what is shown there at last."""

_AGES = """
create temp table clone as
select n, gen_random_uuid()::text as run_id, make_interval(mins => 15 * n) as age
from generate_series(%(last)s::int, %(first)s::int, -1) n
"""
_RUNS = """
insert into runs (
    run_id, snapshot_id, pipeline_name, status, run_body, partition, partition_set,
    create_timestamp, update_timestamp, start_time, end_time
)
select c.run_id, r.snapshot_id, r.pipeline_name, r.status, replace(r.run_body, r.run_id, c.run_id),
    r.partition, r.partition_set, r.create_timestamp - c.age, r.update_timestamp - c.age,
    r.start_time - extract(epoch from c.age), r.end_time - extract(epoch from c.age)
from clone c, runs r where r.run_id = %(run)s order by c.n desc
"""
_TAGS = """
insert into run_tags (run_id, key, value)
select c.run_id, t.key, t.value from clone c, run_tags t where t.run_id = %(run)s
order by c.n desc, t.id
"""
_EVENTS = """
insert into event_logs (
    run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition
)
select c.run_id,
    jsonb_set(
        replace(e.event, e.run_id, c.run_id)::jsonb, '{timestamp}',
        to_jsonb((e.event::jsonb ->> 'timestamp')::float8 - extract(epoch from c.age)::float8)
    )::text,
    e.dagster_event_type, e.timestamp - c.age, e.step_key, e.asset_key, e.partition
from clone c, event_logs e where e.run_id = %(run)s order by c.n desc, e.id
"""
_CHECKS = """
insert into asset_check_executions (
    asset_key, check_name, partition, run_id, execution_status, evaluation_event,
    evaluation_event_timestamp, evaluation_event_storage_id, materialization_event_storage_id
)
select x.asset_key, x.check_name, x.partition, c.run_id, x.execution_status,
    replace(x.evaluation_event, x.run_id, c.run_id), x.evaluation_event_timestamp - c.age,
    x.evaluation_event_storage_id, x.materialization_event_storage_id
from clone c, asset_check_executions x where x.run_id = %(run)s order by c.n desc, x.id
"""


def repeat_run(connection: psycopg.Connection[Any], run_id: str, runs: int) -> None:
    """Make a run's history as long as if it had been repeated so often, oldest first."""
    for last in range(runs, 0, -BATCH):
        with connection.transaction():
            named = {"run": run_id, "last": last, "first": max(1, last - BATCH + 1)}
            for statement in (_AGES, _RUNS, _TAGS, _EVENTS, _CHECKS):
                connection.execute(statement, named)
            connection.execute("drop table clone")
    for table in ("runs", "run_tags", "event_logs", "asset_check_executions"):
        connection.execute(f"vacuum (analyze) {table}")


def opened(page: Page, url: str, shown: str) -> float:
    """Return for how long the page of an address asked the server, in seconds."""
    finished = [0.0]

    def note(request: Request) -> None:
        if "/graphql" in request.url:
            finished.append(time.perf_counter())

    page.on("requestfinished", note)
    started = time.perf_counter()
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.get_by_text(shown).first.wait_for()
    page.remove_listener("requestfinished", note)
    return max(finished) - started


def open_pages(address: str, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each page, the first round left out."""
    took: dict[str, list[float]] = {name: [] for name in PAGES}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page()
        for number in range(rounds + 1):
            for name, (path, shown) in PAGES.items():
                seconds = opened(page, f"{address}{path}", shown)
                took[name] += [seconds] if number else []
        browser.close()
    return took


def history(instance: dg.DagsterInstance) -> tuple[Any, ...]:
    """Return what Dagster tells of the asset: all materializations, and the latest checks."""
    storage, key = instance.event_log_storage, dg.AssetKey(ASSET)
    checks = [dg.AssetCheckKey(key, "every_document_is_accounted_for")]
    made, cursor, more = [], None, True
    while more:
        page = instance.fetch_materializations(key, limit=10_000, cursor=cursor)
        made += page.records
        cursor, more = page.cursor, page.has_more
    assert made
    return made, storage.get_latest_asset_check_execution_by_key(checks)


def measure(runs: int, rounds: int) -> Iterator[Row]:
    with unindexed(FILES) as kb, dagster_instance(kb) as instance:
        folder = Path(kb.settings.root)
        for name in ("dagster.yaml", "workspace.yaml"):
            template = Path(kb_assets.cli.__file__).parent / "templates" / name
            shutil.copy(template, folder / name)
        run = run_index(kb, kb.settings.shards, on_event=lambda _: None).run_id
        with psycopg.connect(kb.urls.dagster, autocommit=True) as connection:
            repeat_run(connection, run, runs)
            run_index(kb, kb.settings.shards, on_event=lambda _: None)
            [(events,)] = connection.execute("select count(*) from event_logs").fetchall()
        yield from _pages(kb, rounds, f"{runs:,} runs, {events:,} events")
        before = history(instance)
        report = tend(kb.urls, KEEP_DAYS)
        yield _housekeeping(report, same=history(instance) == before)
        left = f"{runs - len(report.pruned.runs):,} runs, after housekeeping"
        yield from _pages(kb, rounds, left)


def _pages(kb: KnowledgeBase, rounds: int, words: str) -> Iterator[Row]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Children.beside(kb) as children:
        children.start_webserver("127.0.0.1", port)
        children.wait_until_it_answers("127.0.0.1", port)
        took = open_pages(f"http://127.0.0.1:{port}", rounds)
    for name, seconds in took.items():
        yield Row(
            name=f"{name}, {words}",
            measured=f"{statistics.median(seconds):.2f} s",
            target=f"≤ {AIM_SECONDS:.0f} s",
            met=statistics.median(seconds) <= AIM_SECONDS,
            detail=f"from {min(seconds):.2f} to {max(seconds):.2f} s in {rounds} rounds; "
            "until the last answer the page asked for",
        )


def _housekeeping(report: HousekeepingReport, *, same: bool) -> Row:
    return Row(
        name="housekeeping of that history",
        measured=f"{report.seconds:.1f} s",
        target="≤ 60 s, and the history of assets is the same",
        met=same and report.seconds <= 60,
        detail=f"{len(report.pruned.runs):,} runs and {report.pruned.events:,} events deleted; "
        f"materializations and results of checks {'are the same' if same else 'DIFFER'}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    record("dagster_history", "Dagster with a history", list(measure(given.runs, given.rounds)))


if __name__ == "__main__":
    main()
