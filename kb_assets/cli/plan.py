"""`kb plan`: what a run would do, and cost."""

from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli.session import KbCommand, Session, pass_session
from kb_assets.cli.shards import chosen_shards, shard_options

if TYPE_CHECKING:
    from kb_assets.forecast.forecast import Forecast, ShardForecast
    from kb_assets.settings import LimitSettings


@click.command(cls=KbCommand)
@shard_options
@click.option("--verify", is_flag=True, help="Trust no version token: read everything.")
@pass_session
def plan(session: Session, sources: tuple[str, ...], shards: tuple[str, ...], verify: bool) -> int:
    """Say what `kb index` would do and cost; nothing is stored."""
    from kb_assets.cli.output import print_json

    with session.knowledge_base() as kb:
        wanted = chosen_shards(kb.settings, sources, shards)
        forecast = kb.plan(wanted, run=kb.run(verify=verify))
        limits = kb.settings.limits
    if session.as_json:
        over = forecast.cost_usd > limits.max_cost_per_run_usd
        print_json({**_fields(forecast), "needs_confirm_cost": over})
    else:
        _print(forecast, limits)
    return 0


def _fields(forecast: "Forecast") -> dict[str, Any]:
    from kb_assets.cli.output import plain

    fields: dict[str, Any] = plain(forecast)
    return fields


def _print(forecast: "Forecast", limits: "LimitSettings") -> None:
    from kb_assets.cli.output import console, count_of, dollars, size, table

    out = console()
    columns = ("Shard", "Found", "New", "Changed", "Unchanged", "Quarantined", "Gone", "Chunks")
    out.print(table(columns, [_row(shard) for shard in forecast.shards]))
    out.print(
        f"\nTo read: {size(sum(shard.bytes_read for shard in forecast.shards))}"
        f"\nTo embed: {count_of(forecast.texts, 'text')}, "
        f"{count_of(forecast.tokens, 'token')}, {dollars(forecast.cost_usd)}"
        f"  ({forecast.space}{', a new space' if forecast.new_space else ''})"
    )
    for warning in _warnings(forecast, limits):
        out.print(warning, style="yellow", soft_wrap=True)


def _row(shard: "ShardForecast") -> tuple[str, ...]:
    from kb_assets.cli.output import number

    counts = (shard.found, shard.added, shard.changed, shard.unchanged)
    rare = (shard.quarantined, shard.gone, shard.chunks)
    return (shard.shard, *map(number, counts), *map(number, rare))


def _warnings(forecast: "Forecast", limits: "LimitSettings") -> list[str]:
    from kb_assets.cli.output import count_of

    warnings = [
        f"{shard.shard}: {count_of(shard.withheld, 'document')} gone, more than "
        f"{limits.max_deleted_share:.0%} of all. The mass-delete guard would keep them until "
        "`kb index --confirm-deletes`."
        for shard in forecast.shards
        if shard.withheld
    ]
    if forecast.cost_usd > limits.max_cost_per_run_usd:
        warnings.append(
            f"That is more than a run may spend ({limits.max_cost_per_run_usd:.2f} USD): "
            "it would need `kb index --confirm-cost`."
        )
    return warnings
