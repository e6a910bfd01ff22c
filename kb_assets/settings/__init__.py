"""What a knowledge base can be told: see `kb_assets.settings.settings`."""

from kb_assets.settings.archive import ArchiveSettings
from kb_assets.settings.backup import BackupSettings
from kb_assets.settings.indexing import (
    DOCUMENT_PATTERNS,
    EmbeddingSettings,
    LimitSettings,
    ScheduleSettings,
    SourceSettings,
    SplittingSettings,
)
from kb_assets.settings.operations import AlertSettings, HousekeepingSettings
from kb_assets.settings.retrieval import (
    AnswerSettings,
    CacheSettings,
    CallerSettings,
    QualitySettings,
    RerankSettings,
    SearchSettings,
)
from kb_assets.settings.settings import CONFIG_VARIABLE, Settings

__all__ = [
    "CONFIG_VARIABLE",
    "DOCUMENT_PATTERNS",
    "AlertSettings",
    "AnswerSettings",
    "ArchiveSettings",
    "BackupSettings",
    "CacheSettings",
    "CallerSettings",
    "EmbeddingSettings",
    "HousekeepingSettings",
    "LimitSettings",
    "QualitySettings",
    "RerankSettings",
    "ScheduleSettings",
    "SearchSettings",
    "Settings",
    "SourceSettings",
    "SplittingSettings",
]
