"""Dagster's UI as `kb dev` serves it, seen and used through a browser."""

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.acceptance.command_line import COMMAND, started, write
from tests.acceptance.conftest import knowledge_base_folder

SETTINGS = """
owners = ["team:knowledge"]

[[sources]]
name = "documents"
uri = "documents"
shards = 2

[embedding]
provider = "hash"

[schedule]
enabled = false
"""
SHARD = "documents-01-of-02"

PATIENCE_SECONDS = 90.0
"""A run starts a process; on a busy machine that takes a while."""


@dataclass(frozen=True)
class Dev:
    """`kb dev` that runs."""

    url: str
    process: subprocess.Popen

    def graphql(self, query: str) -> Any:
        """Return the data of an answer."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """`kb dev` with a source of two shards, of which nothing was indexed yet."""
    with knowledge_base_folder() as kb:
        kb.must("init")
        (kb.folder / "kb.toml").write_text(SETTINGS, encoding="utf-8")
        birds = {f"bird_{number}": f"# Bird {number}\n\nIt sings." for number in range(20)}
        write(kb.folder / "documents", **birds)
        port = free_port()
        with (
            (kb.folder / "dev.log").open("wb") as log,
            started(
                [*COMMAND, "dev", "--port", str(port)],
                cwd=kb.folder,
                env=kb.environment(),
                stderr=log,
            ) as process,
        ):
            served = Dev(f"http://127.0.0.1:{port}", process)
            try:
                wait_until_it_answers(served, kb.folder / "dev.log")
                yield served
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(40)


@pytest.fixture
def page(dev: Dev, tmp_path: Path) -> Iterator[Page]:
    """A page of Chromium's; what it shows in the end is kept, for whoever reads a failure."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "There is no chromium: `make test` installs it, `apt install chromium` too."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        try:
            page.goto(dev.url)
            yield page
        finally:
            page.screenshot(path=tmp_path / "last.png")
            browser.close()


def test_a_shard_is_materialized_in_the_browser_and_no_other(dev: Dev, page: Page) -> None:
    page.get_by_role("link", name="Lineage").click()
    nodes = page.locator("foreignObject")
    nodes.get_by_text("index", exact=True).dblclick()
    nodes.get_by_text("raw_documents").click()
    page.get_by_role("link", name="View in Asset Catalog").click()

    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog").filter(has_text="Launch runs to materialize")
    dialog.get_by_text("Select a partition").click()
    page.get_by_role("menuitem").filter(has_text=SHARD).click()
    page.keyboard.press("Escape")
    expect(dialog.get_by_text("1 partition", exact=True)).to_be_visible()
    dialog.get_by_role("button", name="Launch 1 run").click()

    page.get_by_text("Partitions", exact=True).click()
    expect(page.get_by_text("Materialized (1)")).to_be_visible()
    expect(page.get_by_text("Missing (1)")).to_be_visible()
    page.get_by_text(SHARD).filter(visible=True).first.click()
    expect(page.get_by_text("Materialized", exact=True)).to_be_visible()
    expect(page.get_by_text("newest_documents")).to_be_visible()
    assert partitions(dev) == {"raw_documents": [SHARD]}


def partitions(dev: Dev) -> dict[str, list[str]]:
    """Return which partitions of which assets were ever materialized, by what Dagster keeps."""
    answered = dev.graphql(
        """{ assetNodes { assetKey { path }
             assetMaterializations { partition } } }"""
    )
    found = {
        node["assetKey"]["path"][-1]: [one["partition"] for one in node["assetMaterializations"]]
        for node in answered["assetNodes"]
    }
    return {asset: made for asset, made in found.items() if made}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(dev: Dev, log: Path) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        assert dev.process.poll() is None, log.read_text()
        if "Dagster's UI" in log.read_text():
            return
        time.sleep(0.2)
    raise AssertionError(f"{dev.url} does not answer: {log.read_text()}")
