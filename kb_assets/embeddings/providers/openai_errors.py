"""What an error of the OpenAI client means for a run: stop, try later, or one bad text."""

import re
from collections.abc import Mapping

import openai

from kb_assets.errors import (
    KbError,
    ProviderRefusedError,
    ProviderUnavailableError,
    TextRefusedError,
)

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
_TEXT_STATUSES = frozenset({400, 413, 422})
_REQUEST_PARAMETERS = frozenset({"model", "dimensions", "encoding_format", "user"})
_REQUEST_CODES = frozenset(
    {"model_not_found", "invalid_api_key", "unsupported_parameter", "unknown_parameter"}
)
_MODEL_IS_WRONG = re.compile(r"\bmodel\b.{0,80}\b(not found|does not|not exist|unknown|invalid)")
_TOO_LONG = re.compile(
    r"(context|input|sequence) length|too long|too large|too many tokens|max\w* tokens|"
    r"(less|fewer|more) than \d+ tokens|tokens per request"
)
_CONTENT = re.compile(r"content[ _](filter|policy|management)|safety|moderation|flagged")
_LONGEST_MESSAGE = 300

_FIXES = {
    401: "Set the key in the variable that embedding.api_key_variable names.",
    403: "Ask for access to the model, or use another key.",
    404: "Correct embedding.model or embedding.base_url.",
}


def explained(error: openai.OpenAIError, key: str, server: str) -> KbError:
    """Return the error of our own that a client's error amounts to.

    Args:
        error: What the client raised after its own retries.
        key: The key that was sent, which servers like to repeat: it is taken out.
        server: Where the request went, for the message.

    Returns:
        A ProviderRefusedError, ProviderUnavailableError or TextRefusedError.
    """
    message = message_of(error, key)
    if not isinstance(error, openai.APIStatusError):
        return _unreachable(error, message, server)
    status = error.status_code
    if is_transient(error):
        return _unavailable(message, server)
    if _is_about_quota(error):
        return _quota(message)
    if status in _TEXT_STATUSES and not _is_about_request(error, message):
        return _text(status, message)
    return ProviderRefusedError(
        f"The embedding provider at {server} refuses.",
        why=message,
        fix=_FIXES.get(status, "Correct the embedding section of kb.toml."),
    )


def is_about_encoding(error: openai.OpenAIError) -> bool:
    """Say whether a server refused the request only because base64 was asked for."""
    return (
        isinstance(error, openai.APIStatusError)
        and error.status_code in _TEXT_STATUSES
        and (error.param == "encoding_format" or "encoding_format" in str(error))
    )


def is_transient(error: openai.OpenAIError) -> bool:
    """Say whether the same request may be answered later."""
    if not isinstance(error, openai.APIStatusError):
        return True
    status = error.status_code
    return not _is_about_quota(error) and (status in _TRANSIENT_STATUSES or status >= 500)


def message_of(error: openai.OpenAIError, key: str) -> str:
    """Return what a server said, shortened and without the key, which servers like to repeat."""
    text = " ".join(str(error).split())
    if isinstance(error, openai.APIStatusError) and isinstance(error.body, Mapping):
        said = error.body.get("detail") or error.body.get("message")
        text = f"Error code: {error.status_code} - {said}" if said else text
    return text.replace(key, "***")[:_LONGEST_MESSAGE]


def _is_about_quota(error: openai.APIStatusError) -> bool:
    return error.status_code == 402 or bool({error.code, error.type} & _QUOTA)


def _is_about_request(error: openai.APIStatusError, message: str) -> bool:
    return (
        error.param in _REQUEST_PARAMETERS
        or error.code in _REQUEST_CODES
        or _MODEL_IS_WRONG.search(message.lower()) is not None
    )


def _text(status: int, message: str) -> TextRefusedError:
    said = message.lower()
    reason = "refused"
    if status == 413 or _TOO_LONG.search(said):
        reason = "too_long"
    elif _CONTENT.search(said):
        reason = "content"
    return TextRefusedError(
        reason,
        "The embedding provider refuses a text.",
        why=message,
        fix="Make splitting.size smaller." if reason == "too_long" else "Change the text.",
    )


def _quota(message: str) -> ProviderRefusedError:
    return ProviderRefusedError(
        "The embedding provider's quota is used up.",
        why=message,
        fix="Add credit or raise the limit there, then run `kb index`: what is paid for is kept.",
    )


def _unavailable(message: str, server: str) -> ProviderUnavailableError:
    return ProviderUnavailableError(
        f"The embedding provider at {server} went on failing.",
        why=message,
        fix="Run `kb index` again later, with fewer embedding.requests_in_flight if it is busy.",
    )


def _unreachable(error: openai.OpenAIError, message: str, server: str) -> ProviderUnavailableError:
    cause = f"{type(error.__cause__).__name__}" if error.__cause__ else ""
    return ProviderUnavailableError(
        f"The embedding provider at {server} gave no answer.",
        why=f"{message} {cause}".strip(),
        fix="See whether it can be reached from here; embedding.timeout_seconds may be too short.",
    )
