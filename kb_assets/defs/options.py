"""What a run can be told when it is started: the launchpad's fields."""

import dagster as dg
from pydantic import Field


class IndexOptions(dg.Config):
    """What a person confirms, or asks for, when starting a run by hand."""

    confirm_deletes: bool = Field(
        default=False,
        description="Overrule the mass-delete guard: documents that are gone from the source "
        "leave search, however many they are.",
    )
    confirm_cost: bool = Field(
        default=False,
        description="Overrule limits.max_cost_per_run_usd: embed whatever has no vector.",
    )
    verify: bool = Field(
        default=False,
        description="Trust no version token and no earlier result: read and compare every "
        "document again.",
    )
