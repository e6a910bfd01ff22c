"""A knowledge base as a library: everything the `kb` command and Dagster's assets do."""

from pathlib import Path
from types import TracebackType
from typing import Any

from kb_assets.knowledge_base.backing_up import BackingUp
from kb_assets.knowledge_base.judging import Judging
from kb_assets.settings import Settings


class KnowledgeBase(BackingUp, Judging):
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

    def __enter__(self) -> "KnowledgeBase":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
