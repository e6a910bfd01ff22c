"""How a knowledge base is, as metrics in the text format of Prometheus."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from kb_assets.errors import KbError

if TYPE_CHECKING:
    from kb_assets.knowledge_base.health import Health

_PLACES = ("live", "quarantined", "pending", "vanishing")
"""Each document of a source is in exactly one of these."""

_MARKS = ("partial", "missing", "erased")
"""Said of documents besides."""


class HealthCollector(Collector):
    """Looks at a knowledge base whenever somebody asks, one at a time.

    Attributes:
        error: What kept the last look from being taken; None if it was.
    """

    def __init__(self, look: Callable[[], "Health"]) -> None:
        """Remember how to look."""
        self._look = look
        self._one_at_a_time = Lock()
        self.error: KbError | None = None

    def collect(self) -> Iterable[Metric]:
        """Return every metric; of a knowledge base that cannot be reached only that it cannot."""
        health = None
        with self._one_at_a_time:
            try:
                health, self.error = self._look(), None
            except KbError as error:
                self.error = error
        yield _gauge("kb_up", "Whether the knowledge base could be looked at.", health is not None)
        if health is not None:
            yield from families(health)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: looking takes longer than registering should."""
        return ()


def registry_of(collector: HealthCollector) -> CollectorRegistry:
    """Return a registry of this collector and nothing else."""
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def exposition(collector: HealthCollector) -> bytes:
    """Look once, and return the metrics as text."""
    return generate_latest(registry_of(collector))


def families(health: "Health") -> Iterator[Metric]:
    """Return the metrics of what was seen."""
    it = health.versions
    versions = {"version": it.kb, "schema": it.schema}
    servers = {"postgres": it.postgres, "pgvector": it.pgvector}
    yield InfoMetricFamily("kb", "What runs.", {**versions, **servers})
    yield _gauge("kb_database_bytes", "Size of the database.", it.database_bytes)
    yield _gauge("kb_look_seconds", "How long this look took.", health.seconds)
    yield from _shards(health)
    yield from _spaces(health)
    yield from _quality(health)
    yield from _backup(health)
    yield from _archive(health)
    yield from _spending(health)
    urgent = sum(one.is_urgent for one in health.concerns)
    yield _gauge("kb_concerns_urgent", "What somebody should do: see `kb status`.", urgent)
    unknown = GaugeMetricFamily("kb_unknown", "What could not be looked at.", labels=["about"])
    for about in health.unknown:
        unknown.add_metric([about], 1)
    yield unknown


def _shards(health: "Health") -> Iterator[Metric]:
    labels = ["source", "shard"]
    documents = GaugeMetricFamily(
        "kb_documents", "Documents by where they are.", labels=[*labels, "place"]
    )
    marked = GaugeMetricFamily(
        "kb_documents_marked", "Documents of which this is true besides.", labels=[*labels, "mark"]
    )
    listed = GaugeMetricFamily(
        "kb_documents_listed", "Documents the last listing found.", labels=labels
    )
    looked = GaugeMetricFamily(
        "kb_source_looked_at_timestamp_seconds",
        "When the source was last listed to the end.",
        labels=labels,
    )
    settled = GaugeMetricFamily(
        "kb_source_settled", "Whether all is accounted for and nothing waits.", labels=labels
    )
    for one in health.shards:
        key = [one.source, one.shard]
        for place in _PLACES:
            documents.add_metric([*key, place], getattr(one.account, place))
        for mark in _MARKS:
            marked.add_metric([*key, mark], getattr(one.account, mark))
        if one.account.listed is not None:
            listed.add_metric(key, one.account.listed)
        if one.looked_at is not None:
            looked.add_metric(key, one.looked_at.timestamp())
        settled.add_metric(key, one.account.is_settled)
    yield from (documents, marked, listed, looked, settled)
    yield _gauge("kb_chunks", "Chunks; an estimate if there are many.", health.chunks)


def _spaces(health: "Health") -> Iterator[Metric]:
    labels = ["space", "state"]
    vectors = GaugeMetricFamily(
        "kb_vectors", "Vectors; an estimate if there are many.", labels=labels
    )
    usable = GaugeMetricFamily(
        "kb_vector_index_usable", "Whether the space's index can be used.", labels=labels
    )
    sizes = GaugeMetricFamily("kb_vector_index_bytes", "Size of the index.", labels=labels)
    for one in health.spaces:
        key = [one.space.name, one.space.state]
        vectors.add_metric(key, one.vectors)
        usable.add_metric(key, one.indexed)
        sizes.add_metric(key, one.index_bytes)
    yield from (vectors, usable, sizes)


def _quality(health: "Health") -> Iterator[Metric]:
    found = health.quality
    if found is None:
        return
    yield _gauge("kb_quality_holds", "Whether the last verdict holds.", found.verdict == "holds")
    yield _moment("kb_quality_evaluated", "When questions were last asked.", found.evaluated_at)
    yield _gauge("kb_quality_questions", "How many were asked.", found.questions)
    for name, help_, value in (
        ("kb_quality_ndcg_ratio", "nDCG@10 of hybrid search.", found.ndcg),
        ("kb_quality_recall_ratio", "Recall@5 of hybrid search.", found.recall),
    ):
        if value is not None:
            yield _gauge(name, help_, value)


def _backup(health: "Health") -> Iterator[Metric]:
    found = health.backup
    if found is None:
        return
    yield _gauge("kb_backups", "Backups that are whole.", found.backups)
    yield _gauge(
        "kb_backup_drill_failed", "Whether the newest failed its drill.", bool(found.failed_drill)
    )
    if found.made_at is not None:
        yield _moment("kb_backup", "Whose state the newest holds.", found.made_at)
        yield _gauge("kb_backup_stored_bytes", "Size of the newest.", found.stored_bytes)
    if found.drilled_at is not None:
        yield _moment("kb_backup_drill", "When a drill last passed.", found.drilled_at)
        yield _gauge("kb_backup_drill_seconds", "How long that took.", found.drill_seconds)


def _archive(health: "Health") -> Iterator[Metric]:
    found = health.archive
    if found is None:
        return
    yield _gauge("kb_archive_months_due", "Months old enough to leave.", found.months_due)
    yield _gauge("kb_archive_months_overdue", "Due for over a week.", found.months_overdue)
    yield _gauge("kb_archive_objects", "Objects of the archive.", found.objects)
    yield _gauge("kb_archive_bytes", "Their size.", found.object_bytes)
    yield _gauge("kb_archive_messages", "Messages in them.", found.rows)
    yield _gauge("kb_erasures_open", "Erasures open for a day.", found.open_erasures)


def _spending(health: "Health") -> Iterator[Metric]:
    it = health.spending
    for name, help_, value in (
        ("kb_embedding_texts", "Texts that were embedded.", it.texts),
        ("kb_embedding_tokens", "Tokens providers counted.", it.tokens),
        ("kb_embedding_cost_usd", "What embeddings cost.", it.cost_usd),
    ):
        yield CounterMetricFamily(name, help_, value)
    yield _gauge("kb_embedding_saved_usd", "What shared texts saved.", it.saved_usd)


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_, value)


def _moment(name: str, help_: str, moment: datetime) -> Metric:
    return _gauge(f"{name}_timestamp_seconds", help_, moment.timestamp())
