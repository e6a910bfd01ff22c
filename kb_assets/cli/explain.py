"""`kb explain`: why a search finds what it finds."""

from typing import TYPE_CHECKING, Any

import click

from kb_assets.cli.excerpt import visible
from kb_assets.cli.filters import filter_options
from kb_assets.cli.search import head, print_footer, ranking_options
from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.retrieval.explain import ExplainedHit, Explanation


@click.command(cls=KbCommand)
@click.argument("question")
@ranking_options
@filter_options
@pass_session
def explain(session: Session, question: str, **chosen: Any) -> int:  # noqa: ANN401
    """Search, and say of each hit what led to it and where it is from."""
    with session.knowledge_base() as kb:
        explanation = kb.explain(question, **chosen)
    if session.as_json:
        from kb_assets.cli.output import print_json

        print_json({"question": question, **_document(explanation)})
    else:
        _print(explanation)
    return 0


def _document(explanation: "Explanation") -> dict[str, Any]:
    results = explanation.results
    return {
        "mode": results.mode,
        "provider": results.provider,
        "space": results.space,
        "fusion": explanation.fusion,
        "vector_weight": explanation.vector_weight,
        "terms": explanation.terms,
        "notes": results.notes,
        "seconds": results.seconds,
        "hits": explanation.hits,
    }


def _print(explanation: "Explanation") -> None:
    from kb_assets.cli.output import console

    out = console()
    for language, terms in explanation.terms.items():
        named = ", ".join(visible(term) for term in terms) or "none"
        out.print(f"Words looked for ({language}): {named}", style="dim", soft_wrap=True)
    parts = explanation.results.seconds.items()
    out.print(
        "Took " + ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in parts),
        style="dim",
        soft_wrap=True,
    )
    out.print()
    for rank, one in enumerate(explanation.hits, start=1):
        out.print(head(rank, one.hit), soft_wrap=True)
        for line in _lines(explanation, one):
            out.print(f"    {visible(line)}", soft_wrap=True)
        out.print()
    print_footer(explanation.results)


def _lines(explanation: "Explanation", one: "ExplainedHit") -> list[str]:
    hit, weight = one.hit, explanation.vector_weight
    lines = []
    if hit.vector_score is not None:
        lines.append(f"meaning  cosine {hit.vector_score:.3f}{_rank(one.vector_rank)}")
    if hit.lexical_score is not None and one.lexical_share is not None:
        best = f"{one.lexical_share:.0%} of what these words could give"
        lines.append(f"words    BM25 {hit.lexical_score:.2f}, {best}{_rank(one.lexical_rank)}")
        named = ", ".join(f"{term} {added:.2f}" for term, added in one.terms.items())
        lines.append(f"         {named or 'none of them is in it'}")
    if explanation.results.mode == "hybrid" and hit.fused_score is not None:
        meaning = max(hit.vector_score or 0.0, 0.0)
        times = "\N{MULTIPLICATION SIGN}"
        words = one.lexical_share or 0.0
        sum_ = f"{weight:g} {times} {meaning:.3f} + {1 - weight:g} {times} {words:.3f}"
        lines.append(f"fused    {hit.fused_score:.3f} = {sum_}")
        if explanation.fusion == "rrf":
            lines.append("         (ordered by reciprocal ranks)")
    if hit.rerank_score is not None:
        lines.append(f"rerank   {hit.rerank_score:.3f}")
    chunks = f"chunk {hit.ordinal}"
    if hit.last_ordinal > hit.ordinal:
        chunks = f"chunks {hit.ordinal} to {hit.last_ordinal}, scored by the best of them"
    when = f", read {one.read_at:%F %R} UTC" if one.read_at else ""
    who = f" by run {one.run_id}" if one.run_id else ""
    lines.append(f"from     revision {hit.revision_id}, {chunks}{when}{who}")
    return lines


def _rank(rank: int | None) -> str:
    return f", rank {rank}" if rank is not None else ", not among the first"
