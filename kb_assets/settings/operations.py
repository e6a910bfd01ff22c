"""The sections that say who is told of trouble, and how the database is tended."""

from typing import Annotated

from pydantic import Field, field_validator

from kb_assets.settings.section import Section
from kb_assets.settings.server import require_address


class AlertSettings(Section):
    """What a message about a failed run or a red check says, besides what happened.

    The webhook's address is a secret, and no setting: KB_ALERT_WEBHOOK_URL.

    Attributes:
        ui_url: Where whoever reads the message opens Dagster's UI.
    """

    ui_url: str = "http://127.0.0.1:3000"

    @field_validator("ui_url")
    @classmethod
    def _ui_url_is_an_address(cls, url: str) -> str:
        require_address("alerts.ui_url", url, "https://dagster.example.com")
        return url.rstrip("/")


class HousekeepingSettings(Section):
    """How the database is tended by itself.

    Attributes:
        cron: When: five fields, in `timezone`.
        timezone: An IANA name.
        keep_runs_days: How long Dagster's runs and their events are kept. What became of assets
            is kept for ever: materializations, observations, results of checks.
    """

    cron: str = "0 4 * * *"
    timezone: str = "UTC"
    keep_runs_days: Annotated[int, Field(ge=1)] = 30
