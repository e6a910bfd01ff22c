"""What deploy/kubernetes/ promises, as far as it shows without a cluster."""

import copy
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kb_assets.database.connect import DatabaseUrls, resolve_urls
from kb_assets.defs.partitions import EXECUTION_VARIABLE
from kb_assets.settings import Settings
from tests.unit.test_deploy import INIT, RAW, REQUIRED, ROOT, size

FOLDER = ROOT / "deploy/kubernetes"
TOLD = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8").replace("\\\n", "")
MANIFESTS = sorted(file for file in FOLDER.glob("*.yaml") if file.name != "values.yaml")
OBJECTS = [one for file in MANIFESTS for one in yaml.safe_load_all(file.read_text())]
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text())
(CODE,) = VALUES["dagster-user-deployments"]["deployments"]
LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
POLICIES = {one["metadata"]["name"]: one["spec"] for one in OBJECTS if "Policy" in one["kind"]}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod, ours and those of the chart, in one form."""
    for one in OBJECTS:
        if "template" in one.get("spec", {}):
            template = one["spec"]["template"]
            yield template["metadata"]["labels"]["kb-role"], template["spec"]
    for part in (VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], CODE, LAUNCHER):
        run = part.get("runK8sConfig", {}).get("podSpecConfig", {})
        image = part.get("image", CODE["image"])
        env = [{"secretRef": name} for name in part.get("envSecrets", ())]
        container = {
            "image": f"{image['repository']}:{image['tag']}",
            **{key: part[key] for key in ("securityContext", "resources", "volumeMounts")},
            "envFrom": env,
        }
        security = part.get("podSecurityContext") or run["securityContext"]
        spec = {"securityContext": security, "containers": [container], "volumes": part["volumes"]}
        yield part["labels"]["kb-role"], spec


PODS = dict(pods())


def test_kubernetes_accepts_every_manifest() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("kubernetes-validate"), "--strict", *map(str, MANIFESTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("passed") == len(OBJECTS)
    assert {one["metadata"].get("namespace", "kb") for one in OBJECTS} == {"kb"}


@pytest.mark.parametrize("role", PODS)
def test_a_pod_is_limited_and_is_let_into_a_restricted_namespace(role: str) -> None:
    (namespace,) = (one for one in OBJECTS if one["kind"] == "Namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = PODS[role]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        added = ["NET_BIND_SERVICE"] if role == "login" else []
        assert context["capabilities"] == {"drop": ["ALL"], **({"add": added} if added else {})}
        assert size(container["resources"]["limits"]["memory"].removesuffix("i")) > 0
        mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
        claimed = {"data"} if role == "postgres" else set()
        assert mounted - claimed == {volume["name"] for volume in pod.get("volumes", ())}


def test_images_are_those_of_compose() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {role: pod["containers"][0]["image"] for role, pod in PODS.items()}
    services = RAW["services"]
    assert images.pop("postgres") == services["postgres"]["image"]
    assert images.pop("login") == services["login"]["image"]
    (ours,) = set(images.values())
    assert ours.endswith(f"/kb-assets:{version}")
    assert (
        PODS["postgres"]["containers"][0]["env"][1]["value"]
        == (services["postgres"]["environment"]["POSTGRES_INITDB_ARGS"])
    )


def test_nobody_is_reached_but_by_those_who_are_named() -> None:
    assert POLICIES["nobody-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    named = re.findall(r"kb-role: (\w+)", str(POLICIES).replace("'", ""))
    for policy in POLICIES.values():
        for match in re.findall(r"'values': \[(.*?)\]", str(policy)):
            named += re.findall(r"\w+", match)
    assert set(named) == set(PODS)

    def sources(name: str) -> set[str]:
        (rule,) = POLICIES[name]["ingress"]
        return set(re.findall(r"\w[\w-]*", str(rule["from"]))) & {*PODS, "ingress-nginx"}

    assert sources("postgres") == set(PODS) - {"postgres", "login"}
    assert sources("code") == {"webserver", "daemon"}
    assert sources("webserver") == {"login"}
    assert sources("login") == {"ingress-nginx"}
    ports = {
        name: policy["ingress"][0]["ports"][0]["port"]
        for name, policy in POLICIES.items()
        if "ingress" in policy
    }
    assert ports["webserver"] == VALUES["dagsterWebserver"]["service"]["port"]
    assert ports["code"] == CODE["port"]
    upstream = PODS["login"]["containers"][0]["env"][0]["value"]
    assert upstream == f"dagster-{VALUES['dagsterWebserver']['nameOverride']}:3000"


def test_dagster_is_set_up_as_on_one_machine_but_for_the_numbers() -> None:
    one = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    many = copy.deepcopy(VALUES["additionalInstanceConfig"])
    assert many["concurrency"]["runs"].pop("max_concurrent_runs") > (
        one["concurrency"]["runs"].pop("max_concurrent_runs")
    )
    for key in ("concurrency", "freshness", "nux"):
        assert many[key] == one[key]
    daemon = VALUES["dagsterDaemon"]
    assert daemon["runRetries"] == {
        "enabled": True,
        "maxRetries": one["run_retries"]["max_retries"],
        "retryOnAssetOrOpFailure": one["run_retries"]["retry_on_asset_or_op_failure"],
    }
    assert (
        daemon["runMonitoring"]["maxRuntimeSeconds"]
        == (one["run_monitoring"]["max_runtime_seconds"])
    )
    # Dagster refuses limits in two places.
    assert daemon["runCoordinator"] == {"enabled": False}
    assert (
        VALUES["retention"]["schedule"]["purgeAfterDays"]
        == (one["retention"]["schedule"]["purge_after_days"])
    )
    assert set(LAUNCHER["envVars"]) == {f"{v['name']}={v['value']}" for v in CODE["env"]}
    assert f"{EXECUTION_VARIABLE}=cluster" in LAUNCHER["envVars"]
    assert LAUNCHER["envSecrets"] == CODE["envSecrets"]


# Secrets.


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, dict[str, str]]:
    """What secrets.sh hands to kubectl, by the secret."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        '#!/bin/sh\ncd "$(dirname "$0")"\n[ "$1" = create ] || exec cat > ignored\n'
        'cat > "$4"; echo "$*" >> told\n'
    )
    kubectl.chmod(0o755)
    given = {name: f"{name.lower()}-value" for name in REQUIRED.findall(str(RAW))}
    given |= {"UI_PASSWORD_HASH": "$2a$14$abc", "OPENAI_API_KEY": "sk-1"}
    done = subprocess.run(
        ["sh", FOLDER / "secrets.sh"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = (tmp_path / "told").read_text()
    assert "value" not in told, "an argument can be seen by every process"
    assert "--namespace kb" in told
    return {
        file.name: dict(line.split("=", 1) for line in file.read_text().splitlines())
        for file in tmp_path.glob("kb-*")
    }


def test_each_pod_gets_the_secrets_it_needs_and_no_others(
    secrets: dict[str, dict[str, str]],
) -> None:
    used = {
        role: [one["secretRef"]["name"] for one in pod["containers"][0].get("envFrom", ())]
        for role, pod in PODS.items()
    }
    assert used == {
        "postgres": ["kb-postgres"],
        "migrate": ["kb-runs", "kb-migrate"],
        "login": ["kb-login"],
        "webserver": [],
        "daemon": [],
        "code": ["kb-runs"],
        "run": ["kb-runs"],
    }
    assert VALUES["global"]["postgresqlSecretName"] == "kb-dagster"
    assert set(secrets) == {name for names in used.values() for name in names} | {"kb-dagster"}
    assert secrets["kb-login"]["UI_PASSWORD_HASH"] == "$2a$14$abc"
    assert secrets["kb-dagster"] == {"postgresql-password": "dagster_password-value"}
    needed = set(re.findall(r'"\$\{(\w+_PASSWORD):\?', INIT.read_text()))
    assert set(secrets["kb-postgres"]) == {*needed, "POSTGRES_PASSWORD"}


def test_every_role_of_a_run_is_named_by_its_own_url(
    secrets: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("KB_")]:
        monkeypatch.delenv(name)
    for name, value in (secrets["kb-runs"] | secrets["kb-migrate"]).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "kb.toml").write_text("")
    urls = resolve_urls(Settings.load(tmp_path / "kb.toml"))
    roles = {name: getattr(urls, name).split("//")[1].split(":")[0] for name in fields()}
    assert roles == {name: f"kb_{name}" for name in fields()} | {"dagster": "dagster"}
    assert secrets["kb-runs"]["OPENAI_API_KEY"] == "sk-1"
    assert "kb_migrator" not in str(secrets["kb-runs"])


def fields() -> tuple[str, ...]:
    return tuple(DatabaseUrls.__dataclass_fields__)


def test_without_a_password_nothing_is_put_into_the_cluster(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", FOLDER / "secrets.sh"],
        env={"PATH": os.environ["PATH"], "MIGRATOR_PASSWORD": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "WRITER_PASSWORD" in done.stderr


# What is told of it.


def test_what_is_told_makes_all_that_the_pods_name() -> None:
    assert {f"-f deploy/kubernetes/{file.name}" for file in MANIFESTS} <= {
        f"-f {name}" for name in re.findall(r"-f (deploy/kubernetes/\S+)", TOLD)
    }
    for name in re.findall(r"(?:deploy|docs)/[\w./-]+\.\w+", TOLD):
        assert (ROOT / name).exists(), name
    made = dict(re.findall(r"kubectl create configmap (\S+) .*?((?:--from-file=\S+ ?)+)", TOLD))
    volumes = {
        volume["configMap"]["name"]: pod
        for pod in PODS.values()
        for volume in pod.get("volumes", ())
        if "configMap" in volume
    }
    assert set(made) == set(volumes)
    for name, pod in volumes.items():
        files = {Path(file).name for file in re.findall(r"--from-file=(\S+)", made[name])}
        (volume,) = (
            v["name"] for v in pod["volumes"] if v.get("configMap", {}).get("name") == name
        )
        mounts = pod["containers"][0]["volumeMounts"]
        assert {mount["subPath"] for mount in mounts if mount["name"] == volume} == files
    (chart,) = set(re.findall(r"--version (\S+)", TOLD))
    constraints = (ROOT / "constraints.txt").read_text()
    assert f"dagster=={chart}\n" in constraints
    assert f"version {chart}:" in (FOLDER / "values.yaml").read_text()
