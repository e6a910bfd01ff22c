"""What Dagster costs where nothing changed, and whether its events grow with the corpus.

    python -m benchmarks.dagster_overhead

In one process and in turn: the job `index_documents` over an indexed corpus with nothing changed,
as `kb index` executes it (`execute_in_process`, in-process executor, Dagster's storage in the
embedded PostgreSQL, Python's collector at work seldom); a graph with empty bodies that has the
same assets, checks, dependencies, partitions, executor, instance and number of events; and the
same stages as a library call.

The job may take what the other two take together, give or take what the middle half of the empty
graph's own rounds differ by: less cannot be told from noise.
"""

import argparse
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.record import Row, record
from kb_assets import KnowledgeBase
from kb_assets.database.embedded import leave_embedded
from kb_assets.defs.build import build_definitions
from kb_assets.defs.failures import NO_RUN_RETRIES
from kb_assets.defs.instance import dagster_instance
from kb_assets.defs.partitions import range_tags
from kb_assets.defs.processes import process_tags
from kb_assets.defs.resources import KNOWLEDGE_BASE, KnowledgeBaseResource, Observer
from kb_assets.defs.schedules import JOB
from kb_assets.knowledge_base.garbage import seldom_collected

ROUNDS = 15
RACY_SECONDS = 2.1
"""A file that changed more recently may change again without its version token doing so."""

FILES = (50, 1_000)
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

Execute = Callable[[], dg.ExecuteInProcessResult]


def write_corpus(folder: Path, files: int) -> None:
    """Write documents of about two kB, each with words of its own, no two of which share a text."""
    draw = random.Random(files)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(5_000)]
    folder.mkdir()
    for number in range(files):
        own = draw.sample(words, 30)
        parts = [f"# Document {number}\n"]
        parts += [f"## Part {part}\n\n{' '.join(draw.choices(own, k=100))}.\n" for part in "abc"]
        (folder / f"{number}.md").write_text("\n".join(parts))


@contextmanager
def unindexed(files: int) -> Iterator[KnowledgeBase]:
    """A knowledge base of so many documents on an embedded server, none of them read yet."""
    home = Path(tempfile.mkdtemp(prefix="kb-dagster-"))
    write_corpus(home / "corpus", files)
    (home / "kb.toml").write_text('[[sources]]\nname = "docs"\nuri = "corpus"\n')
    try:
        with KnowledgeBase.open(home / "kb.toml") as kb:
            kb.upgrade()
            yield kb
    finally:
        leave_embedded(kb.settings.home_folder)
        shutil.rmtree(home, ignore_errors=True)


def other_key(key: dg.AssetKey) -> dg.AssetKey:
    """Return the key of an empty asset: the real ones look at what they said before."""
    return key.with_prefix("empty")


