"""Our errors as Dagster's: what is final, what is worth another try, and when."""

import dagster as dg

from kb_assets.errors import (
    DatabaseUnavailableError,
    KbError,
    ObjectStoreUnavailableError,
    ProviderUnavailableError,
    SourceUnavailableError,
    TransientError,
)

MAX_RETRIES = 3
FIRST_PAUSE_SECONDS = 10.0

_PASSING = (
    *(DatabaseUnavailableError, SourceUnavailableError, ProviderUnavailableError),
    ObjectStoreUnavailableError,
)

NO_RUN_RETRIES = {"dagster/retry_on_asset_or_op_failure": "false"}
"""A failed step is final for its run, whatever `dagster.yaml` says: what may pass was tried again
in the step already. Runs whose process died are started again. (`Failure(allow_retries=False)`
alone does not stop Dagster from retrying the run.)"""


def failure_of(error: KbError) -> dg.Failure:
    """Return a failure that says what happened, why, and what to do."""
    told = {"what": error.what, "why": error.why, "fix": error.fix, "error": type(error).__name__}
    return dg.Failure(
        description=str(error),
        metadata={key: dg.MetadataValue.text(value) for key, value in told.items() if value},
        allow_retries=False,
    )


def retry_of(error: TransientError, retries: int) -> dg.RetryRequested | None:
    """Return when to try again after so many retries, or None if that is pointless.

    A shard that is busy was waited for, and a lease that was lost means that another run does
    the work: neither is tried again.
    """
    if not isinstance(error, _PASSING) or retries >= MAX_RETRIES:
        return None
    return dg.RetryRequested(
        max_retries=MAX_RETRIES, seconds_to_wait=FIRST_PAUSE_SECONDS * 3**retries
    )
