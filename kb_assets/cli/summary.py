"""How the outcome of `kb index` is told."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.table import Table

from kb_assets.cli.failures import error_document
from kb_assets.cli.outcome import Outcome
from kb_assets.cli.output import console, count_of, dollars, number, table

_NOTHING = "nothing new"

Line = tuple[str, str, float]
"""A stage, what it did, and how many seconds it took."""


def document_of(outcome: Outcome, *, strict: bool) -> dict[str, Any]:
    """Return the outcome as JSON has it."""
    return {
        "run_id": outcome.run_id,
        "run_ids": outcome.run_ids,
        "exit_code": outcome.exit_code(strict=strict),
        "seconds": round(outcome.seconds, 3),
        "withheld": outcome.withheld,
        "waiting": outcome.waiting,
        "quarantined": outcome.quarantined,
        "failed_checks": outcome.failed_checks,
        "error": error_document(outcome.error) if outcome.error else None,
        "accounts": outcome.accounts,
        "reports": outcome.reports,
    }


def print_summary(outcome: Outcome) -> None:
    """Print what each stage did, and what there is to do."""
    out = console()
    lines = list(_lines(outcome))
    if lines:
        rows = [
            (stage, words, f"{seconds:.1f}" if stage else "") for stage, words, seconds in lines
        ]
        out.print(table(("Stage", "What it did", "Seconds"), rows, text_columns=2))
    if len(outcome.accounts) > 1:
        out.print()
        out.print(_shards_table(outcome))
    out.print()
    for words, style in _verdict(outcome):
        out.print(words, style=style, soft_wrap=True)


def _lines(outcome: Outcome) -> Iterator[Line]:
    read = _sums(_reports(outcome, "raw_documents"))
    if read:
        yield from _read(read)
    split = _sums(_reports(outcome, "document_chunks"))
    if split:
        into = f"{_documents(split['revisions'])} into {count_of(split['chunks'], 'chunk')}"
        yield "split", into if split["revisions"] else _NOTHING, split["seconds"]
    yield from _embedded(_reports(outcome, "chunk_embeddings"))
    published = _sums(_reports(outcome, "published_documents"))
    if published:
        yield "publish", _published(published), published["seconds"]
    for report in _reports(outcome, "vector_index"):
        did = "sound, about" if report["action"] == "none" else f"{report['action']},"
        slow = "" if report["fits_memory"] else "; slowly, for want of memory"
        words = f"{did} {count_of(report['vectors'], 'vector')}{slow}"
        yield "index", words, report["seconds"]


def _read(read: Mapping[str, Any]) -> Iterator[Line]:
    same = read["unchanged"] + read["touched"] + read["reverted"]
    found = f"{_documents(read['found'])}: {read['added']:,} new, {read['changed']:,} changed, "
    yield "read", f"{found}{same:,} as before", read["seconds"]
    if read["quarantined"]:
        yield "", f"{read['quarantined']:,} to quarantine", 0.0
    gone = {"vanished": "gone", "moved": "moved", "returned": "back", "withheld": "withheld"}
    told = [f"{read[name]:,} {word}" for name, word in gone.items() if read[name]]
    if told:
        yield "", ", ".join(told), 0.0


def _embedded(reports: Iterable[Mapping[str, Any]]) -> Iterator[Line]:
    by_space: dict[str, list[Mapping[str, Any]]] = {}
    for report in reports:
        for space in report["spaces"]:
            by_space.setdefault(space["space"], []).append(space)
    for name, spaces in by_space.items():
        sums = _sums(spaces)
        had = sums["had"] + sums["elsewhere"]
        words = f"{count_of(sums['embedded'], 'text')}, {had:,} had vectors; "
        words += f"{count_of(sums['tokens'], 'token')}, {dollars(sums['cost_usd'])}"
        words = words if sums["texts"] else _NOTHING
        refused = f"; {sums['quarantined']:,} refused" if sums["quarantined"] else ""
        where = f" ({name}, {spaces[0]['state']})" if len(by_space) > 1 else ""
        yield "embed", f"{words}{refused}{where}", sums["seconds"]


def _published(sums: Mapping[str, Any]) -> str:
    if not any(sums[name] for name in ("published", "replaced", "removed", "waiting")):
        return _NOTHING
    words = f"{sums['published']:,} new, {sums['replaced']:,} replaced, {sums['removed']:,} removed"
    return f"{words}, {sums['waiting']:,} waiting" if sums["waiting"] else words


def _shards_table(outcome: Outcome) -> Table:
    rows = [
        (key, *map(number, (one.listed, one.live, one.quarantined, one.pending, one.missing)))
        for key, one in outcome.accounts.items()
    ]
    return table(("Shard", "Found", "Live", "Quarantined", "Pending", "Missing"), rows)


def _verdict(outcome: Outcome) -> Iterator[tuple[str, str]]:
    if outcome.quarantined:
        told = f"{_documents(outcome.quarantined)} in quarantine: `kb status --quarantine`."
        yield told, "yellow"
    if outcome.withheld:
        yield (
            f"{_documents(outcome.withheld)} gone from the source, and kept by the mass-delete "
            "guard. If that is right: `kb index --confirm-deletes`.",
            "yellow",
        )
    if outcome.waiting:
        told = f"{_documents(outcome.waiting)} not up to date: the next `kb index` goes on."
        yield told, "yellow"
    for check in outcome.failed_checks:
        yield f"The check {check} failed.", "red"
    run = f"run {outcome.run_id}, {outcome.seconds:.1f} s"
    if outcome.error is not None:
        yield f"Stopped ({run}). What was done so far is kept.", "bold red"
    elif outcome.exit_code(strict=False):
        yield f"Done, with something to look at ({run}).", "bold yellow"
    else:
        yield f"Done ({run}).", "bold green"
        yield 'Next: kb search "…"', "dim"


def _reports(outcome: Outcome, asset: str) -> list[Mapping[str, Any]]:
    return list(outcome.reports.get(asset, {}).values())


def _sums(reports: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Add up the counts of several reports; empty if there are none."""
    sums: Counter[str] = Counter()
    for report in reports:
        for name, value in report.items():
            if isinstance(value, (int, float)):
                sums[name] += value  # type: ignore[assignment]
    return sums


def _documents(count: int) -> str:
    return count_of(count, "document")
