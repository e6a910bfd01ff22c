"""What all sections of `kb.toml` share."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section: frozen, and a key nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
