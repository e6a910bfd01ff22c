"""`kb status`: where every document is."""

from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from rich.console import Console

    from kb_assets.index.account import Account, Quarantined
    from kb_assets.knowledge_base import KnowledgeBase, ShardStatus, Status

_LIMIT = 10_000
"""The most documents in quarantine that are listed for one shard."""

_RARE = ("partial", "pending", "missing", "vanishing", "erased")
_COUNTS = ("documents", "live", "quarantined", *_RARE)
_CONTENTS = ("chunks", "texts", "tokens")


@click.command(cls=KbCommand)
@click.option("--quarantine", is_flag=True, help="List what cannot be used, and why.")
@pass_session
def status(session: Session, quarantine: bool) -> int:
    """Say where every document is, and whether anything waits."""
    with session.knowledge_base() as kb:
        found = kb.status()
        refused = _quarantined(kb) if quarantine or session.as_json else []
    if session.as_json:
        from kb_assets.cli.output import print_json

        print_json(_document(found, refused))
    else:
        _print(found, refused, quarantine)
    return 0


def _quarantined(kb: "KnowledgeBase") -> "list[Quarantined]":
    from kb_assets.index.account import list_quarantine

    return [
        refused
        for shard in kb.settings.shards
        for refused in list_quarantine(kb.reader, shard, _LIMIT)
    ]


def _document(found: "Status", refused: "list[Quarantined]") -> dict[str, Any]:
    from kb_assets.cli.output import plain

    shards = [
        {
            **plain(one),
            "balanced": one.account.is_balanced,
            "settled": one.account.is_settled,
        }
        for one in found.shards
    ]
    return {
        "settled": found.is_settled,
        "reasons": reasons(found),
        "totals": {
            "listed": sum(one.account.listed or 0 for one in found.shards),
            **{name: _account_sum(found, name) for name in _COUNTS},
            **{
                name: sum(getattr(one.contents, name) for one in found.shards) for name in _CONTENTS
            },
        },
        "shards": shards,
        "spaces": found.spaces,
        "quarantine": refused,
    }


def _account_sum(found: "Status", name: str) -> int:
    return sum(getattr(one.account, name) for one in found.shards)


def reasons(found: "Status") -> list[str]:
    """Say why a knowledge base is not settled, a sentence for each cause."""
    return [f"{one.shard}: {reason}" for one in found.shards for reason in _reasons(one.account)]


def _reasons(account: "Account") -> list[str]:
    from kb_assets.cli.output import count_of

    if account.listed is None:
        return ["never listed. Run `kb index`."]
    waiting = account.pending - account.missing
    told = []
    if account.missing:
        told.append(
            f"{count_of(account.missing, 'document')} gone from the source and kept by the "
            "mass-delete guard. If that is right, run `kb index --confirm-deletes`."
        )
    if waiting:
        told.append(f"{count_of(waiting, 'document')} not published yet. Run `kb index`.")
    if account.vanishing:
        told.append(f"{count_of(account.vanishing, 'document')} about to go. Run `kb index`.")
    if not account.is_balanced:
        told.append(
            f"the last listing found {account.listed:,} documents, and "
            f"{account.documents - account.missing:,} are known. Run `kb index`."
        )
    return told


def _print(found: "Status", refused: "list[Quarantined]", quarantine: bool) -> None:
    from kb_assets.cli.output import console
    from kb_assets.cli.space import spaces_table

    out = console()
    if not found.shards:
        out.print("kb.toml names no source.")
        return
    out.print(_shards_table(found))
    if found.spaces:
        out.print()
        out.print(spaces_table(found.spaces))
    if quarantine:
        _print_quarantine(out, refused)
    out.print()
    _print_verdict(out, found, quarantine)


def _shards_table(found: "Status") -> Any:  # noqa: ANN401
    from kb_assets.cli.output import table

    rare = [name for name in _RARE if any(getattr(one.account, name) for one in found.shards)]
    columns = ("Shard", "Found", "Live", *map(str.capitalize, rare), "Quarantined")
    rows = [_row(one, rare) for one in found.shards]
    return table((*columns, "Chunks", "Tokens", "Changed"), rows)


def _row(one: "ShardStatus", rare: list[str]) -> tuple[str, ...]:
    from kb_assets.cli.output import ago, number

    account, contents = one.account, one.contents
    return (
        one.shard,
        number(account.listed),
        number(account.live),
        *(number(getattr(account, name)) for name in rare),
        number(account.quarantined),
        number(contents.chunks),
        number(contents.tokens),
        ago(account.listed_at),
    )


def _print_quarantine(out: "Console", refused: "list[Quarantined]") -> None:
    from rich.text import Text

    from kb_assets.cli.excerpt import visible
    from kb_assets.cli.output import count_of, indent

    out.print(f"\n{count_of(len(refused), 'document')} in quarantine")
    for one in refused:
        tried = f"{one.stage}, {count_of(one.attempts, 'attempt')}"
        where = visible(f"  {one.source}:{one.path}")
        head = Text.assemble((where, "cyan"), f"  {one.reason}", (f"  {tried}", "dim"))
        out.print(head, soft_wrap=True)
        indent(out, Text(visible(one.detail)), 6)


def _print_verdict(out: "Console", found: "Status", quarantine: bool) -> None:
    from kb_assets.cli.output import count_of

    why = reasons(found)
    if not why:
        total = _account_sum(found, "documents")
        out.print(f"Settled: {count_of(total, 'document')}, all accounted for.", style="green")
    else:
        out.print("Not settled:", style="yellow")
    for reason in why:
        out.print(f"  {reason}", soft_wrap=True)
    if not quarantine and _account_sum(found, "quarantined"):
        out.print("`kb status --quarantine` says what is in quarantine, and why.", style="dim")
