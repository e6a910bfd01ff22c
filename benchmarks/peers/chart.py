"""The picture for the README: every operation and contestant on one logarithmic scale."""

import math
import statistics
from collections.abc import Iterator
from html import escape
from typing import Any

from benchmarks.peers.results import FLOOR, OWN, PEERS

WIDTH = 800
LEFT, RIGHT = 24, 776
LANE, HEADING, GAP = 19, 24, 16
TOP = 98
NEAR_THE_END = 600

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #424a53 }
  .paper { fill: #ffffff; stroke: #d0d7de }
  .title { font-size: 17px; font-weight: 600; fill: #1f2328 }
  .operation { font-weight: 600; fill: #1f2328 }
  .grid { stroke: #d8dee4 }
  .peer { fill: #6e7781; stroke: #6e7781 }
  .floor { fill: #ffffff; stroke: #6e7781; stroke-width: 2 }
  .own { fill: #0969da; stroke: #0969da }
  text.own { stroke: none; font-weight: 600 }
  .range { stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #c3cad1 }
    .paper { fill: #0d1117; stroke: #3d444d }
    .title, .operation { fill: #f0f6fc }
    .grid { stroke: #2a313a }
    .peer, .floor { stroke: #9198a1 }
    .peer { fill: #9198a1 }
    .floor { fill: #0d1117 }
    .own { fill: #4493f8; stroke: #4493f8 }
  }
"""


class _Scale:
    def __init__(self, seconds: list[float]) -> None:
        self.low, self.high = math.log10(min(seconds)) - 0.1, math.log10(max(seconds)) + 0.1

    def __call__(self, seconds: float) -> float:
        share = (math.log10(seconds) - self.low) / (self.high - self.low)
        return round(LEFT + 12 + share * (RIGHT - LEFT - 24), 1)

    def decades(self) -> Iterator[float]:
        for exponent in range(math.ceil(self.low), math.floor(self.high) + 1):
            yield 10.0**exponent


def chart(found: dict[str, Any]) -> str:
    """Return a drawing, as SVG, of what `benchmarks.peers` recorded."""
    times = {
        operation: {
            name: of[name]["seconds"]
            for name in (OWN, *PEERS, FLOOR)
            if name in of and not of[name]["flaw"]
        }
        for operation, of in found["operations"].items()
    }
    every = [one for of in times.values() for seconds in of.values() for one in seconds]
    scale = _Scale(every or [1.0])
    parts: list[str] = []
    y = TOP
    for operation, of in times.items():
        parts += _operation(operation, of, y, scale)
        y += HEADING + LANE * len(of) + GAP
    session = found["session"]
    subtitle = (
        f"{session['files']:,} Markdown files, {session['bytes'] / 1e6:.0f} MB; the same embedder "
        f"and PostgreSQL for all; logarithmic; median of {session['rounds']}"
    )
    grid = [
        f'<line class="grid" x1="{scale(at)}" x2="{scale(at)}" y1="{TOP - 8}" y2="{y - GAP}"/>'
        + "".join(
            f'<text x="{scale(at)}" y="{height}" text-anchor="middle">{at:g} s</text>'
            for height in (TOP - 14, y + 2)
        )
        for at in scale.decades()
    ]
    spoken = ". ".join(
        f"{operation}: " + ", ".join(f"{name} {_median(seconds)}" for name, seconds in of.items())
        for operation, of in times.items()
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 20}"'
            f' viewBox="0 0 {WIDTH} {y + 20}" role="img" aria-labelledby="title numbers">',
            '<title id="title">Seconds to bring an index up to date; less is better</title>',
            f'<desc id="numbers">{escape(spoken)}.</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{y + 19}" rx="6"/>',
            f'<text class="title" x="{LEFT}" y="34">Seconds to bring an index up to date'
            " (less is better)</text>",
            f'<text x="{LEFT}" y="55">{subtitle}</text>',
            *grid,
            *parts,
            "</svg>\n",
        ]
    )


def _operation(name: str, of: dict[str, list[float]], y: int, scale: _Scale) -> list[str]:
    heading = name[0].upper() + name[1:]
    peers = {peer: statistics.median(of[peer]) for peer in PEERS if peer in of}
    if OWN in of and peers:
        fastest = min(peers, key=lambda peer: peers[peer])
        ratio = peers[fastest] / statistics.median(of[OWN])
        heading += f": {OWN} {ratio:.{0 if ratio >= 10 else 1}f} x as fast as {fastest}"
    parts = [f'<text class="operation" x="{LEFT}" y="{y + 13}">{escape(heading)}</text>']
    lane = y + HEADING + LANE // 2
    for contestant in sorted(of, key=lambda one: statistics.median(of[one])):
        parts += _lane(contestant, of[contestant], lane, scale)
        lane += LANE
    return parts


def _lane(contestant: str, seconds: list[float], y: int, scale: _Scale) -> list[str]:
    kind = {OWN: "own", FLOOR: "floor"}.get(contestant, "peer")
    low, at, high = (scale(of(seconds)) for of in (min, statistics.median, max))
    beside, anchor = (low - 11, "end") if at > NEAR_THE_END else (high + 11, "start")
    label = f"{contestant} {_median(seconds)}"
    text_class = ' class="own"' if kind == "own" else ""
    return [
        f'<line class="range {kind}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>',
        f'<circle class="{kind}" cx="{at}" cy="{y}" r="5"/>',
        f'<text{text_class} x="{beside:.1f}" y="{y + 4.5}" text-anchor="{anchor}">{label}</text>',
    ]


def _median(seconds: list[float]) -> str:
    median = statistics.median(seconds)
    return f"{median:#.2g} s" if median < 10 else f"{median:.0f} s"
