"""Console output of runs in an object store, set up as docs/deploy.md says."""

import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.storage.compute_log_manager import ComputeIOType

from tests.servers.s3_servers import REGION, Bucket, MotoServer

PAGE = (Path(__file__).parents[2] / "docs/deploy.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"^```yaml\n(compute_logs:\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@dg.op
def speak() -> None:
    print("the owl hunts at night")


@dg.job
def speaking() -> None:
    speak()


def configured(folder: Path) -> dict:
    told = yaml.safe_load(BLOCK)
    told["compute_logs"]["config"]["local_dir"] = str(folder)
    return told


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with MotoServer() as server:
        made = server.new_bucket().known(monkeypatch)
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
        monkeypatch.setenv("AWS_REGION", REGION)
        monkeypatch.setenv("KB_LOGS_BUCKET", made.name)
        yield made


def test_another_machine_reads_what_a_run_printed(bucket: Bucket, tmp_path: Path) -> None:
    with dg.instance_for_test(overrides=configured(tmp_path / "one")) as instance:
        done = speaking.execute_in_process(instance=instance)
        (captured,) = [one for one in done.all_events if one.event_type_value == "LOGS_CAPTURED"]
    key = [done.run_id, "compute_logs", captured.logs_captured_data.file_key]
    stored = bucket.objects.keys()
    assert any(done.run_id in name for name in stored)
    with dg.instance_for_test(overrides=configured(tmp_path / "other")) as instance:
        manager = instance.compute_log_manager
        data, _ = manager.get_log_data_for_type(key, ComputeIOType.STDOUT, 0, None)
    assert data == b"the owl hunts at night\n"
