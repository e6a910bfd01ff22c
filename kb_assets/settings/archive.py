"""The section that says when messages leave the database, and where to."""

from datetime import date
from typing import Annotated

from pydantic import Field, field_validator

from kb_assets.settings.section import Section


class ArchiveSettings(Section):
    """Where old messages go. Without this section nothing is ever archived.

    Attributes:
        uri: A folder (relative to `kb.toml`), or `s3://`, `gs://`, `az://` with a prefix.
        options: Settings of the object store's client, such as `endpoint` or `region`; no secrets.
        retention_days: How long messages stay in the database; whole months leave it.
        cron: When due months are archived: five fields, in `timezone`.
        timezone: An IANA name; months are those of UTC all the same.
        first_month: Where the partitions of Dagster's asset begin: `2023-01`.
        cache_bytes: How much of the archive is kept at hand, on this machine, for queries.
    """

    uri: str = "archive"
    options: dict[str, str] = Field(default_factory=dict)
    retention_days: Annotated[int, Field(ge=1)] = 90
    cron: str = "0 3 * * *"
    timezone: str = "UTC"
    first_month: str = "2023-01"
    cache_bytes: Annotated[int, Field(ge=0)] = 2 * 1024**3

    @field_validator("first_month")
    @classmethod
    def _first_month_is_one(cls, month: str) -> str:
        try:
            date.fromisoformat(f"{month}-01")
        except ValueError:
            raise ValueError("first_month is a month such as 2023-01") from None
        return month
