"""Where Dagster keeps its runs and events: PostgreSQL always, the embedded one included.

Named in `dagster.yaml`, so that `dg dev` and `dg launch` need no exported URL, and no file has
a password in it.
"""

import os
from pathlib import Path
from typing import Any

from dagster import Field, Noneable, StringSource
from dagster._config.config_schema import UserConfigSchema
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from kb_assets.database.connect import resolve_urls
from kb_assets.errors import SettingsError
from kb_assets.settings import CONFIG_VARIABLE, Settings


class KnowledgeBaseStorage(DagsterPostgresStorage):
    """Dagster's storage in the database that the knowledge base's settings name."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return what `dagster.yaml` may say: where kb.toml is, if it is not found by itself."""
        return {"config_file": Field(Noneable(StringSource), is_required=False)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any  # noqa: ANN401
    ) -> "KnowledgeBaseStorage":
        """Return the storage; starts the embedded server if there is no other.

        Raises:
            SettingsError: There is no kb.toml.
            DatabaseUnavailableError: The embedded server did not start.
        """
        settings = Settings.load(_config_file(config_value.get("config_file")))
        return cls(storage_url(resolve_urls(settings).dagster), inst_data=inst_data)

    def keep_connections(self) -> None:
        """Hold connections open, as the webserver does; else each event makes a new one."""
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=8)


def storage_url(url: str) -> str:
    """Return a URL with the driver named: SQLAlchemy's default is not the one Dagster needs."""
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)


def _config_file(given: str | None) -> Path | None:
    """Return the file that was named, or the one beside `dagster.yaml` if none is here."""
    if given:
        return Path(given)
    if os.environ.get(CONFIG_VARIABLE) or Path("kb.toml").is_file():
        return None
    beside = Path(os.environ.get("DAGSTER_HOME", "")) / "kb.toml"
    if not beside.is_file():
        raise SettingsError(
            "Dagster's storage cannot be found.",
            why="There is no kb.toml here or in $DAGSTER_HOME, and KB_CONFIG is not set.",
            fix="Change to the folder of kb.toml, or set KB_CONFIG.",
        )
    return beside
