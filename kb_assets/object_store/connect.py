"""Opening a bucket, and what its errors mean, for documents and for the archive.

Credentials come from the environment, or from the machine's role, and from nowhere else.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from obstore import exceptions, store

from kb_assets.errors import KbError

Trouble = Literal[
    "missing",  # there is no such object
    "no_place",  # there is no such bucket
    "credentials",  # the store does not know us
    "forbidden",  # it knows us, and refuses
    "bad_key",  # what was asked for is no path
    "set_up",  # the options are wrong
    "unreachable",  # anything else: it may be different the next time
]

STORE_ERRORS = (exceptions.BaseError, OSError, ValueError, NotImplementedError)
"""What obstore raises."""

_SCHEMES = ("s3", "gs", "az")
_RETRIES = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
_TIMEOUTS = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "600s"}
_CLIENT_OPTIONS = frozenset(
    (
        *("allow_http", "allow_invalid_certificates", "http1_only", "http2_only", "user_agent"),
        *("connect_timeout", "read_timeout", "timeout", "pool_idle_timeout"),
        *("proxy_url", "proxy_ca_certificate", "proxy_excludes", "root_certificate"),
    )
)
_SECRETS = (
    *("access_key", "customer_key", "encryption_key", "secret", "token"),
    *("account_key", "password", "sas_key", "service_account"),
)

_CREDENTIALS_REFUSED = (
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"),
    *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed"),
    *("AuthenticationFailed", "InvalidAuthenticationInfo"),
)
_FORBIDDEN = (
    exceptions.PermissionDeniedError,
    exceptions.UnauthenticatedError,
    PermissionError,
)
_FOLDER_FORBIDDEN = ("(os error 1)", "(os error 13)", "(os error 30)")
_SET_UP_WRONG = ("builder error", "status code: 3", "status code: 400", "status code: 404")
_NO_SUCH_PLACE = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_SENT_TOO_SLOWLY = "RequestTimeout<"


def open_store(
    uri: str, options: Mapping[str, str], error: Callable[..., KbError], *, setting: str = "uri"
) -> Any:  # noqa: ANN401
    """Open a prefix of a bucket; nothing is asked of the store yet.

    Args:
        uri: `s3://bucket/prefix`, `gs://…` or `az://…`.
        options: Settings of the client, such as `endpoint`, `region` or `allow_http`.
        error: What is raised if the uri is none of these, or an option is unknown or a secret.
        setting: What the uri is called in `kb.toml`.
    """
    fix = f"Correct `{setting}` and the options beside it in kb.toml."
    for key in options:
        if any(secret in key.lower() for secret in _SECRETS):
            raise error(
                f"The option {key!r} of {uri} is a secret.",
                why="kb.toml holds no secrets.",
                fix="Set it in the environment, as the store's own tools have it.",
            )
    if urlsplit(uri).scheme not in _SCHEMES:
        why = "It is neither a folder nor in s3://, gs:// or az://."
        raise error(f"{uri} cannot be opened.", why=why, fix=fix)
    connect: Any = store.from_url
    client = {key: value for key, value in options.items() if key in _CLIENT_OPTIONS}
    config: dict[str, Any] = {key: value for key, value in options.items() if key not in client}
    try:
        return connect(
            uri, config=config, client_options={**_TIMEOUTS, **client}, retry_config=_RETRIES
        )
    except (*STORE_ERRORS, TypeError) as refused:
        raise error(f"{uri} cannot be opened.", why=first_line(refused), fix=fix) from refused


def trouble(error: Exception) -> Trouble:
    """Say what one of `STORE_ERRORS` means."""
    if _says(error, *_NO_SUCH_PLACE):
        return "no_place"
    if _says(error, *_CREDENTIALS_REFUSED):
        return "credentials"
    if isinstance(error, _FORBIDDEN) or _refused_by_the_file_system(error):
        return "forbidden"
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, exceptions.InvalidPathError):
        return "bad_key"
    # S3 says 400 also to a client that was too slow to send.
    if any(word in first_line(error) for word in _SET_UP_WRONG) and not _says(
        error, _SENT_TOO_SLOWLY
    ):
        return "set_up"
    return "unreachable"


def lacks_conditional_puts(error: Exception | None) -> bool:
    """Whether a put failed because the store cannot promise to replace nothing."""
    return isinstance(error, (NotImplementedError, exceptions.NotSupportedError)) or (
        error is not None and "status code: 501" in first_line(error)
    )


def first_line(error: Exception) -> str:
    """Return what an error of obstore says, without its insides."""
    return str(error).partition("\n\nDebug source:")[0][:500]


def _refused_by_the_file_system(error: Exception) -> bool:
    return _says(error, "LocalFileSystem") and _says(error, *_FOLDER_FORBIDDEN)


def _says(error: Exception, *words: str) -> bool:
    return any(word in str(error) for word in words)
