"""A knowledge base as a library: everything the `kb` command and Dagster's assets do."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kb_assets.knowledge_base.judging import Judging
from kb_assets.knowledge_base.upgrading import Upgrading
from kb_assets.settings import Settings

if TYPE_CHECKING:
    from kb_assets.knowledge_base.health import Health


class KnowledgeBase(Upgrading, Judging):
    """A knowledge base: its settings, its database, and what can be done with them.

    Safe to use from several threads. Connections are opened when they are needed; close it,
    or use it as a context manager.
    """

    @classmethod
    def open(cls, config: Path | None = None, **overrides: Any) -> "KnowledgeBase":  # noqa: ANN401
        """Return the knowledge base that a `kb.toml` describes.

        Args:
            config: The file; by default `$KB_CONFIG`, or `kb.toml` in the current folder.
            overrides: Top-level settings that win over file and environment.

        Raises:
            SettingsError: The settings cannot be used.
        """
        return cls(Settings.load(config, **overrides))

    def health(self) -> "Health":
        """Return how everything is, and what should be done: in a second, also for millions.

        Raises:
            SchemaError: The database's schema is not this code's.
            DatabaseUnavailableError: The database cannot be reached.
            DatabaseRefusedError: It cannot serve us.
        """
        from kb_assets.knowledge_base.health import collect

        return collect(self)

    def __enter__(self) -> "KnowledgeBase":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
