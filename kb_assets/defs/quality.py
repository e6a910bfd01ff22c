"""The asset `retrieval_quality`, and the check that says whether it holds."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
from dagster._core.definitions.data_version import extract_data_version_from_entry
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG

from kb_assets.defs.automation import after_indexing
from kb_assets.defs.columns import evaluation_columns
from kb_assets.defs.freshness import within
from kb_assets.defs.metadata import Metadata, table
from kb_assets.defs.partitions import QUALITY_GROUP
from kb_assets.defs.plots import history_plot, measures_plot
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.fingerprints import settings_fingerprint
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.evaluate import EvaluationReport, golden_questions
from kb_assets.retrieval.evaluations import Evaluation
from kb_assets.retrieval.golden import questions_hash
from kb_assets.retrieval.measures import ANSWER, MEASURES, NDCG, RECALL, RECIPROCAL_RANK
from kb_assets.retrieval.search import index_state
from kb_assets.retrieval.verdict import LEADING
from kb_assets.settings import Settings

QUALITY = """
How well the golden questions are answered; `quality.questions` names their file.

Each is asked by meaning and words together, by meaning alone, and by words alone. **ndcg_at_10** is
how near the ten best documents come to the best order there could be, **recall_at_5** how many of
the documents that answer are among five, **mrr_at_10** one over the rank of the first. The verdict
compares with the last time it held; a red one stops promotions of embedding spaces, and publishing
with `quality.block_publish`.

It follows the index by itself. **unchanged** then says that neither what can be found nor the
questions and their settings are others than the last time, and nothing was asked; started by hand,
it always asks.
"""

_HISTORY = 30
_WORST = 10

_NAMES = {
    NDCG: "ndcg_at_10",
    RECALL: "recall_at_5",
    RECIPROCAL_RANK: "mrr_at_10",
    ANSWER: "answer_at_5",
}


def retrieval_quality_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset; there are golden questions."""

    @dg.asset(
        group_name=QUALITY_GROUP,
        owners=list(settings.owners),
        deps=["vector_index"],
        automation_condition=after_indexing(),
        freshness_policy=within(timedelta(hours=settings.schedule.max_age_hours)),
        description=QUALITY,
        kinds={"postgres"},
        metadata=evaluation_columns(),
    )
    def retrieval_quality(
        context: dg.AssetExecutionContext,
        knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
    ) -> dg.MaterializeResult[None]:
        with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
            version = _version(kb)
            if _is_known(version, context):
                return dg.MaterializeResult(metadata={"unchanged": True}, data_version=version)
            report = kb.evaluate(run_id=context.run_id)
            past = kb.past_evaluations(_HISTORY)
        return dg.MaterializeResult(metadata=quality_metadata(report, past), data_version=version)

    return retrieval_quality


@dg.asset_check(
    asset="retrieval_quality",
    description="The golden questions are answered as well as when this last held, and as well "
    "as quality.min_ndcg asks for. If it is red, worst_questions in the asset's metadata shows "
    "what went; what changed since it held is the index, the model or the questions.",
)
def retrieval_quality_holds(
    context: dg.AssetCheckExecutionContext,
    knowledge_base: dg.ResourceParam[KnowledgeBaseResource],
) -> dg.AssetCheckResult:
    """Red if the last evaluation failed, whoever made it.

    ERROR, because it stops promotions. Not blocking: nothing comes after it, and what it stops
    asks the database and not Dagster.
    """
    with knowledge_base.told_as_dagster_wants(context), knowledge_base.opened() as kb:
        past = kb.past_evaluations(1)
    if not past:
        return dg.AssetCheckResult(passed=False, description="Nothing was measured yet.")
    last = past[0]
    return dg.AssetCheckResult(
        passed=last.verdict == "holds",
        severity=dg.AssetCheckSeverity.ERROR,
        description=" ".join(last.reasons)
        or f"{NDCG} of {LEADING} search is {last.metrics[LEADING][NDCG].mean:.3f}.",
        metadata={"evaluated_at": dg.MetadataValue.timestamp(last.evaluated_at)},
    )


def _version(kb: KnowledgeBase) -> dg.DataVersion:
    """Return what changes with what may be found, with the questions, and how they are asked."""
    questions, _ = golden_questions(kb.settings)
    ways = kb.settings.model_dump(mode="json", include={"search", "rerank", "quality"})
    state = index_state(kb.reader)
    space = None if state.space is None else state.space.id
    known_as = {"questions": questions_hash(questions).hex(), "space": space, **ways}
    return dg.DataVersion(f"{state.generation}-{settings_fingerprint(known_as).hex()}")


def _is_known(version: dg.DataVersion, context: dg.AssetExecutionContext) -> bool:
    """Say whether the last materialization was of the same, and nobody asks for another."""
    last = context.instance.get_latest_materialization_event(context.asset_key)
    by_itself = AUTOMATION_CONDITION_TAG in context.run.tags
    return by_itself and last is not None and extract_data_version_from_entry(last) == version


def quality_metadata(report: EvaluationReport, past: tuple[Evaluation, ...]) -> Metadata:
    """Return what a materialization shows: numbers that Dagster plots, tables, and plots.

    Args:
        report: The evaluation.
        past: The last ones, newest first, that one included.
    """
    evaluation = report.evaluation
    return {
        "verdict": dg.MetadataValue.text(evaluation.verdict),
        "questions": dg.MetadataValue.int(evaluation.questions),
        "space": dg.MetadataValue.text(report.space.name),
        "measures": table(["measure", "mode", "mean", "95%", "since last"], _measures(report)),
        "plot": measures_plot(evaluation),
        "history": history_plot(past),
        "worst_questions": table(["question", NDCG, "expected", "found"], _worst(report)),
        "notes": dg.MetadataValue.text(" ".join((*evaluation.reasons, *report.notes)) or "none"),
        **dict(_numbers(evaluation)),
    }


def _numbers(evaluation: Evaluation) -> Iterator[tuple[str, dg.MetadataValue]]:
    for mode, by_measure in evaluation.metrics.items():
        for measure, one in by_measure.items():
            yield f"{mode}_{_NAMES[measure]}", dg.MetadataValue.float(round(one.mean, 4))
        p95 = evaluation.seconds[mode]["p95"]
        yield f"{mode}_p95_milliseconds", dg.MetadataValue.float(round(p95 * 1000, 2))


def _measures(report: EvaluationReport) -> Iterator[tuple[str, ...]]:
    for measure in MEASURES:
        for mode, by_measure in report.evaluation.metrics.items():
            if (one := by_measure.get(measure)) is not None:
                since = report.differences.get(mode, {}).get(measure)
                change = "" if since is None else f"{since.mean:+.3f}"
                yield measure, mode, f"{one.mean:.3f}", f"{one.low:.3f} to {one.high:.3f}", change


def _worst(report: EvaluationReport) -> Iterator[tuple[str, ...]]:
    for question in report.worst_first()[:_WORST]:
        score = report.evaluation.per_question[question.text][LEADING][NDCG]
        found = report.found[question.text][LEADING][:1]
        yield question.text, f"{score:.2f}", ", ".join(question.expected), ", ".join(found)
