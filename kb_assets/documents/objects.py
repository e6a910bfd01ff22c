"""Documents below a prefix of an object store: S3 and what speaks its protocol, GCS, Azure.

An object's version token is its entity tag and size, sidecar included; a store that gives
no tag makes every document be read every time. The tag of what was read comes with the
bytes in one answer, so the two always belong together, and there is nothing to ask for
twice. The store's own version id is not used: S3 gives it with an object and not in a
listing, so that the two would never be equal.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import obstore

from kb_assets.documents.files import MAX_PATH_BYTES
from kb_assets.documents.pairing import Object, paired
from kb_assets.documents.patterns import Patterns
from kb_assets.documents.refusals import blame_sidecar, refusal, too_large
from kb_assets.documents.sidecar import MAX_METADATA_BYTES, joint_token
from kb_assets.documents.source import Content, Entry
from kb_assets.errors import DocumentError, SourceError, SourceUnavailableError
from kb_assets.object_store.connect import STORE_ERRORS, first_line, open_store, trouble

_PAGE = 1000


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
        self._store = open_store(uri, options or {}, SourceError)

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
        except STORE_ERRORS as error:
            raise self._failure(error) from error

    def _read_object(self, path: str, limit: int) -> tuple[bytes, str | None]:
        try:
            found = obstore.get(self._store, path)
            if found.meta["size"] > limit:
                raise too_large(path, found.meta["size"], limit)
            return bytes(found.bytes()), _token(found.meta)
        except STORE_ERRORS as error:
            raise self._refusal(path, error) from error

    def _refusal(self, path: str, error: Exception) -> Exception:
        if isinstance(error, ValueError):
            return refusal("outside_root", path, first_line(error))
        found = trouble(error)
        if found in ("no_place", "credentials", "unreachable"):
            return self._failure(error)
        gone = found == "missing"
        return refusal("vanished_while_reading" if gone else "unreadable", path, first_line(error))

    def _failure(self, error: Exception) -> SourceError | SourceUnavailableError:
        """Return what a store's error means for the source as a whole."""
        found = trouble(error)
        why = first_line(error)
        if found in ("missing", "no_place"):
            return SourceError(
                f"There is no {self._uri}.", why=why, fix="Correct `uri` in kb.toml."
            )
        if found in ("credentials", "forbidden"):
            return SourceError(
                f"{self._uri} may not be read.",
                why=why,
                fix="Set the store's credentials in the environment, with the right to list "
                "and to read, and `region` in the source's options.",
            )
        if found == "bad_key":
            return SourceError(
                f"{self._uri} holds an object whose key cannot be a path.",
                why=why,
                fix="Rename the object, or choose a prefix that leaves it out.",
            )
        if found == "set_up":
            return SourceError(
                f"{self._uri} cannot be read as it is set up.",
                why=why,
                fix="Correct the source's options: endpoint, region, allow_http.",
            )
        return SourceUnavailableError(
            f"{self._uri} cannot be reached.",
            why=why,
            fix="Try again; look at the store and the network.",
        )


def _token(meta: Any) -> str | None:  # noqa: ANN401
    tag = meta["e_tag"]
    return f"{tag}:{meta['size']}" if tag else None
