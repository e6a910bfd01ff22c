"""The sensor `alerts`: tells a webhook of runs that failed and checks that turned red."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from dagster._core.events import DagsterEvent, JobFailureData
from dagster._core.storage.tags import WILL_RETRY_TAG

from kb_assets.defs.alert_state import WHOLE, AlertState
from kb_assets.defs.alert_text import Alert, message
from kb_assets.defs.index_runs import SHARD_ASSETS
from kb_assets.defs.partitions import PARTITION_TAG, SHARD_TAG, shards_of_run
from kb_assets.defs.webhook import WEBHOOK_VARIABLE, deliver, webhook_url
from kb_assets.settings import Settings

SENSOR = "alerts"

MOST_EVENTS = 500
"""How many failures, and how many results of checks, one tick deals with."""

_TOLD = (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.ASSET_CHECK_EVALUATION)


class _Event(NamedTuple):
    number: int
    run_id: str
    told: DagsterEvent


def alerts_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor; it runs by itself where there is a webhook."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING
        if webhook_url()
        else dg.DefaultSensorStatus.STOPPED,
        description=f"Posts to the webhook in {WEBHOOK_VARIABLE}, as JSON that Slack reads: runs "
        "that failed, checks that turned red, and those that are green again. What could not be "
        "delivered is posted by a later tick.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        if not webhook_url():
            return dg.SkipReason(f"There is no webhook: {WEBHOOK_VARIABLE} is not set.")
        newest = context.instance.event_log_storage.get_maximum_record_id() or 0
        if not context.cursor:
            context.update_cursor(AlertState(newest, newest).as_cursor(settings))
            return dg.SkipReason("What happens from now on is told.")
        state = AlertState.of_cursor(settings, context.cursor)
        events, state.after = _settled_events(context.instance, state)
        state.until = newest
        found = list(_alerts(settings, context.instance, events, state))
        if found:
            deliver(message(found, settings.alerts.ui_url))
        context.update_cursor(state.as_cursor(settings))
        return dg.SkipReason(f"{len(found):,} told." if found else "There was nothing to tell.")

    return alerts


def _settled_events(
    instance: dg.DagsterInstance, state: AlertState
) -> tuple[Sequence[_Event], int]:
    """Return what happened since, in order, and up to which event that is."""
    pages = [
        instance.event_log_storage.get_event_records(
            dg.EventRecordsFilter(kind, after_cursor=state.after, before_cursor=state.until + 1),
            limit=MOST_EVENTS,
            ascending=True,
        )
        for kind in _TOLD
    ]
    full = [page[-1].storage_id for page in pages if len(page) == MOST_EVENTS]
    last = min(full, default=max(state.after, state.until))
    events = [
        _Event(record.storage_id, record.run_id, event)
        for page in pages
        for record in page
        if record.storage_id <= last and (event := record.event_log_entry.dagster_event)
    ]
    return sorted(events, key=lambda event: event.number), last


def _alerts(
    settings: Settings,
    instance: dg.DagsterInstance,
    events: Sequence[_Event],
    state: AlertState,
) -> Iterator[Alert]:
    run_ids = list({event.run_id for event in events})
    found = instance.get_runs(dg.RunsFilter(run_ids=run_ids)) if run_ids else ()
    runs = {run.run_id: run for run in found}
    for event in events:
        run = runs.get(event.run_id)
        if event.told.event_type == dg.DagsterEventType.RUN_FAILURE:
            yield _failed(event, run)
        else:
            evaluation = event.told.asset_check_evaluation_data
            yield from _turned(settings, state, evaluation, run.tags if run else {})


def _failed(event: _Event, run: dg.DagsterRun | None) -> Alert:
    tags = run.tags if run else {}
    words = _why(event.told)
    if tags.get(WILL_RETRY_TAG) == "true":
        words += " It is started again."
    return Alert("failed", _run_title(run), words, f"/runs/{event.run_id}")


def _why(failure: DagsterEvent) -> str:
    """Return why a run failed, as far as it is ours to tell: others' words may hold a secret."""
    data = failure.event_specific_data
    told = data if isinstance(data, JobFailureData) else JobFailureData(None)
    step = told.first_step_failure_event
    if step is None:
        error = told.error
        words = "" if error else failure.message or ""
    else:
        error = step.step_failure_data.error
        ours = step.step_failure_data.user_failure_data
        words = (ours.description or "") if ours else ""
    if not words and error is not None:
        while error.cause is not None:
            error = error.cause
        words = f"{error.cls_name}. The run says more."
    return f"{step.step_key}: {words}" if step is not None else words


def _turned(
    settings: Settings,
    state: AlertState,
    evaluation: AssetCheckEvaluation,
    tags: Mapping[str, str],
) -> Iterator[Alert]:
    asset = evaluation.asset_key.to_user_string()
    check, words = f"{asset}: {evaluation.check_name}", evaluation.description or ""
    path = f"/assets/{asset}?view=checks&checkDetail={evaluation.check_name}"
    scope = WHOLE
    if asset in SHARD_ASSETS and settings.shards:
        shards = shards_of_run(settings, tags) or settings.shards
        scope = frozenset(shard.key for shard in shards)
    title = f"{check}{_scope_words(tags) if scope is not WHOLE else ''}"
    if evaluation.passed:
        if state.turns_green(check, scope):
            yield Alert("green", title, words, path)
    elif evaluation.severity == dg.AssetCheckSeverity.WARN:
        if state.turns_red(check, "WARN", scope):
            yield Alert("red", title, f"A warning. {words}", path)
    elif state.turns_red(check, "ERROR", scope):
        yield Alert("red", title, words, path)


def _run_title(run: dg.DagsterRun | None) -> str:
    if run is None:
        return "A run that was deleted"
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    name = ", ".join(assets) if run.job_name.startswith("__") and assets else run.job_name
    return f"{name}{_scope_words(run.tags)}"


def _scope_words(tags: Mapping[str, str]) -> str:
    scope = tags.get(SHARD_TAG) or tags.get(PARTITION_TAG)
    return f", {scope}" if scope else ""
