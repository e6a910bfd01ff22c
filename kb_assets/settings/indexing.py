"""The sections that say what is indexed, and how."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from kb_assets.fingerprints import Shard, shards_of
from kb_assets.settings.retrieval import Language
from kb_assets.settings.section import Section

DOCUMENT_PATTERNS = (
    "**/*.md",
    "**/*.markdown",
    "**/*.txt",
    "**/*.rst",
    "**/*.html",
    "**/*.htm",
    "**/*.pdf",
)

_OBJECT_STORES = ("s3://", "gs://", "az://")


class SourceSettings(Section):
    """One place documents come from.

    Attributes:
        name: Lower-case, stays for ever: it is part of every document's identity.
        kind: What sort of place it is.
        uri: A folder (relative to `kb.toml`), or `s3://`, `gs://`, `az://` with a prefix.
        include: Patterns a path must match one of; `**` crosses folders.
        exclude: Patterns that take paths out again.
        language: Whose stemming and stop words its texts have; empty means `search.language`.
        shards: How many runs may work on the source at once.
        max_document_bytes: Larger documents go to quarantine unread.
        options: Settings of the object store's client, such as `endpoint` or `region`; no secrets.
        cron: When it is brought up to date, if not by `schedule.cron`: five fields, in
            `schedule.timezone`.
        watch: Whether it is listed every `schedule.watch_seconds`; unset means that a folder is,
            and an object store, where listing costs money, is not.
    """

    BY_ITSELF: ClassVar[frozenset[str]] = frozenset({"cron", "watch"})
    """Keys that say when a source is looked at, and nothing of what is found there."""

    name: str
    kind: Literal["files"] = "files"
    uri: str
    include: tuple[str, ...] = DOCUMENT_PATTERNS
    exclude: tuple[str, ...] = ()
    language: Language | Literal[""] = ""
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    max_document_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    options: dict[str, str] = Field(default_factory=dict)
    cron: str = ""
    watch: bool | None = None

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
    def is_watched(self) -> bool:
        """Whether changes are looked for between two ticks of its schedule."""
        return not self.in_object_store if self.watch is None else self.watch

    @property
    def all_shards(self) -> tuple[Shard, ...]:
        """Every shard of the source, in order."""
        return shards_of(self.name, self.shards)


class SplittingSettings(Section):
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


class EmbeddingSettings(Section):
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


class LimitSettings(Section):
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


class ScheduleSettings(Section):
    """When the index is brought up to date by itself.

    Attributes:
        cron: Five fields, in `timezone`; a source may have its own.
        timezone: An IANA name.
        enabled: Whether schedules and sensor run without being switched on in the UI.
        watch_seconds: How often sources are looked at for changes; 0 leaves all to the schedule.
        max_age_hours: For how long a source may not have been looked at.
    """

    cron: str = "*/15 * * * *"
    timezone: str = "UTC"
    enabled: bool = True
    watch_seconds: Annotated[int, Field(ge=0)] = 30
    max_age_hours: Annotated[int, Field(ge=1)] = 24
