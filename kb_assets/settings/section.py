"""What all sections of `kb.toml` share."""

from pydantic import BaseModel, ConfigDict, field_validator

from kb_assets.settings.times import require_cron, require_timezone


class Section(BaseModel):
    """One section: frozen, and a key nobody knows is an error.

    A key `cron` or `timezone` is looked at in whatever section it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("cron", check_fields=False)
    @classmethod
    def _cron_comes_true(cls, cron: str) -> str:
        """Refuse what Dagster would; left at its default it may be empty."""
        return cron if cron == cls.model_fields["cron"].default else require_cron(cron)

    @field_validator("timezone", check_fields=False)
    @classmethod
    def _timezone_is_known(cls, timezone: str) -> str:
        return require_timezone(timezone)
