"""All definitions of one knowledge base."""

import warnings

import dagster as dg

from kb_assets.defs.alerts import alerts_sensor
from kb_assets.defs.archive import message_archive_asset
from kb_assets.defs.archive_checks import archive_checks
from kb_assets.defs.automation import automation_sensor
from kb_assets.defs.backup import database_backup_asset
from kb_assets.defs.backup_checks import backup_checks
from kb_assets.defs.checks import index_checks
from kb_assets.defs.chunks import document_chunks_asset
from kb_assets.defs.documents import raw_documents_asset
from kb_assets.defs.embeddings import chunk_embeddings_asset
from kb_assets.defs.freshness import every_source_is_fresh
from kb_assets.defs.housekeeping import (
    housekeeping_asset,
    housekeeping_job,
    housekeeping_schedule,
)
from kb_assets.defs.index import published_documents_asset, vector_index_asset
from kb_assets.defs.index_runs import FRESH, index_documents_job
from kb_assets.defs.quality import retrieval_quality_asset, retrieval_quality_holds
from kb_assets.defs.resources import KNOWLEDGE_BASE, KnowledgeBaseResource
from kb_assets.defs.schedules import (
    archive_messages_job,
    archive_messages_schedule,
    back_up_database_job,
    back_up_database_schedule,
    index_documents_schedules,
    measure_retrieval_job,
    measure_retrieval_schedule,
)
from kb_assets.defs.source_changes import source_changes_sensor
from kb_assets.settings import Settings


def build_definitions(
    settings: Settings, resource: KnowledgeBaseResource | None = None
) -> dg.Definitions:
    """Return what Dagster knows of a knowledge base.

    Args:
        settings: Its sources become partitions, its owners the assets' owners.
        resource: Opens it; by default anew for each step.
    """
    with warnings.catch_warnings():
        # Backfill policies are "beta", and the only way to give one run several partitions.
        warnings.simplefilter("ignore", dg.BetaWarning)
        assets = [
            raw_documents_asset(settings),
            document_chunks_asset(settings),
            chunk_embeddings_asset(settings),
            published_documents_asset(settings),
            vector_index_asset(settings),
            message_archive_asset(settings),
            database_backup_asset(settings),
            housekeeping_asset(settings),
        ]
        checks = [every_source_is_fresh, *index_checks(), *archive_checks(), *backup_checks()]
        automated = ["vector_index"]
        if settings.quality.questions is not None:
            assets.append(retrieval_quality_asset(settings))
            checks.append(retrieval_quality_holds)
            automated.append("retrieval_quality")
    job, backing_up = index_documents_job(), back_up_database_job()
    keeping_house = housekeeping_job()
    jobs = [job, backing_up, keeping_house]
    schedules = [
        *index_documents_schedules(settings, job),
        back_up_database_schedule(settings.backup, backing_up),
        housekeeping_schedule(settings.housekeeping, keeping_house),
    ]
    if settings.quality.questions is not None and settings.quality.cron:
        measuring = measure_retrieval_job()
        jobs.append(measuring)
        schedules.append(measure_retrieval_schedule(settings, measuring))
    if settings.archive is not None:
        archiving = archive_messages_job()
        jobs.append(archiving)
        schedules.append(archive_messages_schedule(settings, settings.archive, archiving))
    watching = source_changes_sensor(settings, job)
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=jobs,
        schedules=schedules,
        sensors=[
            automation_sensor(*automated, checks=[FRESH]),
            alerts_sensor(settings),
            *([watching] if watching else []),
        ],
        resources={KNOWLEDGE_BASE: resource or KnowledgeBaseResource(settings)},
        executor=dg.in_process_executor,
    )
