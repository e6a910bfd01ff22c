"""One prefix of an object store, or one folder: what is put there is there, or an error says so.

An answer that is not clear is never guessed at. Whatever a put was told (that the object exists
already, nothing at all, a server's error), the object is read back: the hash of what is there
decides. A clear answer is believed once the object is there with its size, so that a gateway that
says 200 and means an error is found out.

A put asks the store to make the object and never to replace one. Stores that cannot promise that
stay right all the same, because we look before we put, and our keys hold a hash of the content.
"""

import hashlib
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from obstore.store import LocalStore

from kb_assets.errors import KbError, NotFoundError, ObjectStoreError, ObjectStoreUnavailableError
from kb_assets.object_store.connect import (
    STORE_ERRORS,
    first_line,
    lacks_conditional_puts,
    open_store,
    trouble,
)
from kb_assets.object_store.folder import (
    CHUNK_BYTES,
    Slice,
    is_part,
    make,
    remove_empty,
    remove_parts,
    write,
)


class ObjectStore:
    """A prefix of a bucket, or a folder.

    Attributes:
        uri: Where it is, as it was given.
    """

    def __init__(
        self, uri: str, options: Mapping[str, str] | None = None, *, setting: str = "uri"
    ) -> None:
        """Take a place; nothing is asked of a bucket yet, a folder is made if it is missing.

        Args:
            uri: A folder, or `s3://bucket/prefix`, `gs://…` or `az://…`.
            options: Settings of the client, such as `endpoint`, `region` or `allow_http`.
            setting: What the uri is called in `kb.toml`.

        Raises:
            ObjectStoreError: It is no such place, or an option is unknown or a secret.
        """
        self.uri = uri
        self._setting = setting
        self._folder = _folder(uri)
        if self._folder is None:
            self._store = open_store(uri, options or {}, ObjectStoreError, setting=setting)
            return
        try:
            make(self._folder)
            self._store = LocalStore(self._folder)
        except STORE_ERRORS as error:
            raise ObjectStoreError(
                f"The folder {self._folder} cannot be used.",
                why=first_line(error),
                fix=f"Correct `{setting}` in kb.toml, or the folder's owner and mode.",
            ) from error

    def url(self, key: str) -> str:
        """Return where an object is, for people: an address, or a path."""
        return f"{self.uri.rstrip('/')}/{key}" if self._folder is None else str(self._folder / key)

    def put_file(
        self, key: str, file: Path, sha256: bytes, *, start: int = 0, size: int | None = None
    ) -> None:
        """Put a file or a slice of one, if it is not there already.

        Args:
            key: What it is called; it should hold something that no other content has.
            file: Its content, which nobody changes meanwhile; it goes out in one request.
            sha256: The SHA-256 of the content.
            start: Where in the file the content begins.
            size: How many bytes of the file are the content; by default all from `start` on.

        Raises:
            ObjectStoreError: Other content is there, or the store refuses us.
            ObjectStoreUnavailableError: It is not there, as far as the store lets us see.
        """
        size = file.stat().st_size - start if size is None else size
        self._put(key, Slice(file, start, size) if size else b"", size, sha256)

    def put_bytes(self, key: str, content: bytes) -> None:
        """Put something small, if it is not there already; see `put_file`."""
        self._put(key, content, len(content), hashlib.sha256(content).digest())

    def fetch(self, key: str, file: Path) -> tuple[int, bytes]:
        """Write an object to a file, and return how many bytes it has, and their SHA-256.

        After an error the file is of no use.

        Raises:
            NotFoundError: There is none.
            ObjectStoreError: The store refuses us.
            ObjectStoreUnavailableError: The store cannot be reached, or broke off.
        """
        digest = hashlib.sha256()
        with file.open("wb") as target:
            for chunk in self.stream(key):
                target.write(chunk)
                digest.update(chunk)
            return target.tell(), digest.digest()

    def read(self, key: str) -> bytes:
        """Return a small object; see `fetch`."""
        return b"".join(self.stream(key))

    def stream(self, key: str) -> Iterator[bytes]:
        """Return an object bit by bit; see `fetch`."""
        try:
            yield from obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES)
        except STORE_ERRORS as error:
            raise self._failure(key, error) from error

    def list(self, prefix: str = "") -> Iterator[str]:
        """Return the keys below a prefix, in no order.

        Args:
            prefix: Whole parts of a key, such as `message/`; empty for every key.

        Raises:
            ObjectStoreError: The store refuses us.
            ObjectStoreUnavailableError: The store cannot be reached.
        """
        try:
            for page in obstore.list(self._store, prefix):
                yield from (item["path"] for item in page if not is_part(item["path"]))
        except STORE_ERRORS as error:
            raise self._failure(prefix, error) from error

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are fine.

        Raises:
            ObjectStoreError: The store refuses us.
            ObjectStoreUnavailableError: The store cannot be reached.
        """
        for key in keys:
            try:
                if self._folder is not None:
                    remove_parts(self._folder / key)
                obstore.delete(self._store, key)
            except STORE_ERRORS as error:
                if trouble(error) != "missing":
                    raise self._failure(key, error) from error

    def tidy(self, prefix: str) -> None:
        """Remove the empty folders below a prefix where nobody puts anything any more.

        A bucket has none.
        """
        if self._folder is not None:
            remove_empty(self._folder / prefix)

    def size(self, key: str) -> int | None:
        """Return how many bytes an object has; None if there is none.

        Raises:
            ObjectStoreError: The store refuses us.
            ObjectStoreUnavailableError: The store cannot be reached.
        """
        try:
            return int(obstore.head(self._store, key)["size"])
        except STORE_ERRORS as error:
            if trouble(error) == "missing":
                return None
            raise self._failure(key, error) from error

    def _put(self, key: str, content: Slice | bytes, size: int, sha256: bytes) -> None:
        held = None if self.size(key) is None else self._hash(key)
        unclear: Exception | None = None
        for _ in range(2):
            if held is not None:
                break
            unclear = self._send(key, content, size, unclear)
            if unclear is None:
                return
            held = self._hash(key)
        if held is None:
            raise ObjectStoreUnavailableError(
                f"{self.url(key)} was put twice, and is not there.",
                why=first_line(unclear) if unclear else "It went away while it was looked at.",
                fix="Try again; look at the store and the network.",
            ) from unclear
        if held != sha256:
            raise ObjectStoreError(
                f"{self.url(key)} holds other content than ours.",
                why=f"Its SHA-256 is {held.hex()}, ours is {sha256.hex()}.",
                fix="Find out who writes there. Nothing was replaced; give each knowledge base a "
                f"prefix of its own (`{self._setting}` in kb.toml).",
            )

    def _send(
        self, key: str, content: Slice | bytes, size: int, before: Exception | None
    ) -> Exception | None:
        """Send it once; return what makes it unclear whether it arrived, or None if it did."""
        try:
            if self._folder is not None:
                write(self._folder, key, content)
            else:
                obstore.put(
                    self._store,
                    key,
                    _buffer(content),
                    mode="overwrite" if lacks_conditional_puts(before) else "create",
                    use_multipart=False,
                )
        except STORE_ERRORS as error:
            if trouble(error) == "unreachable":
                return error
            raise self._failure(key, error, sent=True) from error
        if self.size(key) == size:
            return None
        return OSError("The store took it, but does not have it.")

    def _hash(self, key: str) -> bytes | None:
        digest = hashlib.sha256()
        try:
            for chunk in self.stream(key):
                digest.update(chunk)
        except NotFoundError:
            return None
        return digest.digest()

    def _failure(self, key: str, error: Exception, *, sent: bool = False) -> KbError:
        why = first_line(error)
        kind = trouble(error)
        if kind == "missing" and not sent:
            what = f"There is no {self.url(key)}."
            return NotFoundError(what, why=why, fix="Look for who removed it from the store.")
        if kind in ("missing", "no_place"):
            return ObjectStoreError(
                f"There is no bucket for {self.uri}.",
                why=why,
                fix=f"Make the bucket, or correct `{self._setting}` in kb.toml.",
            )
        if kind in ("credentials", "forbidden"):
            return ObjectStoreError(
                f"{self.uri} may not be used.", why=why, fix=self._rights_needed()
            )
        if kind in ("bad_key", "set_up"):
            return ObjectStoreError(
                f"{self.uri} cannot be used as it is set up.",
                why=why,
                fix=f"Correct `{self._setting}` and the options beside it in kb.toml: endpoint, "
                "region, allow_http.",
            )
        return ObjectStoreUnavailableError(
            f"{self.uri} cannot be reached.",
            why=why,
            fix="Try again; look at the store and the network.",
        )

    def _rights_needed(self) -> str:
        if self._folder is not None:
            return "Let the account that runs this read and write the folder."
        return (
            "Set the store's credentials in the environment, with the right to list, read, write "
            f"and delete, and `region` in the options beside `{self._setting}`."
        )


def _folder(uri: str) -> Path | None:
    if uri.startswith("file://"):
        return Path(url2pathname(urlsplit(uri).path))
    return None if "://" in uri else Path(uri).expanduser().absolute()


def _buffer(content: Slice | bytes) -> bytes | memoryview:
    """Return what obstore sends as it lies; a path or a file it would hold in memory twice."""
    if isinstance(content, bytes):
        return content
    with content.file.open("rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return whole[content.start : content.start + content.size]
