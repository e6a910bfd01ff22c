"""`kb init` and `kb doctor`, and an embedded database from nothing to `kb dev`."""

import os
import shutil
import signal
import socket
import subprocess
import time
import tomllib
import urllib.request
from pathlib import Path

import psutil

from tests.acceptance.command_line import COMMAND, CommandLine, started, write


def settings_of(folder: Path) -> dict:
    return tomllib.loads((folder / "kb.toml").read_text(encoding="utf-8"))


def test_init_writes_and_never_overwrites(bare: CommandLine) -> None:
    made = bare.must("init", "birds")
    assert made["next"] == ["cd birds", "kb index"]
    folder = bare.folder / "birds"
    assert {path.name for path in folder.iterdir()} == {
        *("kb.toml", "dagster.yaml", "workspace.yaml", ".env.example", ".gitignore", "documents")
    }
    [source] = settings_of(folder)["sources"]
    assert source == {"name": "documents", "uri": "documents"}
    (folder / "kb.toml").write_text("# mine\n")
    assert bare("init", "birds").code == 3
    assert (folder / "kb.toml").read_text() == "# mine\n"


def test_init_keeps_companions_that_are_there(bare: CommandLine) -> None:
    (bare.folder / ".gitignore").write_text("mine\n")
    assert ".gitignore" not in bare.must("init")["written"]
    assert (bare.folder / ".gitignore").read_text() == "mine\n"


def test_init_names_the_source(bare: CommandLine) -> None:
    (bare.folder / "Our Notes").mkdir()
    inside = bare.must("init", "--source", "Our Notes")["source"]
    assert (inside["name"], inside["uri"]) == ("our-notes", "Our Notes")
    outside = bare.must("init", "other", "--source", "Our Notes", "--name", "notes")["source"]
    assert (outside["name"], outside["uri"]) == ("notes", str(bare.folder / "Our Notes"))
    store = bare.must("init", "third", "--source", "s3://bucket/some/docs/")["source"]
    assert (store["name"], store["uri"]) == ("docs", "s3://bucket/some/docs/")
    assert bare("init", "fourth", "--source", "nowhere").code == 5
    assert bare("init", "fourth", "--name", "Not A Name").code == 3
    assert bare("init", "fourth", "--source", "ftp://host/x").code == 5
    assert not (bare.folder / "fourth").exists()


def test_doctor_says_what_to_do(kb: CommandLine) -> None:
    findings = {one["name"]: one for one in kb.must("doctor")["findings"]}
    assert findings["settings"]["level"] == "ok"
    assert "3 documents" in findings["source documents"]["words"]
    assert findings["provider"]["level"] == "warn"
    assert "PostgreSQL 16" in findings["database writer"]["words"]
    assert findings["schema"]["level"] == "ok"
    assert "words, not meaning" in kb.must("doctor", "--probe")["findings"][2]["words"]
    shutil.rmtree(kb.folder / "documents")
    told = kb("--text", "doctor")
    assert told.code == 13
    assert "FAIL" in told.out
    assert "→ Correct the uri" in told.out
    (kb.folder / "kb.toml").unlink()
    assert kb("doctor").code == 13


def test_doctor_says_whether_callers_can_search(kb: CommandLine) -> None:
    def callers(**variables: str) -> dict[str, str] | None:
        findings = kb("doctor", **variables).json["findings"]
        return next((one for one in findings if one["name"] == "callers"), None)

    assert callers() is None, "nobody asked for any"
    with (kb.folder / "kb.toml").open("a") as config:
        config.write('\n[[callers]]\nname = "ann"\ntags = ["api"]\n')
    assert callers()["level"] == "ok"
    without = callers(KB_CALLER_DATABASE_URL="")
    assert without["level"] == "fail"
    assert "KB_CALLER_DATABASE_URL" in without["fix"]
    unbound = callers(KB_CALLER_DATABASE_URL=kb.variables["KB_READ_DATABASE_URL"])
    assert unbound["level"] == "fail"
    assert "role kb_reader" in unbound["words"]


def test_an_embedded_database_needs_nothing_but_init(fresh: CommandLine) -> None:
    fresh.must("init")
    write(fresh.folder / "documents", owls="# Owls\n\nOwls hunt at night.")
    assert not fresh.must("status")["settled"]
    assert fresh.must("index")["waiting"] == 0
    assert fresh.must("search", "owls")["hits"][0]["path"] == "owls.md"
    assert servers_of(fresh.folder) == [], "the last command stops the server"


def test_dev_serves_beside_other_commands_and_stops_all_it_started(fresh: CommandLine) -> None:
    fresh.must("init")
    write(fresh.folder / "documents", owls="# Owls\n\nOwls hunt at night.")
    port = free_port()
    with started(
        [*COMMAND, "dev", "--port", str(port)],
        cwd=fresh.folder,
        env=fresh.environment(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as dev:
        wait_for(f"http://127.0.0.1:{port}/server_info", dev)
        run_id = fresh.must("index")["run_id"]
        assert fresh.must("search", "owls")["hits"]
        assert run_id in graphql(port, "{ runsOrError { ... on Runs { results { runId } } } }")
        busy = fresh("dev", "--port", str(port))
        assert busy.code == 3
        assert "--port" in busy.err
        children = psutil.Process(dev.pid).children(recursive=True)
        assert len(children) >= 2
        os.killpg(dev.pid, signal.SIGINT)
        assert dev.wait(40) == 0, dev.stderr.read().decode()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert servers_of(fresh.folder) == []


def test_dev_leaves_no_process_behind_when_it_is_killed(fresh: CommandLine) -> None:
    fresh.must("init")
    port = free_port()
    with started(
        [*COMMAND, "dev", "--port", str(port)],
        cwd=fresh.folder,
        env=fresh.environment(),
        stderr=subprocess.PIPE,
    ) as dev:
        wait_for(f"http://127.0.0.1:{port}/server_info", dev)
        children = psutil.Process(dev.pid).children(recursive=True)
        dev.kill()
        dev.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def servers_of(folder: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or [])
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen) -> None:
    give_up = time.monotonic() + 90
    while time.monotonic() < give_up:
        assert process.poll() is None, process.stderr.read().decode()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{url} does not answer")


def graphql(port: int, query: str) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=f'{{"query": "{query}"}}'.encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()
