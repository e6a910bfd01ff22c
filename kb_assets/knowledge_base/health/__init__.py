"""How a knowledge base is: what `kb status` and `kb metrics` tell, collected in one place."""

from kb_assets.knowledge_base.health.collection import begun, collect, ended
from kb_assets.knowledge_base.health.facts import (
    ArchiveHealth,
    BackupHealth,
    Concern,
    Health,
    QualityHealth,
    ShardHealth,
    SpaceHealth,
    Spending,
    Versions,
)

__all__ = [
    "ArchiveHealth",
    "BackupHealth",
    "Concern",
    "Health",
    "QualityHealth",
    "ShardHealth",
    "SpaceHealth",
    "Spending",
    "Versions",
    "begun",
    "collect",
    "ended",
]
