"""Alerts as Slack shows them: lines of text, with links, and nothing left to render in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MOST_LINES = 10
"""A flood is one message, with so many lines; Slack takes 50 blocks."""

_LONGEST_WORDS = 600
"""Slack takes 3,000 characters a block."""

_CREDENTIALS = re.compile(r"(\w+://)[^\s/@]+@")

_HEADS = {
    "failed": ("run failed", "runs failed"),
    "red": ("check is red", "checks are red"),
    "green": ("check is green again", "checks are green again"),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to tell.

    Attributes:
        kind: A run that failed, a check that turned red, or one that is green again.
        title: Which run or check.
        words: What happened, and what to do; may be empty.
        path: Where the UI shows it, such as `/runs/…`.
    """

    kind: Literal["failed", "red", "green"]
    title: str
    words: str
    path: str


def message(alerts: Sequence[Alert], ui_url: str) -> Mapping[str, Any]:
    """Return what is posted: what is bad first, and no more lines than somebody reads."""
    counted = {kind: sum(one.kind == kind for one in alerts) for kind in _HEADS}
    head = ", ".join(
        f"{count} {_HEADS[kind][count != 1]}" for kind, count in counted.items() if count
    )
    text = f"Knowledge base: {head}"
    ordered = sorted(alerts, key=lambda one: list(_HEADS).index(one.kind))
    lines = [_line(one, ui_url) for one in ordered[:MOST_LINES]]
    if more := len(ordered) - MOST_LINES:
        lines += [f"and {more:,} more: <{ui_url}/runs|all runs>"] if more > 0 else []
    return {"text": text, "blocks": [_section(f"*{text}*"), *map(_section, lines)]}


def _line(alert: Alert, ui_url: str) -> str:
    state = {"failed": "failed", "red": "red", "green": "green again"}[alert.kind]
    words = f"\n{plain(alert.words)}" if alert.words else ""
    return f"*{plain(alert.title)}*: {state}. <{ui_url}{alert.path}|Open>{words}"


def _section(text: str) -> Mapping[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def plain(words: str) -> str:
    """Return words that Slack shows as they are: no mention, no link, no password in an address."""
    words = _CREDENTIALS.sub(r"\1***@", " ".join(words.split()))
    if len(words) > _LONGEST_WORDS:
        words = words[: _LONGEST_WORDS - 1] + "…"
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
