"""Where text may be cut without breaking what a reader sees as one character."""

from typing import cast

import regex

ATTACHED = r"\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}"
"""Members of a character class: what belongs to the character before it."""

_APART = regex.compile(
    rf"[\p{{GCB=Other}}\p{{GCB=Control}}\p{{GCB=LF}}][^{ATTACHED}]"
    rf"|[\p{{GCB=LV}}\p{{GCB=LVT}}][^{ATTACHED}\p{{GCB=V}}\p{{GCB=T}}]"
)
# Only ever matched against slices: it counts all flags before a flag, however many there are.
_CLUSTER = regex.compile(r"\X")


def cluster_floor(text: str, start: int, position: int) -> int:
    """Return the last boundary between clusters after `start`, not after `position`.

    Args:
        text: The text to cut.
        start: A boundary.
        position: At least `start`.

    Returns:
        `start` itself if the first cluster ends after `position`.
    """
    if position >= len(text) or _APART.match(text, position - 1):
        return position
    last = 0
    for cluster in _CLUSTER.finditer(text[start : position + 1]):
        if cluster.end() > position - start:
            break
        last = cluster.end()
    return start + last


def cluster_end(text: str, start: int, end: int) -> int:
    """Return where the cluster that begins at `start` ends, looking no further than `end`."""
    cluster = _CLUSTER.match(text[start:end])
    return start + cast(int, cluster.end()) if cluster else end


def cluster_ceiling(text: str, start: int, position: int, end: int) -> int:
    """Return the first boundary at or after `position`, looking no further than `end`.

    Args:
        text: The text to cut.
        start: A boundary, at most `position`.
        position: Where to begin.
        end: A boundary, at least `position`.
    """
    floor = cluster_floor(text, start, position)
    return position if floor == position else cluster_end(text, floor, end)
