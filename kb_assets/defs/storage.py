"""Where Dagster keeps its runs and events: PostgreSQL always, the embedded one included.

Named in `dagster.yaml`, so that `dg dev` and `dg launch` need no exported URL, and no file has
a password in it.
"""

import atexit
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
import sqlalchemy.exc
from dagster import Field, Noneable, StringSource
from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import DagsterPostgresException

from kb_assets.database.connect import conninfo, resolve_urls
from kb_assets.errors import DatabaseUnavailableError, SettingsError
from kb_assets.settings import CONFIG_VARIABLE, Settings

_VALIDATING = "DAGSTER_IS_DEFS_VALIDATION_CLI"
"""Set by `dg check defs`, which makes an instance although nothing is run or kept."""

_KEPT_CONNECTIONS = 3
"""So many are in use at once when an event is stored: within a transaction others are asked."""


class KnowledgeBaseStorage(DagsterPostgresStorage):
    """Dagster's storage in the database that the knowledge base's settings name."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return what `dagster.yaml` may say: where kb.toml is, if it is not found by itself."""
        return {"config_file": Field(Noneable(StringSource), is_required=False)}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Any,  # noqa: ANN401
    ) -> DagsterStorage:
        """Return the storage; starts the embedded server if there is no other.

        Raises:
            SettingsError: There is no kb.toml.
            DatabaseUnavailableError: The database cannot be reached.
        """
        if os.environ.get(_VALIDATING):
            return _throw_away_storage()
        settings = Settings.load(_config_file(config_value.get("config_file")))
        return cls.at(resolve_urls(settings).dagster, inst_data)

    @classmethod
    def at(cls, url: str, inst_data: ConfigurableClassData | None = None) -> "KnowledgeBaseStorage":
        """Return the storage in a database.

        Raises:
            DatabaseUnavailableError: The database cannot be reached.
        """
        with storage_must_answer():
            # Asked once and first: Dagster would try again for seconds, and say so each time.
            psycopg.connect(conninfo(url, "kb_assets dagster")).close()
            return cls(_with_driver(url), inst_data=inst_data)

    def keep_connections(self) -> None:
        """Let all parts share connections that stay open; else each event makes a new one."""
        engine = sqlalchemy.create_engine(
            self.postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=_KEPT_CONNECTIONS,
            pool_recycle=3600,
            max_overflow=8,
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine


def _with_driver(url: str) -> str:
    """Return a URL with the driver named: SQLAlchemy's default is not the one Dagster needs."""
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)


@contextmanager
def storage_must_answer() -> Iterator[None]:
    """Tell that Dagster's database is out of reach as `DatabaseUnavailableError`.

    Raises:
        DatabaseUnavailableError: It is.
    """
    try:
        yield
    except (psycopg.Error, sqlalchemy.exc.DBAPIError, DagsterPostgresException) as error:
        raise DatabaseUnavailableError(
            "The database that keeps Dagster's runs could not be reached.",
            why=_cause(error),
            fix="See whether the server runs and has a database for Dagster: `dagster`, or what "
            "KB_DAGSTER_DATABASE_URL names.",
        ) from error


def _cause(error: BaseException) -> str:
    """Return what the driver said, without the statement and its values."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(getattr(error, "orig", None) or error).strip()


def _throw_away_storage() -> DagsterStorage:
    """Return an empty storage that needs no database, and is gone when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="kb-check-")
    atexit.register(folder.cleanup)
    return DagsterSqliteStorage(folder.name)


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
