"""What all commands share: options, settings, and the knowledge base they open."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kb_assets.knowledge_base import KnowledgeBase
    from kb_assets.settings import Settings

_FROM_ENV_FILE = ("KB_", "AWS_", "GOOGLE_", "AZURE_")
"""What a `.env` file may set beside providers' keys: settings, and keys to object stores."""


@dataclass(slots=True)
class Session:
    """One call of `kb`.

    Attributes:
        config: The `--config` option.
        json_output: The `--json` or `--text` option, if one was given.
    """

    config: Path | None = None
    json_output: bool | None = None

    @property
    def as_json(self) -> bool:
        """Whether what is found is printed as JSON: when asked for, or when nobody watches."""
        return not sys.stdout.isatty() if self.json_output is None else self.json_output

    def settings(self) -> "Settings":
        """Return the settings, with `.env` read first.

        Processes that are started from here find the same file through `KB_CONFIG`.

        Raises:
            SettingsError: The settings cannot be used.
        """
        from kb_assets.settings import CONFIG_VARIABLE, Settings

        file = self.config or Path(os.environ.get(CONFIG_VARIABLE, "kb.toml"))
        named = _read_env_file(file.absolute().parent / ".env")
        settings = Settings.load(file)
        for section in (settings.embedding, settings.answer, settings.rerank):
            if named.get(section.api_key_variable):
                os.environ.setdefault(section.api_key_variable, named[section.api_key_variable])
        os.environ[CONFIG_VARIABLE] = str(file.absolute())
        return settings

    @contextmanager
    def knowledge_base(self) -> Iterator["KnowledgeBase"]:
        """Lend the knowledge base; an embedded database is brought up to this code first.

        A database of one's own is never changed unasked.

        Raises:
            SettingsError: The settings cannot be used.
            SchemaError: The database's schema is not this code's.
        """
        settings = self.settings()
        from kb_assets.errors import SchemaError
        from kb_assets.knowledge_base import KnowledgeBase

        with KnowledgeBase(settings) as kb:
            if not settings.database_url:
                try:
                    _ = kb.reader
                except SchemaError:
                    kb.upgrade()
            yield kb


def _read_env_file(file: Path) -> dict[str, str]:
    """Set what a `.env` file may set and the environment has not; return all it says."""
    if not file.is_file():
        return {}
    from dotenv import dotenv_values

    from kb_assets.settings import CONFIG_VARIABLE

    values = {name: value for name, value in dotenv_values(file).items() if value is not None}
    for name, value in values.items():
        if name.startswith(_FROM_ENV_FILE) and name != CONFIG_VARIABLE:
            os.environ.setdefault(name, value)
    return values


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401
    if value is not None and parameter.name:
        setattr(context.ensure_object(Session), parameter.name, value)


def _common(*names: str, **settings: Any) -> click.Option:  # noqa: ANN401
    return click.Option(list(names), expose_value=False, callback=_remember, **settings)


COMMON_OPTIONS: list[click.Parameter] = [
    _common(
        "--config",
        type=click.Path(path_type=Path),
        help="Another file than kb.toml in this folder.  [KB_CONFIG]",
    ),
    _common(
        "json_output",
        "--json/--text",
        default=None,
        help="Print JSON, or text. By default text on a terminal and JSON elsewhere.",
    ),
]


class KbCommand(click.Command):
    """A command that also takes the options all commands take."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **settings)
        self.params = [*self.params, *COMMON_OPTIONS]


pass_session: Callable[..., Any] = click.make_pass_decorator(Session)
