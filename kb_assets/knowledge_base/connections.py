"""Where a knowledge base's parts connect; nothing is opened before it is needed."""

import threading
from functools import cached_property
from typing import Any, Self, TypeVar, overload

from kb_assets.database.connect import Database, DatabaseUrls, resolve_urls
from kb_assets.database.message_rights import require_archiver
from kb_assets.database.migrate import require_current_schema, upgrade
from kb_assets.database.row_security import require_bound
from kb_assets.embeddings.embedder import Embedder
from kb_assets.errors import SettingsError
from kb_assets.messages.intake import Messages
from kb_assets.retrieval.log import QueryLog
from kb_assets.settings import Settings

Opened = TypeVar("Opened")


class opened_once(cached_property[Opened]):  # noqa: N801
    """A cached property that threads do not open twice: Python's own has no lock since 3.12."""

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Opened: ...

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Self | Opened:
        """Return what is open, or open it while other threads wait."""
        if instance is None:
            return self
        with instance._opening:
            opened: Opened = super().__get__(instance, owner)
            return opened


class Connections:
    """Where a knowledge base's parts connect; nothing is opened before it is needed."""

    def __init__(self, settings: Settings) -> None:
        """Remember the settings; nothing is connected or started yet."""
        self.settings = settings
        self._embedders: dict[int, Embedder] = {}
        self._opening = threading.RLock()

    @opened_once
    def urls(self) -> DatabaseUrls:
        """Where each role connects; starts the embedded server if no other one is set."""
        return resolve_urls(self.settings)

    @opened_once
    def database(self) -> Database:
        """Where runs write.

        Raises:
            SchemaError: The schema is behind or ahead of this code.
        """
        return _checked(Database(self.urls.writer))

    @opened_once
    def reader(self) -> Database:
        """Where searches read.

        Raises:
            SchemaError: The schema is behind or ahead of this code.
        """
        return _checked(self._searched(self.urls.reader, "kb_assets search"))

    @opened_once
    def callers(self) -> Database:
        """Where searches of callers read, as a role that row-level security binds.

        Raises:
            SettingsError: There is no such role, or it would see everything.
            SchemaError: The schema is behind or ahead of this code.
        """
        if not self.urls.caller:
            raise SettingsError(
                "Nobody can search as a caller.",
                why="KB_CALLER_DATABASE_URL does not say as which role.",
                fix="Make the role kb_caller (docs/deploy.md), and set the variable.",
            )
        return _checked(self._searched(self.urls.caller, "kb_assets caller"), is_bound=True)

    @opened_once
    def archiver(self) -> Database:
        """Where messages are archived and erased, as a role that may delete them.

        Raises:
            SettingsError: The role may not.
            SchemaError: The schema is behind or ahead of this code.
        """
        database = Database(self.urls.archiver, application_name="kb_assets archive")
        return _checked(database, is_archiver=True)

    @opened_once
    def query_log(self) -> QueryLog:
        """Where searches are noted, for as long as `search.log_days` says."""
        return QueryLog(lambda: self.database, self.settings.search)

    @opened_once
    def messages(self) -> Messages:
        """Where the messages of conversations come in, and are read in windows."""
        return Messages(self.database)

    def _searched(self, url: str, name: str) -> Database:
        patience = self.settings.search.timeout_seconds
        return Database(url, application_name=name, snapshots=True, lock_seconds=patience)

    def close(self) -> None:
        """Close all connections; they are opened again when needed."""
        self.__dict__.pop("messages", None)
        for name in ("query_log", "_cache", "database", "reader", "callers", "archiver"):
            opened = self.__dict__.pop(name, None)
            if opened is not None:
                opened.close()

    def upgrade(self) -> None:
        """Bring the database's schema up to this code."""
        upgrade(self.urls.migrator)


def _checked(database: Database, *, is_bound: bool = False, is_archiver: bool = False) -> Database:
    try:
        with database.transaction() as connection:
            if is_bound:
                require_bound(connection.execute)
            require_current_schema(connection)
            if is_archiver:
                require_archiver(connection.execute)
    except BaseException:
        database.close()
        raise
    return database
