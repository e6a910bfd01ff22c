"""Documents below a prefix of an object store: S3 and what speaks its protocol, GCS, Azure.

An object's version token is its entity tag and size, sidecar included; a store that gives
no tag makes every document be read every time. The tag of what was read comes with the
bytes in one answer, so the two always belong together, and there is nothing to ask for
twice. The store's own version id is not used: S3 gives it with an object and not in a
listing, so that the two would never be equal.

Credentials come from the environment, or from the machine's role, and from nowhere else.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import obstore
from obstore import exceptions, store

from kb_assets.documents.files import MAX_PATH_BYTES
from kb_assets.documents.pairing import Object, paired
from kb_assets.documents.patterns import Patterns
from kb_assets.documents.refusals import blame_sidecar, refusal, too_large
from kb_assets.documents.sidecar import MAX_METADATA_BYTES, joint_token
from kb_assets.documents.source import Content, Entry
from kb_assets.errors import DocumentError, SourceError, SourceUnavailableError

_PAGE = 1000
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
    "access_key",
    "customer_key",
    "encryption_key",
    "secret",
    "token",
    "account_key",
    "password",
    "sas_key",
    "service_account",
)

_CREDENTIALS_REFUSED = (
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"),
    *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed"),
    *("AuthenticationFailed", "InvalidAuthenticationInfo"),
)
_SET_UP_WRONG = ("builder error", "status code: 3", "status code: 400", "status code: 404")
_NO_SUCH_PLACE = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")


class ObjectStorePrefix:
    """A prefix of a bucket, with everything below it that its patterns mean."""

    def __init__(
        self,
        uri: str,
        patterns: Patterns,
        *,
        options: Mapping[str, str] | None = None,
        max_document_bytes: int,
    ) -> None:
        """Take a prefix as a source; nothing is asked of the store yet.

        Args:
            uri: `s3://bucket/prefix`, `gs://…` or `az://…`.
            patterns: Which paths below it are documents.
            options: Settings of the client, such as `endpoint`, `region` or `allow_http`.
            max_document_bytes: Larger documents are refused before they are read.

        Raises:
            SourceError: An option is unknown, or is a secret.
        """
        self._uri = uri
        self._patterns = patterns
        self._max_bytes = max_document_bytes
        self._store = _connect(uri, options or {})

    def entries(self) -> Iterator[Entry]:
        """List the documents, a page at a time; see `DocumentSource.entries`."""
        for entry in paired(self._objects(), self._patterns.want):
            if len(entry.path.encode()) > MAX_PATH_BYTES:
                raise self._too_long(entry.path)
            yield entry

    def read(self, entry: Entry) -> Content:
        """Read one document; see `DocumentSource.read`."""
        content, token = self._read_object(entry.path, self._max_bytes)
        if entry.sidecar is None:
            return Content(content, None, token)
        try:
            beside, version = self._read_object(entry.sidecar, MAX_METADATA_BYTES)
        except DocumentError as error:
            if error.reason == "vanished_while_reading":
                return Content(content, None, token)
            raise blame_sidecar(error, entry.path) from error
        return Content(content, beside, joint_token(token, version))

    def _too_long(self, path: str) -> SourceError:
        return SourceError(
            f"{self._uri} holds an object whose key is too long: {path[:200]}…",
            why=f"It has {len(path.encode()):,} bytes; {MAX_PATH_BYTES:,} are allowed.",
            fix="Rename the object, or exclude it.",
        )

    def _objects(self) -> Iterator[Object]:
        try:
            for page in obstore.list(self._store, chunk_size=_PAGE):
                for item in page:
                    yield Object(item["path"], _token(item), item["size"])
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise self._failure(error) from error

    def _read_object(self, path: str, limit: int) -> tuple[bytes, str | None]:
        try:
            found = obstore.get(self._store, path)
            if found.meta["size"] > limit:
                raise too_large(path, found.meta["size"], limit)
            return bytes(found.bytes()), _token(found.meta)
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise self._refusal(path, error) from error

    def _refusal(self, path: str, error: Exception) -> Exception:
        if isinstance(error, ValueError):
            return refusal("outside_root", path, _first_line(error))
        failure = self._failure(error)
        if isinstance(failure, SourceUnavailableError) or _says(
            error, *_NO_SUCH_PLACE, *_CREDENTIALS_REFUSED
        ):
            return failure
        gone = isinstance(error, FileNotFoundError)
        return refusal("vanished_while_reading" if gone else "unreadable", path, _first_line(error))

    def _failure(self, error: Exception) -> SourceError | SourceUnavailableError:
        """Return what a store's error means for the source as a whole."""
        why = _first_line(error)
        if isinstance(error, FileNotFoundError) or _says(error, *_NO_SUCH_PLACE):
            return SourceError(
                f"There is no {self._uri}.", why=why, fix="Correct `uri` in kb.toml."
            )
        if isinstance(
            error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        ) or _says(error, *_CREDENTIALS_REFUSED):
            return SourceError(
                f"{self._uri} may not be read.",
                why=why,
                fix="Set the store's credentials in the environment, with the right to list "
                "and to read, and `region` in the source's options.",
            )
        if isinstance(error, exceptions.InvalidPathError):
            return SourceError(
                f"{self._uri} holds an object whose key cannot be a path.",
                why=why,
                fix="Rename the object, or choose a prefix that leaves it out.",
            )
        return _unreachable(self._uri, why)


def _unreachable(uri: str, why: str) -> SourceError | SourceUnavailableError:
    if any(word in why for word in _SET_UP_WRONG):
        return SourceError(
            f"{uri} cannot be read as it is set up.",
            why=why,
            fix="Correct the source's options: endpoint, region, allow_http.",
        )
    return SourceUnavailableError(
        f"{uri} cannot be reached.", why=why, fix="Try again; look at the store and the network."
    )


def _connect(uri: str, options: Mapping[str, str]) -> Any:  # noqa: ANN401
    for key in options:
        if any(secret in key.lower() for secret in _SECRETS):
            raise SourceError(
                f"The option {key!r} of {uri} is a secret.",
                why="kb.toml holds no secrets.",
                fix="Set it in the environment, as the store's own tools have it.",
            )
    connect: Any = store.from_url
    client = {key: value for key, value in options.items() if key in _CLIENT_OPTIONS}
    config: dict[str, Any] = {key: value for key, value in options.items() if key not in client}
    try:
        return connect(
            uri, config=config, client_options={**_TIMEOUTS, **client}, retry_config=_RETRIES
        )
    except (exceptions.BaseError, ValueError, TypeError) as error:
        raise SourceError(
            f"{uri} cannot be opened.",
            why=_first_line(error),
            fix="Correct `uri` and the source's options in kb.toml.",
        ) from error


def _token(meta: Any) -> str | None:  # noqa: ANN401
    tag = meta["e_tag"]
    return f"{tag}:{meta['size']}" if tag else None


def _says(error: Exception, *words: str) -> bool:
    return any(word in str(error) for word in words)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n\nDebug source:")[0][:500]