def empty_asset(spec: dg.AssetSpec, real: dg.AssetsDefinition) -> dg.AssetsDefinition:
    other = spec.replace_attributes(
        key=other_key(spec.key),
        deps=[dg.AssetDep(other_key(dep.asset_key)) for dep in spec.deps],
        automation_condition=None,
    )

    @dg.multi_asset(
        name=other.key.to_python_identifier(),
        specs=[other],
        partitions_def=spec.partitions_def,
        backfill_policy=real.backfill_policy,
    )
    def empty(
        context: dg.AssetExecutionContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> Any:  # noqa: ANN401
        return dg.MaterializeResult()

    return empty


def empty_check(spec: dg.AssetCheckSpec) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=other_key(spec.asset_key), name=spec.name, blocking=spec.blocking)
    def empty(
        context: dg.AssetCheckExecutionContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    return empty


def empty_definitions(real: dg.Definitions, resource: KnowledgeBaseResource) -> dg.Definitions:
    """The same assets and checks with nothing in them."""
    assets = [one for one in real.assets or () if isinstance(one, dg.AssetsDefinition)]
    empty = [empty_asset(spec, one) for one in assets for spec in one.specs]
    return dg.Definitions(
        assets=empty,
        asset_checks=[
            empty_check(spec)
            for one in real.asset_checks or ()
            if isinstance(one, dg.AssetChecksDefinition)
            for spec in one.check_specs
        ],
        jobs=[dg.define_asset_job(JOB, dg.AssetSelection.assets(*empty), tags=NO_RUN_RETRIES)],
        resources={KNOWLEDGE_BASE: resource},
        executor=dg.in_process_executor,
    )


def executing(
    kb: KnowledgeBase, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> Execute:
    job = definitions.resolve_job_def(JOB)
    tags = {**range_tags(kb.settings.shards), **process_tags()}

    def execute() -> dg.ExecuteInProcessResult:
        result = job.execute_in_process(run_config=SILENT, instance=instance, tags=tags)
        red = [one for one in result.get_asset_check_evaluations() if not one.passed]
        assert not red, red
        return result

    return execute


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def step_seconds(results: list[dg.ExecuteInProcessResult]) -> dict[str, float]:
    """How long each step's body took, by its name; medians."""
    took: dict[str, list[float]] = {}
    for result in results:
        for event in result.all_events:
            if event.is_step_success:
                name = str(event.step_key)
                took.setdefault(name, []).append(event.step_success_data.duration_ms / 1000)
    return {name: statistics.median(each) for name, each in took.items()}


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of each round, by what was done; those of each step; and events of a run."""

    took: dict[str, list[float]]
    steps: dict[str, float]
    events: dict[str, int]


def measure(files: int, rounds: int) -> Measured:
    took: dict[str, list[float]] = {"job": [], "empty": [], "library": []}
    with unindexed(files) as kb, dagster_instance(kb) as instance, seldom_collected():
        resource = KnowledgeBaseResource(
            kb.settings, knowledge_base=kb, observer=Observer(lambda _: None)
        )
        definitions = build_definitions(kb.settings, resource)
        real = executing(kb, definitions, instance)
        empty = executing(kb, empty_definitions(definitions, resource), instance)
        first = real()
        for _ in range(2):
            # The first run after this finds every version token old enough to be trusted.
            time.sleep(RACY_SECONDS)
            real(), empty(), kb.index()
        results: list[dg.ExecuteInProcessResult] = []
        for _ in range(rounds):
            took["job"].append(seconds(lambda: results.append(real())))
            took["empty"].append(seconds(empty))
            took["library"].append(seconds(kb.index))
        runs = {"first load": first, "nothing changed": results[-1], "empty": empty()}
        events = {name: len(instance.all_logs(run.run_id)) for name, run in runs.items()}
    return Measured(took, step_seconds(results), events)


def rows(measured: dict[int, Measured]) -> Iterator[Row]:
    for files, one in measured.items():
        job, empty, library = (statistics.median(one.took[name]) for name in one.took)
        fast, _, slow = statistics.quantiles(one.took["empty"])
        noise = slow - fast
        slowest = sorted(one.steps.items(), key=lambda step: -step[1])
        yield Row(
            name=f"a Dagster run with nothing changed, {files:,} files",
            measured=f"{job:.3f} s, {job - empty - library:+.3f} s",
            target=f"≤ {empty + library + noise:.3f} s: the same graph with empty bodies "
            f"{empty:.3f} s, the stages as a library call {library:.3f} s, and what the "
            f"middle half of the empty graph's rounds differ by, {noise:.3f} s",
            met=job <= empty + library + noise,
            detail=", ".join(f"{name} {step * 1000:.0f} ms" for name, step in slowest),
        )
    few, many = measured.values()
    for name in ("first load", "nothing changed"):
        yield Row(
            name=f"events of a Dagster run, {name}",
            measured=" and ".join(
                f"{one.events[name]} for {files:,} files" for files, one in measured.items()
            ),
            target="the same number",
            met=few.events[name] == many.events[name],
            detail=f"with empty bodies {few.events['empty']}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    measured = {files: measure(files, rounds) for files in FILES}
    seconds_of_rounds = {files: one.took for files, one in measured.items()}
    record("dagster_overhead", "What Dagster adds", list(rows(measured)), seconds=seconds_of_rounds)


if __name__ == "__main__":
    main()
