"""How `kb status` is told to people: one screen."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from kb_assets.cli.excerpt import visible
from kb_assets.cli.output import ago, console, count_of, dollars, indent, number, size, table

if TYPE_CHECKING:
    from kb_assets.index.account import Quarantined
    from kb_assets.knowledge_base.health import Health, ShardHealth

_RARE = ("partial", "pending", "missing", "vanishing", "erased")
_TOLD_AT_MOST = 12
"""So many things to do are named; JSON has all of them."""


def print_health(health: "Health") -> None:
    """Print how everything is, and what to do next."""
    out = console()
    if health.shards:
        out.print(_sources(health))
        out.print()
    else:
        out.print("kb.toml names no source.\n")
    for about, words in _lines(health):
        told = Text.assemble((f"{about:<8} ", "bold"), visible(words))
        for line in told.wrap(out, out.width):
            line.rstrip()
            out.print(line, soft_wrap=True)
    out.print()
    _print_concerns(health)


def _sources(health: "Health") -> Table:
    rare = [name for name in _RARE if any(getattr(one.account, name) for one in health.shards)]
    columns = ("Source", "Found", "Live", *map(str.capitalize, rare), "Quarantined")
    counted = ("Chunks",) if health.is_exact else ()
    rows = [
        _row(source, tuple(shards), rare)
        for source, shards in groupby(health.shards, key=lambda one: one.source)
    ]
    return table((*columns, *counted, "Looked at"), rows)


def _row(source: str, shards: "Sequence[ShardHealth]", rare: Sequence[str]) -> tuple[str, ...]:
    accounts = [one.account for one in shards]
    never = any(one.listed is None for one in accounts)
    found = None if never else sum(one.listed or 0 for one in accounts)
    names = ("live", *rare, "quarantined")
    counts = [sum(getattr(one, name) for one in accounts) for name in names]
    chunks = [one.contents.chunks for one in shards if one.contents is not None]
    looks = [one.looked_at for one in shards if one.looked_at is not None]
    name = source if len(shards) == 1 else f"{source} ({len(shards)} shards)"
    return (
        name,
        *map(number, (found, *counts)),
        *((number(sum(chunks)),) if chunks else ()),
        ago(min(looks) if len(looks) == len(shards) else None),
    )


def _lines(health: "Health") -> Iterator[tuple[str, str]]:
    about = "" if health.is_exact else "about "
    yield "chunks", f"{about}{count_of(health.chunks, 'chunk')}"
    for one in health.spaces:
        index = f"index {size(one.index_bytes)}" if one.indexed else "no usable index"
        missing = f", {one.missing:,} missing" if one.missing else ""
        yield (
            "space",
            f"{one.space.name} ({one.space.state}): {about}{count_of(one.vectors, 'vector')}"
            f"{missing}, {index}",
        )
    yield "quality", _quality(health)
    yield "backup", _backup(health)
    if health.archive is not None:
        yield "archive", _archive(health)
    yield "spent", _spent(health)
    it = health.versions
    yield (
        "runs",
        f"kb {it.kb}, schema {it.schema}, PostgreSQL {it.postgres}, pgvector {it.pgvector}; "
        f"{size(it.database_bytes)}",
    )


def _quality(health: "Health") -> str:
    found = health.quality
    if found is None:
        return "never measured"
    measures = [
        f"{name} {value:.3f}"
        for name, value in (("nDCG@10", found.ndcg), ("R@5", found.recall))
        if value is not None
    ]
    asked = f"{count_of(found.questions, 'question')}, {ago(found.evaluated_at)}"
    return ", ".join((found.verdict, *measures, asked))


def _backup(health: "Health") -> str:
    found = health.backup
    if found is None:
        return "unknown"
    if found.made_at is None:
        return f"none in {found.uri}"
    signed = "signed" if found.is_signed else "not signed"
    made = f"{ago(found.made_at)}, {size(found.stored_bytes)}, {signed}"
    if found.drilled_at is None:
        return f"{made}; never drilled"
    return f"{made}; drill passed {ago(found.drilled_at)}, in {found.drill_seconds:.0f} s"


def _archive(health: "Health") -> str:
    found = health.archive
    assert found is not None
    due = f"{count_of(found.months_due, 'month')} due" if found.months_due else "no month is due"
    held = f"{count_of(found.rows, 'message')} in {count_of(found.objects, 'object')}"
    return f"{due}; {held}, {size(found.object_bytes)}"


def _spent(health: "Health") -> str:
    it = health.spending
    saved = f"; {dollars(it.saved_usd)} saved by shared texts" if it.saved_usd else ""
    if not it.cost_usd:
        return f"nothing, {count_of(it.texts, 'text')} embedded"
    month = f"{dollars(it.month_cost_usd)} in 30 days"
    return f"{dollars(it.cost_usd)}, {month}{saved}"


def _print_concerns(health: "Health") -> None:
    out = console()
    documents = count_of(sum(one.account.documents for one in health.shards), "document")
    if health.is_settled and health.shards:
        out.print(f"Settled: {documents}, all accounted for.", style="green")
    if not health.concerns:
        out.print("Nothing to do.", style="green")
        return
    out.print("To do:", style="bold")
    for one in health.concerns[:_TOLD_AT_MOST]:
        style = "yellow" if one.is_urgent else "dim"
        told = Text.assemble(("  ", ""), (visible(one.about), style), f": {visible(one.words)} ")
        out.print(told.append(visible(one.fix)), soft_wrap=True)
    more = len(health.concerns) - _TOLD_AT_MOST
    if more > 0:
        out.print(f"  and {more:,} more: `kb status --json` has all.", style="dim")


def print_quarantine(refused: "Sequence[Quarantined]") -> None:
    """Print what cannot be used, and why."""
    out = console()
    out.print(f"\n{count_of(len(refused), 'document')} in quarantine")
    for one in refused:
        tried = f"{one.stage}, {count_of(one.attempts, 'attempt')}"
        where = visible(f"  {one.source}:{one.path}")
        head = Text.assemble((where, "cyan"), f"  {one.reason}", (f"  {tried}", "dim"))
        out.print(head, soft_wrap=True)
        indent(out, Text(visible(one.detail)), 6)
