"""A database and a store that go wrong once, at a chosen call, and let everybody else be."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Literal

import psycopg

from kb_assets.database.connect import Database
from kb_assets.errors import DatabaseUnavailableError, ObjectStoreUnavailableError
from kb_assets.object_store import ObjectStore

DatabaseTrouble = Literal[
    "before",  # the transaction never begins
    "during",  # it is rolled back when only the commit is left
    "after",  # it is committed, and its caller is not told
    "usurped",  # the session that holds the lease ends first, unnoticed
]
StoreTrouble = Literal[
    "before",  # nothing is done
    "after",  # it is done, and its caller is not told
    "garbled",  # what was put is changed behind the caller's back
    "gone",  # what was put is removed behind the caller's back
]
DATABASE_TROUBLES: tuple[DatabaseTrouble, ...] = ("before", "during", "after", "usurped")
STORE_TROUBLES: tuple[StoreTrouble, ...] = ("before", "after", "garbled", "gone")


class TroubledDatabase:
    """A database whose n-th transaction goes wrong; its connections are those of another one."""

    def __init__(self, database: Database, trouble: DatabaseTrouble, at: int) -> None:
        self.conninfo = database.conninfo
        self._database = database
        self._trouble = trouble
        self._left = at
        self._sessions: list[int] = []

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        with self._database.session() as connection:
            self._sessions.append(connection.info.backend_pid)
            yield connection

    @contextmanager
    def transaction(self, **options: float) -> Iterator[psycopg.Connection]:
        self._left -= 1
        trouble = self._trouble if self._left == 0 else None
        if trouble == "before":
            raise DatabaseUnavailableError("The connection was lost before it began.")
        if trouble == "usurped":
            self._end_sessions()
        with self._database.transaction(**options) as connection:
            yield connection
            if trouble == "during":
                raise DatabaseUnavailableError("The connection was lost before the commit.")
        if trouble == "after":
            raise DatabaseUnavailableError("The connection was lost after it took effect.")

    def _end_sessions(self) -> None:
        with self._database.transaction() as connection:
            for pid in self._sessions:
                connection.execute("select pg_terminate_backend(%s, 10000)", [pid])


class TroubledStore:
    """A folder whose n-th call goes wrong."""

    def __init__(self, store: ObjectStore, trouble: StoreTrouble, at: int) -> None:
        self._store = store
        self._trouble = trouble
        self._left = at

    def put_file(self, key: str, *others: Any) -> None:
        trouble = self._call(self._store.put_file, key, *others)
        file = Path(self._store.url(key))
        if trouble == "garbled":
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        elif trouble == "gone":
            file.unlink()

    def put_bytes(self, *values: Any) -> None:
        self._call(self._store.put_bytes, *values)

    def delete(self, *values: Any) -> None:
        self._call(self._store.delete, *values)

    def fetch(self, *values: Any) -> Any:
        return self._answered(self._store.fetch, *values)

    def size(self, key: str) -> Any:
        return self._answered(self._store.size, key)

    def read(self, *values: Any) -> Any:
        return self._store.read(*values)

    def url(self, key: str) -> str:
        return self._store.url(key)

    def _answered(self, work: Callable[..., object], *values: Any) -> Any:
        result: list[Any] = []
        self._call(lambda: result.append(work(*values)))
        return result[0]

    def _call(self, work: Callable[..., object], *values: Any) -> StoreTrouble | None:
        self._left -= 1
        trouble = self._trouble if self._left == 0 else None
        if trouble == "before":
            raise ObjectStoreUnavailableError("The store was not reached.")
        work(*values)
        if trouble == "after":
            raise ObjectStoreUnavailableError("The store did not answer.")
        return trouble


def troubled(database: Database, store: ObjectStore, random: Random) -> tuple[Any, Any]:
    """Return the two, one of them or none in for trouble."""
    kind = random.random()
    if kind < 0.5:
        trouble = random.choice(DATABASE_TROUBLES)
        return TroubledDatabase(database, trouble, random.randint(1, 10)), store
    if kind < 0.8:
        return database, TroubledStore(store, random.choice(STORE_TROUBLES), random.randint(1, 4))
    return database, store
