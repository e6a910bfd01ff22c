"""The files for many machines, against those for one."""

import re
import shlex
from pathlib import Path

import yaml
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.instance.ref import InstanceRef

from kb_assets.defs.celery_launcher import CeleryWorkersLauncher
from kb_assets.defs.partitions import EXECUTION_VARIABLE
from tests.unit.test_deploy import EXAMPLE, RAW, REQUIRED

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.celery.yml").read_text(encoding="utf-8")
SERVICES = yaml.safe_load(TEXT)["services"]
WORKER = SERVICES["worker"]
TOLD = (ROOT / "docs/celery.md").read_text(encoding="utf-8").replace("\\\n", "")
OF_ONE_MACHINE = ("hostname", "healthcheck", "entrypoint", "command", "build", "depends_on")


def test_dagster_is_set_up_as_on_one_machine_but_for_what_celery_needs(monkeypatch) -> None:
    one = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    many = yaml.safe_load((ROOT / "deploy/celery/dagster.yaml").read_text())
    launcher = many.pop("run_launcher")
    assert set(many) <= set(dagster_instance_config_schema())
    for section, key in (("run_monitoring", "start_timeout_seconds"),):
        assert many[section].pop(key) > one[section].pop(key)
    assert many["concurrency"]["runs"].pop("max_concurrent_runs") > one["concurrency"]["runs"].pop(
        "max_concurrent_runs"
    )
    assert many == one
    assert launcher["class"] == CeleryWorkersLauncher.__name__

    monkeypatch.setenv("KB_CELERY_BROKER_URL", "redis://nowhere:6379/1")
    made = InstanceRef.from_dir(str(ROOT / "deploy/celery")).run_launcher
    assert isinstance(made, CeleryWorkersLauncher)
    assert made.celery.conf.broker_url == made.celery.conf.result_backend
    # A message that is given out again while its run goes on would start it twice.
    longest = one["run_monitoring"]["max_runtime_seconds"]
    assert made.celery.conf.broker_transport_options["visibility_timeout"] > longest
    # A run that a busy worker has reserved waits although another one is free.
    assert made.celery.conf.task_acks_late
    assert made.celery.conf.worker_prefetch_multiplier == 1


def test_a_worker_is_what_the_code_location_is_but_has_no_name_of_its_own() -> None:
    code = RAW["services"]["code-location"]
    assert {name: code[name] for name in WORKER if name in code and name not in changed()} == {
        name: WORKER[name] for name in WORKER if name in code and name not in changed()
    }
    assert "hostname" not in WORKER and "container_name" not in WORKER
    added = SERVICES["code-location"]["environment"]
    assert WORKER["environment"] == {**code["environment"], **added}
    assert added[EXECUTION_VARIABLE] == "cluster"
    mounted = {volume.split(":")[1]: volume for volume in code["volumes"]}
    (over,) = SERVICES["code-location"]["volumes"]
    mounted[over.split(":")[1]] = over
    # Only the code location is asked for its workspace.
    del mounted["/kb/workspace.yaml"]
    assert sorted(WORKER["volumes"]) == sorted(mounted.values())


def changed() -> tuple[str, ...]:
    return (*OF_ONE_MACHINE, "environment", "volumes", "deploy", "stop_grace_period")


def test_everybody_who_has_dagsters_settings_has_those_of_celery() -> None:
    for name, service in RAW["services"].items():
        if any("dagster.yaml" in volume for volume in service.get("volumes", ())):
            over = SERVICES.get(name)
            if over is None:
                assert name == "migrate", "it never looks at Dagster"
                continue
            assert over["volumes"] == ["./deploy/celery/dagster.yaml:/kb/dagster.yaml:ro"]
            assert "KB_CELERY_BROKER_URL" in over["environment"]
    assert (ROOT / "deploy/celery/dagster.yaml").exists()


def test_no_secret_is_written_down() -> None:
    assert all(REQUIRED.match(password) for password in re.findall(r"://\w+:(.*?)@", TEXT))
    assert set(REQUIRED.findall(TEXT)) <= set(re.findall(r"^(\w+)=$", EXAMPLE, re.MULTILINE))


def test_what_is_told_of_compose_names_services_that_are_there() -> None:
    commands = re.findall(r"^kbc (?:exec|run) (.+)$", TOLD, re.MULTILINE)
    assert commands
    for command in commands:
        assert shlex.split(command)[0] in {*RAW["services"], *SERVICES}
    files = re.search(r"alias kbc='docker compose (.+)'", TOLD)[1].split()[1::2]
    assert all((ROOT / file).exists() for file in files)


def test_what_is_told_starts_the_worker_that_compose_starts() -> None:
    started = " ".join(WORKER["entrypoint"] + WORKER["command"])
    assert started in TOLD
