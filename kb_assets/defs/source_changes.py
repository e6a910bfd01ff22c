"""The sensor that looks at sources between two ticks of the schedule, and starts what changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kb_assets.chunks.plan import recipe_of
from kb_assets.defs.index_runs import cut_into_runs, run_request, shards_being_worked_on
from kb_assets.defs.partitions import SHARD_TAG, range_tags
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.documents.watch import Look, Watcher
from kb_assets.errors import KbError
from kb_assets.fingerprints import Shard
from kb_assets.settings import Settings

SENSOR = "source_changes"

LISTING_SECONDS = 40.0
"""How long a tick waits for listings; Dagster gives up a tick that takes a minute."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What one tick leaves to the next.

    Attributes:
        started: By source and shard, the state a run was last started for, or that needed none.
        unlisted: By source, why it could not be listed.
    """

    started: dict[str, dict[str, str]] = field(default_factory=dict)
    unlisted: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from one look.

    Attributes:
        due: What is to be started.
        waiting: What has changed while a run works on it, and is due when that has ended.
        memory: What the next tick is told.
    """

    due: tuple[Look, ...]
    waiting: tuple[Look, ...]
    memory: Memory


def source_changes_sensor(
    settings: Settings, job: UnresolvedAssetJobDefinition
) -> dg.SensorDefinition | None:
    """Return the sensor, or None if no source is watched."""
    watcher = Watcher(settings, recipe_of(settings.splitting))
    if not watcher.sources or not settings.schedule.watch_seconds:
        return None

    @dg.sensor(
        name=SENSOR,
        job=job,
        minimum_interval_seconds=settings.schedule.watch_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING
        if settings.schedule.enabled
        else dg.DefaultSensorStatus.STOPPED,
        description=f"Lists {', '.join(source.name for source in watcher.sources)}, and starts "
        "index_documents for shards whose listing is not what was read last. A shard that a run "
        "works on has its turn when that has ended; what fails is left to the schedule.",
    )
    def source_changes(
        context: dg.SensorEvaluationContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.SensorResult:
        before = Memory(**json.loads(context.cursor)) if context.cursor else Memory()
        with knowledge_base.opened() as kb:
            looks = watcher.look(kb.database, LISTING_SECONDS)
        decision = decide(looks, before, shards_being_worked_on(settings, context.instance))
        for source, why in decision.memory.unlisted.items():
            if before.unlisted.get(source) != why:
                context.log.warning(f"{source} is not watched: {why}")
        requests = _requests(settings, decision.due)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else _why_nothing(decision),
            cursor=json.dumps(asdict(decision.memory)),
        )

    return source_changes


def decide(
    looks: Mapping[str, Sequence[Look] | KbError], before: Memory, busy: Set[str]
) -> Decision:
    """Say what is to be started.

    A state is started for once: if its run fails, or cannot read everything, the schedule tries
    again, and not each tick. The first tick has started for nothing, so that whatever was not
    read before is.

    Args:
        looks: What each source showed.
        before: What the last tick left.
        busy: The keys of shards that a run works on, or waits for.
    """
    due, waiting, after = list[Look](), list[Look](), Memory()
    for source, shards in looks.items():
        started = before.started.get(source, {})
        if isinstance(shards, KbError):
            after.unlisted[source] = str(shards)
            after.started[source] = started
            continue
        after.started[source] = {}
        for look in shards:
            key, state = look.shard.key, look.fingerprint.hex()[:32]
            is_new = not look.is_read and started.get(key) != state
            if is_new and key in busy:
                waiting.append(look)
                state = started.get(key, "")
            elif is_new:
                due.append(look)
            after.started[source][key] = state
    return Decision(tuple(due), tuple(waiting), after)


def _requests(settings: Settings, due: Sequence[Look]) -> list[dg.RunRequest]:
    """Return a request for each run.

    Its key is made of the states it is started for and of the fences of its shards: two ticks that
    overlap ask for one run, and the same state that comes again, after another, for a new one.
    """
    looks = {look.shard: look for look in due}
    return [
        run_request(shards, f"{range_tags(shards)[SHARD_TAG]} {_digest(looks, shards)}")
        for shards in cut_into_runs(settings, list(looks))
    ]


def _digest(looks: Mapping[Shard, Look], shards: Sequence[Shard]) -> str:
    digest = hashlib.sha256()
    for look in (looks[shard] for shard in shards):
        digest.update(look.fingerprint + look.fence.to_bytes(8, "big"))
    return digest.hexdigest()[:32]


def _why_nothing(decision: Decision) -> str:
    told = [f"{source}: {why}" for source, why in decision.memory.unlisted.items()]
    if decision.waiting:
        keys = ", ".join(look.shard.key for look in decision.waiting)
        told.insert(0, f"Changed, and being worked on: {keys}.")
    return " ".join(told) or "No source changed."
