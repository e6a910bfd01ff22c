"""What a knowledge base is made of: `kb.toml`, overridden by `KB_*` variables, read once.

Nested keys are written with two underscores: `KB_EMBEDDING__PROVIDER=openai`.
Secrets are never settings: the provider's key is read from the variable that
`embedding.api_key_variable` names, at the moment it is needed.
"""

import os
import re
import tomllib
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from kb_assets.errors import SettingsError
from kb_assets.fingerprints import Shard, shards_of

CONFIG_VARIABLE = "KB_CONFIG"
"""The variable that names another file than `kb.toml` in the current folder."""

DOCUMENT_PATTERNS = (
    "**/*.md",
    "**/*.markdown",
    "**/*.txt",
    "**/*.rst",
    "**/*.html",
    "**/*.htm",
    "**/*.pdf",
)

_config_file: ContextVar[Path | None] = ContextVar("_config_file", default=None)

_OBJECT_STORES = ("s3://", "gs://", "az://")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSettings(_Section):
    """One place documents come from.

    Attributes:
        name: Lower-case, stays for ever: it is part of every document's identity.
        kind: What sort of place it is.
        uri: A folder (relative to `kb.toml`), or `s3://`, `gs://`, `az://` with a prefix.
        include: Patterns a path must match one of; `**` crosses folders.
        exclude: Patterns that take paths out again.
        shards: How many runs may work on the source at once.
        max_document_bytes: Larger documents go to quarantine unread.
        options: Settings of the object store's client, such as `endpoint` or `region`; no secrets.
    """

    name: str
    kind: Literal["files"] = "files"
    uri: str
    include: tuple[str, ...] = DOCUMENT_PATTERNS
    exclude: tuple[str, ...] = ()
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    max_document_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    options: dict[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _name_makes_partition_keys(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name) or re.search(r"-\d+-of-\d+$", name):
            raise ValueError(
                "a source's name starts with a letter, has only a-z, 0-9, - and _, "
                "and does not end like '-01-of-02'"
            )
        return name

    @property
    def in_object_store(self) -> bool:
        """Whether the source is a prefix in an object store rather than a folder."""
        return self.uri.startswith(_OBJECT_STORES)

    @property
    def all_shards(self) -> tuple[Shard, ...]:
        """Every shard of the source, in order."""
        return shards_of(self.name, self.shards)


class SplittingSettings(_Section):
    """How documents become chunks. A change makes new revisions of all documents.

    Attributes:
        strategy: `markdown` follows headings; the others see plain text.
        size: The most a chunk may hold, in `unit`.
        overlap: How much of a chunk's end the next one repeats, in `unit`.
        unit: Exact tokens of `encoding`, or characters.
        encoding: Whose tokens are counted.
    """

    strategy: Literal["markdown", "recursive", "sentence", "fixed"] = "markdown"
    size: Annotated[int, Field(ge=1)] = 400
    overlap: Annotated[int, Field(ge=0)] = 50
    unit: Literal["tokens", "characters"] = "tokens"
    encoding: Literal["cl100k_base", "o200k_base"] = "cl100k_base"

    @model_validator(mode="after")
    def _overlap_is_below_size(self) -> "SplittingSettings":
        if self.overlap >= self.size:
            raise ValueError("overlap must be smaller than size")
        return self


class EmbeddingSettings(_Section):
    """Which model turns texts into vectors. A change of model fills a new space.

    Attributes:
        provider: `hash`, `openai`, `local`, or your own as `module:factory`.
        model: The model's name; empty means the provider's default.
        dimensions: Length of the vectors; 0 means the model's own.
        precision: `halfvec` (2 bytes a number) or `vector` (4 bytes).
        query_prefix: What the model wants before a query.
        document_prefix: What the model wants before a document's text.
        base_url: Another server that speaks the OpenAI protocol; empty means OpenAI.
        api_key_variable: The environment variable that holds the provider's key.
        requests_in_flight: How many requests may be open at once.
        texts_per_request: The most texts in one request.
        tokens_per_request: The most tokens in one request.
        timeout_seconds: How long one request may take.
        retries: How often the client tries again.
        usd_per_million_tokens: What the provider charges; unset means the built-in price list.
    """

    provider: str = "hash"
    model: str = ""
    dimensions: Annotated[int, Field(ge=0, le=4000)] = 0
    precision: Literal["halfvec", "vector"] = "halfvec"
    query_prefix: str = ""
    document_prefix: str = ""
    base_url: str = ""
    api_key_variable: str = "OPENAI_API_KEY"
    requests_in_flight: Annotated[int, Field(ge=1, le=256)] = 8
    texts_per_request: Annotated[int, Field(ge=1, le=2048)] = 256
    tokens_per_request: Annotated[int, Field(ge=1, le=300_000)] = 200_000
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    usd_per_million_tokens: Annotated[float, Field(ge=0)] | None = None

    @field_validator("provider")
    @classmethod
    def _provider_is_known(cls, provider: str) -> str:
        if provider not in ("hash", "openai", "local") and ":" not in provider:
            raise ValueError(
                "provider is 'hash', 'openai', 'local', or your own as 'module:factory'"
            )
        return provider


class LimitSettings(_Section):
    """What stops a run before it does harm.

    Attributes:
        max_deleted_share: The largest share of a shard's documents that may vanish unconfirmed.
        max_cost_per_run_usd: The most one run may spend on embeddings unconfirmed.
        lease_wait_seconds: How long to wait for another run that holds the shard.
        unused_vector_days: How long vectors nothing uses are kept.
        parse_seconds: The longest one document may take to parse and split.
        parse_memory_bytes: The most memory parsing may take.
    """

    max_deleted_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    max_cost_per_run_usd: Annotated[float, Field(ge=0)] = 5.0
    lease_wait_seconds: Annotated[float, Field(ge=0)] = 3600.0
    unused_vector_days: Annotated[float, Field(ge=0)] = 30.0
    parse_seconds: Annotated[float, Field(gt=0)] = 60.0
    parse_memory_bytes: Annotated[int, Field(ge=256 * 1024 * 1024)] = 1024 * 1024 * 1024


class ScheduleSettings(_Section):
    """When the index is brought up to date by itself.

    Attributes:
        cron: Five fields, in `timezone`.
        timezone: An IANA name.
        enabled: Whether the schedule runs without being switched on in the UI.
    """

    cron: str = "*/15 * * * *"
    timezone: str = "UTC"
    enabled: bool = False


class Settings(BaseSettings):
    """Everything a knowledge base can be told, frozen.

    Attributes:
        sources: The places documents come from.
        splitting: How documents become chunks.
        embedding: Which model turns texts into vectors.
        limits: What stops a run before it does harm.
        schedule: When the index is brought up to date by itself.
        owners: Who answers for the assets: e-mail addresses or `team:name`.
        database_url: PostgreSQL for the writer; empty starts the embedded server.
        read_database_url: Where searches go; empty means `database_url`.
        migration_database_url: Who may change the schema; empty means `database_url`.
        home: Where the embedded server and Dagster keep their state.
        root: The folder of `kb.toml`, that relative paths start from.
    """

    model_config = SettingsConfigDict(
        env_prefix="KB_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    sources: tuple[SourceSettings, ...] = ()
    splitting: SplittingSettings = SplittingSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    limits: LimitSettings = LimitSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    owners: tuple[str, ...] = ("team:knowledge",)
    database_url: str = ""
    read_database_url: str = ""
    migration_database_url: str = ""
    home: Path = Path(".kb")
    root: Path = Path()

    @model_validator(mode="after")
    def _source_names_are_unique(self) -> "Settings":
        names = [source.name for source in self.sources]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"two sources have the same name: {', '.join(sorted(repeated))}")
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
            raise SettingsError(
                "The settings cannot be used.", why=_explain(error), fix="Correct kb.toml or KB_*."
            ) from error
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
        raise SettingsError(f"{file} is not TOML.", why=str(error), fix="Correct it.") from error


def _explain(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'settings'}: {problem['msg']}"
        for problem in error.errors()
    )
