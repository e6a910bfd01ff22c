"""Posting a message to the webhook of Slack, or of whatever speaks the same JSON."""

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import tenacity

from kb_assets.errors import AlertNotDeliveredError, AlertRefusedError

if TYPE_CHECKING:
    import httpx

WEBHOOK_VARIABLE = "KB_ALERT_WEBHOOK_URL"
"""Whoever knows the address can write to the channel: it is a secret, and no setting."""

ATTEMPTS = 3
TIMEOUT_SECONDS = 10.0

LONGEST_PAUSE_SECONDS = 10.0
"""All attempts fit into the 60 seconds that Dagster gives a sensor; the next tick tries again."""

_TRY_AGAIN = "It is tried again with the next tick, and nothing is left out."


def webhook_url() -> str:
    """Return the webhook's address; empty if there is none."""
    return os.environ.get(WEBHOOK_VARIABLE, "").strip()


def deliver(message: Mapping[str, Any]) -> None:
    """Post a message; what may pass is tried again.

    Neither an error nor a log has the address in it.

    Raises:
        AlertNotDeliveredError: It may work later.
        AlertRefusedError: It will not, before somebody changes something.
    """
    url = webhook_url()
    if not _is_address(url):
        raise AlertRefusedError(
            f"{WEBHOOK_VARIABLE} is no address of a webhook.",
            why="It must start with http:// or https://, and name a host.",
            fix="Copy it again from where the webhook was made.",
        )
    # At INFO it logs the address of each request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_worth_another_try),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=_pause,
        reraise=True,
    ):
        with attempt:
            _post(url, message)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _post(url: str, message: Mapping[str, Any]) -> None:
    import httpx

    try:
        response = httpx.post(url, json=message, timeout=TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise AlertNotDeliveredError(
            "The alerts' webhook gave no answer.",
            why=type(error).__name__,
            fix=f"See whether it can be reached from the machine of Dagster's daemon. {_TRY_AGAIN}",
        ) from None
    if response.is_success:
        return
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise AlertNotDeliveredError(
            "The alerts' webhook did not take a message.",
            why=f"Status {status}.",
            fix=_TRY_AGAIN,
            pause_seconds=_retry_after(response),
        )
    raise AlertRefusedError(
        "The alerts' webhook refuses messages.",
        why=f"Status {status}.",
        fix=f"See whether the webhook still exists, and set {WEBHOOK_VARIABLE} anew.",
    )


def _is_worth_another_try(error: BaseException) -> bool:
    return (
        isinstance(error, AlertNotDeliveredError) and error.pause_seconds <= LONGEST_PAUSE_SECONDS
    )


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause_seconds if isinstance(error, AlertNotDeliveredError) else 0.0
    return max(asked, float(2 ** (state.attempt_number - 1)))


def _retry_after(response: "httpx.Response") -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return 0.0
