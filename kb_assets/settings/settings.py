"""What a knowledge base is made of: `kb.toml`, overridden by `KB_*` variables, read once.

Nested keys are written with two underscores: `KB_EMBEDDING__PROVIDER=openai`.
Secrets are never settings: the provider's key is read from the variable that
`embedding.api_key_variable` names, at the moment it is needed.
"""

import os
import tomllib
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as VariableError

from kb_assets.errors import SettingsError
from kb_assets.fingerprints import Shard
from kb_assets.settings.archive import ArchiveSettings
from kb_assets.settings.backup import BackupSettings
from kb_assets.settings.indexing import (
    EmbeddingSettings,
    LimitSettings,
    ScheduleSettings,
    SourceSettings,
    SplittingSettings,
)
from kb_assets.settings.mistakes import (
    DELIMITER,
    PREFIX,
    explain,
    explain_syntax,
    explain_variable,
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

CONFIG_VARIABLE = "KB_CONFIG"
"""The variable that names another file than `kb.toml` in the current folder."""

_config_file: ContextVar[Path | None] = ContextVar("_config_file", default=None)


class Settings(BaseSettings):
    """Everything a knowledge base can be told, frozen.

    Attributes:
        sources: The places documents come from.
        splitting: How documents become chunks.
        embedding: Which model turns texts into vectors.
        limits: What stops a run before it does harm.
        schedule: When the index is brought up to date by itself.
        search: How questions find passages.
        rerank: Who orders the best passages anew; nobody by default.
        answer: Which chat model `kb ask` answers with.
        cache: Where answers to repeated searches are kept; nowhere by default.
        quality: Which questions measure retrieval, and what follows from it.
        archive: When old messages leave the database, and where to; never by default.
        backup: Where backups go, and how many are kept.
        alerts: What messages about failed runs and red checks link to.
        housekeeping: When the database is tended, and how long Dagster's runs are kept.
        callers: Who may search with less than everything in view.
        owners: Who answers for the assets: e-mail addresses or `team:name`.
        database_url: PostgreSQL for the writer; empty starts the embedded server.
        read_database_url: Where searches go; empty means `database_url`.
        caller_database_url: Where searches of callers go, as a role that row-level security binds.
        archive_database_url: As whom messages are archived and erased; empty means `database_url`.
        migration_database_url: Who may change the schema; empty means `database_url`.
        backup_database_url: As whom backups read; empty means `migration_database_url`.
        home: Where the embedded server and Dagster keep their state.
        root: The folder of `kb.toml`, that relative paths start from.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=DELIMITER, frozen=True, extra="forbid"
    )

    sources: tuple[SourceSettings, ...] = ()
    splitting: SplittingSettings = SplittingSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    limits: LimitSettings = LimitSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    search: SearchSettings = SearchSettings()
    rerank: RerankSettings = RerankSettings()
    answer: AnswerSettings = AnswerSettings()
    cache: CacheSettings = CacheSettings()
    quality: QualitySettings = QualitySettings()
    archive: ArchiveSettings | None = None
    backup: BackupSettings = BackupSettings()
    alerts: AlertSettings = AlertSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    callers: tuple[CallerSettings, ...] = ()
    owners: tuple[str, ...] = ("team:knowledge",)
    database_url: str = ""
    read_database_url: str = ""
    caller_database_url: str = ""
    archive_database_url: str = ""
    migration_database_url: str = ""
    backup_database_url: str = ""
    home: Path = Path(".kb")
    root: Path = Path()

    @field_validator("sources", "callers")
    @classmethod
    def _names_are_unique(cls, named: tuple[Any, ...]) -> tuple[Any, ...]:
        """Look at the whole list, and say which of it is the second of its name."""
        names = [one.name for one in named]
        for place, name in enumerate(names):
            if name in names[:place]:
                at = (place, "name")
                raise PydanticCustomError("repeated", "it has the same name as another", {"at": at})
        return named

    @model_validator(mode="after")
    def _schedules_have_different_names(self) -> "Settings":
        names = [source.name.replace("-", "_") for source in self.sources if source.cron]
        if len(names) != len(set(names)):
            raise ValueError("two sources with a cron have names that differ in - and _ only")
        return self

    @model_validator(mode="after")
    def _callers_see_known_sources(self) -> "Settings":
        known = {source.name for source in self.sources}
        for caller in self.callers:
            if unknown := set(caller.sources) - known:
                raise ValueError(f"caller {caller.name} names unknown sources: {sorted(unknown)}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let what is passed win over the environment, and the environment over `kb.toml`."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=_config_file.get())
        return init_settings, env_settings, toml

    @classmethod
    def load(cls, config: Path | None = None, **overrides: Any) -> "Settings":  # noqa: ANN401
        """Read the settings of the knowledge base in the current folder.

        Args:
            config: Another file than `$KB_CONFIG` or `./kb.toml`.
            overrides: Top-level settings that win over file and environment.

        Raises:
            SettingsError: The file is missing, is not TOML, or says something impossible.
        """
        file = config or Path(os.environ.get(CONFIG_VARIABLE, "kb.toml"))
        _require_readable(file)
        token = _config_file.set(file)
        try:
            return cls(root=file.resolve().parent, **overrides)
        except ValidationError as error:
            raise explain(error.errors(), file, cls) from error
        except VariableError as error:
            raise explain_variable(error) from error
        finally:
            _config_file.reset(token)

    @cached_property
    def home_folder(self) -> Path:
        """The absolute folder of the embedded server's and Dagster's state."""
        return self.root.resolve() / self.home

    @property
    def shards(self) -> tuple[Shard, ...]:
        """Every shard of every source, in order."""
        return tuple(shard for source in self.sources for shard in source.all_shards)

    def source(self, name: str) -> SourceSettings:
        """Return the source of that name.

        Raises:
            SettingsError: No source has it.
        """
        for source in self.sources:
            if source.name == name:
                return source
        known = ", ".join(source.name for source in self.sources) or "none"
        raise SettingsError(
            f"There is no source {name!r}.", why=f"kb.toml names: {known}.", fix="Name one of them."
        )

    def caller(self, name: str) -> CallerSettings:
        """Return the caller of that name.

        Raises:
            SettingsError: No caller has it.
        """
        for caller in self.callers:
            if caller.name == name:
                return caller
        known = ", ".join(caller.name for caller in self.callers) or "none"
        raise SettingsError(
            f"There is no caller {name!r}.", why=f"kb.toml names: {known}.", fix="Name one of them."
        )


def _require_readable(file: Path) -> None:
    if not file.is_file():
        raise SettingsError(
            f"There is no {file}.",
            why="A knowledge base is described by a file kb.toml.",
            fix="Run `kb init`, change to its folder, or set KB_CONFIG.",
        )
    try:
        tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise explain_syntax(error, file) from error
