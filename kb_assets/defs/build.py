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
from kb_assets.defs.index import published_documents_asset, vector_index_asset
from kb_assets.defs.quality import retrieval_quality_asset, retrieval_quality_holds
from kb_assets.defs.resources import KNOWLEDGE_BASE, KnowledgeBaseResource
from kb_assets.defs.schedules import (
    archive_messages_job,
    archive_messages_schedule,
    back_up_database_job,
    back_up_database_schedule,
    index_documents_job,
    index_documents_schedule,
)
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
        ]
        checks = [*index_checks(), *archive_checks(), *backup_checks()]
        automated = ["vector_index"]
        if settings.quality.questions is not None:
            assets.append(retrieval_quality_asset(settings))
            checks.append(retrieval_quality_holds)
            automated.append("retrieval_quality")
    job, backing_up = index_documents_job(), back_up_database_job()
    jobs = [job, backing_up]
    schedules = [
        index_documents_schedule(settings, job),
        back_up_database_schedule(settings.backup, backing_up),
    ]
    if settings.archive is not None:
        archiving = archive_messages_job()
        jobs.append(archiving)
        schedules.append(archive_messages_schedule(settings, settings.archive, archiving))
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=jobs,
        schedules=schedules,
        sensors=[automation_sensor(*automated), alerts_sensor(settings)],
        resources={KNOWLEDGE_BASE: resource or KnowledgeBaseResource(settings)},
        executor=dg.in_process_executor,
    )
