"""`kb doctor` looks around: variables, Dagster's files and daemon, alerts, backups, ports."""

import http.server
import shutil
import threading

import psycopg
import pytest

from tests.acceptance.command_line import CommandLine


def findings(kb: CommandLine, **variables: str) -> dict[str, dict[str, str]]:
    """Return what was found, by name: of several of one name the last."""
    return {one["name"]: one for one in kb("doctor", **variables).json["findings"]}


def test_mistakes_in_settings_are_told_with_their_lines(kb: CommandLine) -> None:
    config = kb.folder / "kb.toml"
    lines = len(config.read_text().splitlines())
    with config.open("a") as file:
        file.write('\n[search]\nmode = "hybird"\n[serch]\n')
    [finding] = kb("doctor").json["findings"]
    assert finding["level"] == "fail"
    assert f"kb.toml:{lines + 3}: search.mode must be" in finding["words"]
    assert f"kb.toml:{lines + 4}: serch is not known. Did you mean search?" in finding["words"]
    told = kb("--text", "status")
    assert told.code == 3
    assert told.err.count("kb.toml:") == 2


def test_a_variable_that_nobody_reads(kb: CommandLine) -> None:
    assert "variables" not in findings(kb)
    found = findings(kb, KB_SERCH__MODE="vector")["variables"]
    assert (found["level"], found["fix"]) == ("warn", "Did you mean KB_SEARCH__MODE?")


def test_questions_that_are_not_there(kb: CommandLine) -> None:
    assert "nowhere.yaml" in findings(kb, KB_QUALITY__QUESTIONS="nowhere.yaml")["quality"]["words"]


def test_dagster_files_that_are_missing_broken_or_of_others(kb: CommandLine) -> None:
    assert findings(kb)["dagster.yaml"]["level"] == "ok"
    assert findings(kb)["workspace.yaml"]["level"] == "ok"
    (kb.folder / "dagster.yaml").write_text("storage:\n  sqlite: {base_dir: x}\n")
    (kb.folder / "workspace.yaml").write_text("load_from: [{python_file: other.py}]\n")
    found = findings(kb)
    assert "does not show those of `kb index`" in found["dagster.yaml"]["words"]
    assert "loads neither" in found["workspace.yaml"]["words"]
    (kb.folder / "dagster.yaml").write_text("storage: [\n")
    (kb.folder / "workspace.yaml").unlink()
    result = kb("doctor")
    found = {one["name"]: one for one in result.json["findings"]}
    assert (result.code, found["dagster.yaml"]["level"]) == (13, "fail")
    assert "kb init" in found["workspace.yaml"]["fix"]
    elsewhere = kb.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "workspace.yaml").write_text(
        "load_from: [{grpc_server: {host: code-location, port: 4000}}]\n"
    )
    assert findings(kb, DAGSTER_HOME=str(elsewhere))["workspace.yaml"]["level"] == "ok"


def test_a_daemon_that_is_silent_and_what_is_switched_off(kb: CommandLine) -> None:
    kb.must("index")
    with psycopg.connect(kb.variables["KB_DAGSTER_DATABASE_URL"]) as history:
        history.execute("delete from daemon_heartbeats")
        assert "never reported" in automation(kb, history)
        history.execute(
            "insert into daemon_heartbeats (daemon_type, timestamp)"
            " values ('SCHEDULER', now() at time zone 'utc' - interval '20 min')"
        )
        assert "last reported 20 min ago" in automation(kb, history)
        history.execute("update daemon_heartbeats set timestamp = now() at time zone 'utc'")
        assert automation(kb, history).startswith("the daemon reported")
        history.execute(
            "insert into instigators (selector_id, status, instigator_body) values ('x',"
            """ 'STOPPED', '{"origin": {"job_name": "index_documents_schedule"}}')"""
        )
        assert automation(kb, history) == "switched off: index_documents_schedule"
        history.execute("delete from instigators where selector_id = 'x'")
        history.execute("delete from daemon_heartbeats")


def automation(kb: CommandLine, history: psycopg.Connection) -> str:
    history.commit()
    found = findings(kb, KB_SCHEDULE__ENABLED="true")["automation"]
    return found["words"]


def test_a_webhook_is_named_and_never_shown(kb: CommandLine) -> None:
    assert "alerts.md" in findings(kb)["alerts"]["fix"]
    result = kb("doctor", KB_ALERT_WEBHOOK_URL="https://hooks.example.com/T0/canary")
    found = {one["name"]: one for one in result.json["findings"]}
    assert found["alerts"]["words"] == "a webhook at hooks.example.com is told"
    wrong = kb("doctor", KB_ALERT_WEBHOOK_URL="hooks.example.com/canary")
    assert wrong.code == 13
    assert "canary" not in result.out + result.err + wrong.out + wrong.err


def test_backups_are_looked_at(kb: CommandLine) -> None:
    assert "kb backup run" in findings(kb)["backup"]["fix"]
    kb.must("backup", "run")
    kb.must("backup", "drill")
    assert "proven by a drill" in findings(kb)["backup"]["words"]
    assert "never" not in findings(kb)["backup"]["words"]
    shutil.rmtree(kb.folder / "backups")
    (kb.folder / "backups").write_text("in the way")
    found = findings(kb)["backup"]
    assert found["level"] == "warn", "runs go on without it"


def test_something_else_on_the_port_of_the_ui(kb: CommandLine) -> None:
    try:
        server = http.server.HTTPServer(("127.0.0.1", 3000), http.server.SimpleHTTPRequestHandler)
    except OSError:
        pytest.skip("somebody uses port 3000")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = findings(kb)["UI"]
    finally:
        server.shutdown()
        server.server_close()
    assert found["level"] == "warn"
    assert "--port" in found["fix"]
