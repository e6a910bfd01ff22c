"""The section that says where backups go, and how many are kept."""

from datetime import date
from typing import Annotated

from pydantic import Field

from kb_assets.settings.section import Section


class BackupSettings(Section):
    """Where backups go. Without this section they go to a folder beside `kb.toml`.

    Attributes:
        uri: A folder (relative to `kb.toml`), or `s3://`, `gs://`, `az://` with a prefix.
        options: Settings of the object store's client, such as `endpoint` or `region`; no secrets.
        cron: When a backup is made: five fields, in `timezone`.
        timezone: An IANA name.
        first_day: Where the partitions of Dagster's asset begin.
        keep_daily: Of how many days the newest backup is kept.
        keep_weekly: Of how many weeks.
        keep_monthly: Of how many months.
        max_age_hours: How old the newest backup may be.
        max_drill_age_days: How long ago the last drill may be.
    """

    uri: str = "backups"
    options: dict[str, str] = Field(default_factory=dict)
    cron: str = "0 2 * * *"
    timezone: str = "UTC"
    first_day: date = date(2026, 1, 1)
    keep_daily: Annotated[int, Field(ge=1)] = 7
    keep_weekly: Annotated[int, Field(ge=0)] = 4
    keep_monthly: Annotated[int, Field(ge=0)] = 6
    max_age_hours: Annotated[int, Field(ge=1)] = 26
    max_drill_age_days: Annotated[int, Field(ge=1)] = 8
