"""`kb why`: the story of one document."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from kb_assets.cli.session import KbCommand, Session, pass_session

if TYPE_CHECKING:
    from kb_assets.index.story import RevisionStory, Story, Texts


@click.command(cls=KbCommand, short_help="Tell the story of one document.")
@click.argument("path")
@click.option("--source", help="In this source only.")
@pass_session
def why(session: Session, path: str, source: str | None) -> int:
    """Tell what happened to the document PATH, and whether it can be found."""
    with session.knowledge_base() as kb:
        if source is not None:
            kb.settings.source(source)
        stories = kb.why(path, source)
    if session.as_json:
        from kb_assets.cli.output import plain, print_json

        print_json({"stories": [{**plain(one), "verdict": one.verdict} for one in stories]})
        return 0
    for story in stories:
        _print(story)
    return 0


def _print(story: "Story") -> None:
    from rich.text import Text

    from kb_assets.cli.excerpt import visible
    from kb_assets.cli.output import console

    out = console()
    out.print(Text(visible(f"{story.source}:{story.path}"), "bold cyan"), soft_wrap=True)
    out.print(Text(f"  {story.verdict}", "bold"), soft_wrap=True)
    for label, words in _lines(story):
        told = Text.assemble((f"  {label:<12}", "dim"), visible(words))
        out.print(told, soft_wrap=True)


def _lines(story: "Story") -> Iterator[tuple[str, str]]:
    from kb_assets.cli.output import count_of

    if story.found_at:
        yield "found", f"{story.found_at:%Y-%m-%d %H:%M:%S} UTC"
    if story.erasure:
        number, moment = story.erasure
        yield "erased", f"{moment:%Y-%m-%d %H:%M:%S} UTC, erasure {number} of `kb erase --list`"
    if story.missing_since:
        yield "missing", f"since {story.missing_since:%Y-%m-%d %H:%M:%S} UTC"
    if story.vanished_at:
        yield "gone", f"{story.vanished_at:%Y-%m-%d %H:%M:%S} UTC"
    if story.content_hash:
        yield "content", f"SHA-256 {story.content_hash}"
    if story.live:
        yield from _revision("answers", story.live)
    if story.pending:
        yield from _revision("waits", story.pending)
    if story.refusal:
        refusal = story.refusal
        tried = count_of(refusal.attempts, "attempt")
        yield "refused", f"{refusal.reason} in stage {refusal.stage}, {tried}: {refusal.detail}"


def _revision(label: str, revision: "RevisionStory") -> Iterator[tuple[str, str]]:
    made = f"revision {revision.id}, read {revision.made_at:%Y-%m-%d %H:%M:%S} UTC"
    yield label, made + (f" by run {revision.run_id}" if revision.run_id else "")
    if revision.title:
        yield "title", revision.title
    if revision.media_type:
        yield "text", f"{revision.media_type}, {revision.text_bytes or 0:,} bytes"
    if revision.texts:
        yield from _texts(revision.texts)


def _texts(texts: "Texts") -> Iterator[tuple[str, str]]:
    from kb_assets.cli.output import count_of

    chunks, tokens = count_of(texts.chunks, "chunk"), count_of(texts.tokens, "token")
    yield "chunks", f"{chunks}, {tokens}, {texts.embedded:,} with a vector"
    for ordinal, reason, detail in texts.refused:
        yield f"chunk {ordinal}", f"has no vector: {reason}. {detail}"
