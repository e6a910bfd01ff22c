"""Which shards a command works on."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kb_assets.fingerprints import Shard
    from kb_assets.settings import Settings


def shard_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--source` and `--shard` to a command."""
    command = click.option(
        "--shard", "shards", multiple=True, metavar="KEY", help="Only this shard; repeatable."
    )(command)
    return click.option(
        "--source", "sources", multiple=True, metavar="NAME", help="Only this source; repeatable."
    )(command)


def chosen_shards(
    settings: "Settings", sources: tuple[str, ...], keys: tuple[str, ...]
) -> tuple["Shard", ...]:
    """Return the shards that are named, or all of them, in the order of the settings.

    Raises:
        SettingsError: kb.toml has no sources, or not one of those that are named.
    """
    from kb_assets.errors import SettingsError

    if not settings.sources:
        raise SettingsError(
            "kb.toml names no source.",
            why="A knowledge base needs a place that documents come from.",
            fix='Add [[sources]] with name = "documents" and uri = "documents".',
        )
    for source in sources:
        settings.source(source)
    known = {shard.key: shard for shard in settings.shards}
    for key in keys:
        if key not in known:
            raise SettingsError(
                f"There is no shard {key!r}.",
                why=f"The shards are: {', '.join(known)}.",
                fix="Name one of them.",
            )
    everything = not sources and not keys
    return tuple(
        shard
        for shard in settings.shards
        if everything or shard.source in sources or shard.key in keys
    )
