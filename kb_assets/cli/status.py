"""`kb status`: whether everything is fresh, whole, good and safe, on one screen."""

from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli import exits
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.index.account import Quarantined
    from kb_assets.knowledge_base import KnowledgeBase
    from kb_assets.knowledge_base.health import Health

_LIMIT = 10_000
"""The most documents in quarantine that are listed for one shard."""

COUNTS = (
    *("documents", "live", "partial", "quarantined", "pending", "missing", "vanishing"),
    "erased",
)
"""Where a document can be: see `Account`."""


@click.command(cls=KbCommand)
@click.option("--quarantine", is_flag=True, help="List what cannot be used, and why.")
@click.option("--check", is_flag=True, help="Exit 13 if somebody should do something.")
@pass_session
def status(session: Session, quarantine: bool, check: bool) -> int:
    """Say how everything is, and what to do next."""
    with session.knowledge_base() as kb:
        health = kb.health()
        refused = _quarantined(kb) if quarantine or session.as_json else []
    if session.as_json:
        from kb_assets.cli.output import print_json

        print_json(_document(health, refused))
    else:
        from kb_assets.cli.status_told import print_health, print_quarantine

        print_health(health)
        if quarantine:
            print_quarantine(refused)
    return exits.CHECK_FAILED if check and health.is_urgent else exits.DONE


def _quarantined(kb: "KnowledgeBase") -> "list[Quarantined]":
    from kb_assets.index.account import list_quarantine

    return [
        refused
        for shard in kb.settings.shards
        for refused in list_quarantine(kb.reader, shard, _LIMIT)
    ]


def _document(health: "Health", refused: "list[Quarantined]") -> dict[str, Any]:
    from kb_assets.cli.output import plain

    document = plain(health)
    shards = [
        {**told, "balanced": one.account.is_balanced, "settled": one.account.is_settled}
        for told, one in zip(document.pop("shards"), health.shards, strict=True)
    ]
    names = {one.shard for one in health.shards}
    return {
        "settled": health.is_settled,
        "urgent": health.is_urgent,
        "reasons": [
            f"{one.about}: {one.words} {one.fix}" for one in health.concerns if one.about in names
        ],
        "totals": {
            "listed": sum(one.account.listed or 0 for one in health.shards),
            **{name: account_sum(health, name) for name in COUNTS},
            "chunks": document.pop("chunks"),
            **{name: _contents_sum(health, name) for name in ("texts", "tokens")},
        },
        "shards": shards,
        **document,
        "quarantine": refused,
    }


def account_sum(health: "Health", name: str) -> int:
    """Return how many documents of all shards are in one place."""
    return sum(getattr(one.account, name) for one in health.shards)


def _contents_sum(health: "Health", name: str) -> int | None:
    """Return what all shards hold; None if it was not counted."""
    counted = [one.contents for one in health.shards if one.contents is not None]
    return sum(getattr(one, name) for one in counted) if health.is_exact else None
