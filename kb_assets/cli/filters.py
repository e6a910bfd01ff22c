"""The options that say which documents a question is asked of, shared by all commands that ask."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from kb_assets.retrieval.conditions import Condition

_Command = TypeVar("_Command", bound=Callable[..., Any])


def filter_options(command: _Command) -> _Command:
    """Add the options that become the filters of `KnowledgeBase.search`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _metadata(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> dict[str, Any]:
    """Turn `key=value` into metadata: JSON where it can be read as JSON, text otherwise."""
    chosen: dict[str, Any] = {}
    for given in values:
        key, equals, value = given.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{given!r} is not of the form key=value.", context, parameter)
        try:
            chosen[key] = json.loads(value, parse_constant=_refuse)
        except ValueError:
            chosen[key] = value
    return chosen


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _where(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> "Condition | None":
    """Turn conditions, as text or as JSON, into one; all of them are to be true."""
    if not values:
        return None
    from kb_assets.retrieval.conditions import And
    from kb_assets.retrieval.where import as_condition

    return And(tuple(map(as_condition, values)))


_OPTIONS = (
    click.option("--source", "sources", multiple=True, help="Only of this source; repeatable."),
    click.option("--path-prefix", default="", help="Only documents whose path starts with this."),
    click.option("--tag", "tags", multiple=True, help="Only documents with this tag; repeatable."),
    click.option(
        "--meta",
        "metadata",
        multiple=True,
        callback=_metadata,
        metavar="KEY=VALUE",
        help="Only documents with this value, read as JSON if it is: year=2024; repeatable.",
    ),
    click.option(
        "--where",
        multiple=True,
        callback=_where,
        metavar="CONDITION",
        help="Only documents of which this is true, as text or as JSON: "
        "'tags has \"api\" and metadata.year >= 2024'; repeatable.",
    ),
    click.option(
        "--as",
        "caller",
        metavar="CALLER",
        help="See only what this caller may see, one of [[callers]] in kb.toml.",
    ),
)
