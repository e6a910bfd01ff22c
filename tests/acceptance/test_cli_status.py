"""`kb status` and `kb metrics`: one screen, an exit code for monitors, Prometheus's text."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.command_line import COMMAND, REPOSITORY, CommandLine, started, write
from tests.acceptance.test_cli_setup import free_port


def samples(text: str) -> dict[str, float]:
    """Return the value of each metric; of those with labels, the last."""
    return {
        one.name: one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def concerns(kb: CommandLine, **variables: str) -> dict[str, str]:
    told = kb.must("status", **variables)["concerns"]
    return {one["about"]: f"{one['words']} {one['fix']}" for one in told}


@pytest.fixture
def sound(kb: CommandLine) -> CommandLine:
    """A knowledge base that is indexed, backed up and drilled."""
    kb.must("index")
    kb.must("backup", "run")
    kb.must("backup", "drill")
    return kb


def test_a_sound_knowledge_base_needs_nothing(sound: CommandLine) -> None:
    told = sound.must("status", "--check")
    assert (told["settled"], told["urgent"], told["concerns"]) == (True, False, [])
    assert told["versions"]["postgres"].startswith("16.")
    assert told["versions"]["schema"]
    assert told["totals"]["chunks"] == told["spaces"][0]["vectors"] == 3
    assert told["spaces"][0]["indexed"]
    assert told["backup"]["backups"] == 1
    assert told["backup"]["drilled_at"] >= told["backup"]["made_at"]
    screen = sound.text("status", COLUMNS="80")
    assert len(screen.splitlines()) <= 24
    for words in ("documents", "nDCG" if told["quality"] else "never measured", "drill passed"):
        assert words in screen
    assert "Nothing to do." in screen


def test_a_monitor_is_told_by_the_exit_code(kb: CommandLine) -> None:
    assert kb("status").code == 0
    assert kb("status", "--check").code == 13
    found = concerns(kb)
    assert found["documents"] == "never listed. Run `kb index`."
    assert found["backup"] == "there is none. Run `kb backup run`."
    assert "kb backup run" in kb.text("status")


def test_what_is_old_is_told(sound: CommandLine) -> None:
    with psycopg.connect(sound.variables["KB_DAGSTER_DATABASE_URL"]) as history:
        history.execute(
            "update event_logs set timestamp = timestamp - interval '25 hours'"
            " where asset_key = '[\"raw_documents\"]'"
        )
    with psycopg.connect(sound.variables["KB_DATABASE_URL"]) as connection:
        connection.execute("update kb.shard set listed_at = listed_at - interval '3 days'")
    found = concerns(sound)
    assert list(found) == ["documents"]
    assert "not looked at for 25 hours; max_age_hours is 24" in found["documents"]
    assert sound("status", "--check").code == 13
    sound.must("index")
    assert concerns(sound) == {}, "nothing had changed, and it was looked at"


def test_a_backup_without_a_drill_is_told(sound: CommandLine) -> None:
    [drills] = (sound.folder / "backups").rglob("drills")
    shutil.rmtree(drills)
    found = concerns(sound)
    assert found == {"backup": "none was proven by a drill. Run `kb backup drill`."}
    assert sound("status", "--check").code == 13


def test_what_waits_or_cannot_be_used_is_told(sound: CommandLine) -> None:
    (sound.folder / "documents" / "broken.md").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    sound.must("index")
    assert "kb status --quarantine" in concerns(sound)["quarantine"]
    assert sound("status", "--check").code == 0, "somebody may look, nobody must"
    for document in (sound.folder / "documents").rglob("*.md"):
        document.unlink()
    assert sound("index").code == 11
    assert "mass-delete guard" in concerns(sound)["documents"]
    assert sound("status", "--check").code == 13


def test_a_place_of_backups_that_is_away_hides_nothing_else(sound: CommandLine) -> None:
    away = {
        "KB_BACKUP__URI": "s3://bucket/prefix",
        "KB_BACKUP__OPTIONS": json.dumps(
            {"endpoint": "http://127.0.0.1:9", "allow_http": "true", "region": "eu"}
        ),
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    began = time.monotonic()
    told = sound.must("status", **away)
    assert time.monotonic() - began < 30
    assert told["backup"] is None
    assert told["totals"]["live"] == 3
    assert [one["about"] for one in told["concerns"]] == ["backup"]
    values = samples(sound("metrics", **away).out)
    assert (values["kb_up"], values["kb_unknown"]) == (1, 1)
    assert "kb_backup_timestamp_seconds" not in values


def test_a_history_that_is_away_is_told(sound: CommandLine) -> None:
    away = {"KB_DAGSTER_DATABASE_URL": "postgresql://u:canary@127.0.0.1:9/dagster"}
    result = sound("status", **away)
    assert [one["about"] for one in result.json["concerns"]] == ["Dagster's database"]
    assert "canary" not in result.out + result.err


def test_a_verdict_that_fails_is_told(sound: CommandLine) -> None:
    (sound.folder / "questions.yaml").write_text(
        "- question: owls\n  documents: [documents/nowhere.md]\n"
    )
    asked = {"KB_QUALITY__QUESTIONS": "questions.yaml", "KB_QUALITY__MIN_NDCG": "0.5"}
    assert "kb eval" in concerns(sound, **asked)["quality"]
    assert sound("eval", **asked).code == 13
    assert "must be 0.500" in concerns(sound, **asked)["quality"]
    assert samples(sound("metrics", **asked).out)["kb_quality_holds"] == 0
    assert "fails, nDCG@10 0.000" in sound.text("status", **asked)


def test_metrics_are_prometheus_text(sound: CommandLine) -> None:
    values = samples(sound("metrics").out)
    assert values["kb_up"] == 1
    assert values["kb_concerns_urgent"] == 0
    assert values["kb_chunks"] == values["kb_vectors"] == 3
    assert values["kb_embedding_texts_total"] == 3
    age = time.time() - values["kb_source_looked_at_timestamp_seconds"]
    assert 0 <= age < 300
    assert values["kb_backup_timestamp_seconds"] <= values["kb_backup_drill_timestamp_seconds"]


def test_a_textfile_is_whole_and_says_when_nothing_is_up(kb: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "metrics" / "kb.prom"
    assert kb("metrics", "--textfile", str(file)).code == 75
    file.parent.mkdir()
    assert kb("metrics", "--textfile", str(file)).code == 0
    assert samples(file.read_text())["kb_up"] == 1
    nowhere = "postgresql://nobody@127.0.0.1:9/nothing"
    down = kb(
        *("metrics", "--textfile", str(file)),
        KB_DATABASE_URL=nowhere,
        KB_READ_DATABASE_URL=nowhere,
    )
    assert down.code == 75
    assert "could not be reached" in down.err
    assert samples(file.read_text()) == {"kb_up": 0}
    assert list(file.parent.iterdir()) == [file]


def test_metrics_are_served_until_stopped(kb: CommandLine) -> None:
    port = free_port()
    command = [*COMMAND, "metrics", "--serve", str(port)]
    settings = {"cwd": kb.folder, "env": kb.environment(), "stderr": subprocess.PIPE}
    with started(command, **settings) as serving:
        assert b"/metrics" in serving.stderr.readline()
        assert scraped(port)["kb_documents"] == 0
        kb.must("index")
        assert scraped(port)["kb_chunks"] == 3, "each request looks anew"
        write(kb.folder / "documents", more="# More\n\nAnd more.")
        assert kb("metrics", "--serve", str(port)).code == 3
        serving.send_signal(signal.SIGINT)
        assert serving.wait(20) == 0


def test_the_page_about_it_is_true(sound: CommandLine) -> None:
    page = (REPOSITORY / "docs" / "status.md").read_text()
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        script = f'kb() {{ {shlex.join(COMMAND)} "$@"; }}\n{block}'
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=sound.folder, env=sound.environment(), check=False
        )
        assert done.returncode == 0, block
    assert samples((sound.folder / "kb.prom").read_text())["kb_up"] == 1
    told = {name for name in re.findall(r"`(kb_\w+)", page) if name != "kb_assets"}
    assert set(samples(sound("metrics").out)) <= told
    source = (REPOSITORY / "kb_assets" / "cli" / "exposition.py").read_text()
    for name in told - {"kb_info"}:
        stem = name.removesuffix("_total").removesuffix("_timestamp_seconds")
        assert f'"{stem}' in source, name


def scraped(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return samples(answer.read().decode())
