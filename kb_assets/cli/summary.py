"""How the outcome of `kb index` is told."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from kb_assets.cli.excerpt import visible
from kb_assets.cli.failures import error_document
from kb_assets.cli.outcome import Outcome
from kb_assets.cli.output import console, count_of, dollars, number, table

_STAGES = ("raw_documents", "document_chunks", "chunk_embeddings", "published_documents")


def document_of(outcome: Outcome, *, strict: bool) -> dict[str, Any]:
    """Return the outcome as JSON has it."""
    return {
        "run_id": outcome.run_id,
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
    if outcome.reports:
        out.print(_stages_table(outcome))
    if len(outcome.accounts) > 1:
        out.print()
        out.print(_shards_table(outcome))
    out.print()
    for words, style in _verdict(outcome):
        out.print(words, style=style, soft_wrap=True)


def _stages_table(outcome: Outcome) -> Table:
    made = table(("Stage", "What it did", "Seconds"), [], text_columns=2)
    for stage, words, seconds in _stages(outcome):
        made.add_row(stage, visible(words), f"{seconds:.1f}")
    return made


def _stages(outcome: Outcome) -> Iterator[tuple[str, str, float]]:
    read, split, _, published = (_Sums(outcome, stage) for stage in _STAGES)
    if read:
        yield "read", _read(read), read["seconds"]
    if split:
        chunks = f"{count_of(split['revisions'], 'document')} into {count_of(split['chunks'], 'chunk')}"
        yield "split", chunks, split["seconds"]
    for space in sorted(_spaces(outcome)):
        sums = _spaces(outcome)[space]
        yield "embed", _embedded(space, sums), sums["seconds"]
    if published:
        yield "publish", _published(published), published["seconds"]
    for report in outcome.reports.get("vector_index", {}).values():
        did = "nothing to do" if report["action"] == "none" else report["action"]
        yield "index", f"{count_of(report['vectors'], 'vector')}: {did}", report["seconds"]
