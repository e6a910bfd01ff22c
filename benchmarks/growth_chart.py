"""The picture of growth: what each kind of run takes against the number of files."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.growth_rows import Measured

WIDTH, HEIGHT = 800, 500
LEFT, RIGHT, TOP, BOTTOM = 72, 560, 84, 440
LABEL_HEIGHT = 19

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #424a53 }
  .paper { fill: #ffffff; stroke: #d0d7de }
  .title { font-size: 17px; font-weight: 600; fill: #1f2328 }
  .grid { stroke: #d8dee4 }
  .run { fill: none; stroke: #0969da; stroke-width: 2 }
  .walk { fill: none; stroke: #6e7781; stroke-width: 2; stroke-dasharray: 6 4 }
  .lead { stroke: #8c959f }
  .dot { fill: #0969da }
  .walk-dot { fill: #6e7781 }
  .name { fill: #1f2328; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #c3cad1 }
    .paper { fill: #0d1117; stroke: #3d444d }
    .title, .name { fill: #f0f6fc }
    .grid { stroke: #2a313a }
    .run { stroke: #4493f8 }
    .dot { fill: #4493f8 }
    .walk { stroke: #9198a1 }
    .walk-dot { fill: #9198a1 }
  }
"""

TITLE = "Seconds of a run as the corpus grows (less is better)"

Points = list[tuple[int, float]]


def chart(sizes: Sequence[Measured]) -> str:
    """Return a drawing, as SVG, of what `benchmarks.growth` measured."""
    lines: dict[str, Points] = {
        "first load": [(one.files, one.first.whole) for one in sizes],
        "10% renamed": [(one.files, one.folder.whole) for one in sizes],
        "1% edited": [(one.files, one.hundredth.whole) for one in sizes],
        "10 files edited": [(one.files, one.ten.whole) for one in sizes],
        "nothing changed": [(one.files, one.nothing.whole) for one in sizes],
        "scandir + stat": [(one.files, one.walk) for one in sizes],
    }
    place = _Place([one.files for one in sizes], [s for line in lines.values() for _, s in line])
    last = sizes[-1]
    subtitle = (
        f"Markdown files of {last.bytes / last.files / 1000:.1f} kB,"
        f" at most {last.vectors:,} vectors, HNSW index included; both axes logarithmic"
    )
    spoken = ". ".join(
        f"{name}: " + ", ".join(f"{files:,} files {_seconds(s)}" for files, s in points)
        for name, points in lines.items()
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
            f' viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title numbers">',
            f'<title id="title">{TITLE}</title>',
            f'<desc id="numbers">{escape(spoken)}.</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}"'
            ' rx="6"/>',
            f'<text class="title" x="24" y="34">{TITLE}</text>',
            f'<text x="24" y="55">{subtitle}</text>',
            *place.grid(),
            *_lines(lines, place),
            "</svg>\n",
        ]
    )


class _Place:
    """Where a number of files and seconds stands."""

    def __init__(self, files: list[int], seconds: list[float]) -> None:
        self.files = files
        self._low, self._high = math.log10(min(seconds)) - 0.1, math.log10(max(seconds)) + 0.1

    def x(self, files: int) -> float:
        first, last = math.log10(self.files[0]), math.log10(self.files[-1])
        share = (math.log10(files) - first) / (last - first or 1.0)
        return round(LEFT + 12 + share * (RIGHT - LEFT - 24), 1)

    def y(self, seconds: float) -> float:
        share = (math.log10(seconds) - self._low) / (self._high - self._low)
        return round(BOTTOM - share * (BOTTOM - TOP), 1)

    def grid(self) -> Iterator[str]:
        for exponent in range(math.ceil(self._low), math.floor(self._high) + 1):
            y = self.y(10.0**exponent)
            yield f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>'
            yield (
                f'<text x="{LEFT - 10}" y="{y + 4.5}" text-anchor="end">{10.0**exponent:g} s</text>'
            )
        for files in self.files:
            x = self.x(files)
            yield f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}"/>'
            yield f'<text x="{x}" y="{BOTTOM + 22}" text-anchor="middle">{files:,} files</text>'


def _lines(lines: dict[str, Points], place: _Place) -> Iterator[str]:
    label_y = _apart([place.y(points[-1][1]) for points in lines.values()])
    for (name, points), beside in zip(lines.items(), label_y, strict=True):
        kind = "walk" if name == "scandir + stat" else "run"
        dot = "walk-dot" if kind == "walk" else "dot"
        places = [(place.x(files), place.y(seconds)) for files, seconds in points]
        x, y = places[-1]
        yield f'<polyline class="{kind}" points="{" ".join(f"{x},{y}" for x, y in places)}"/>'
        yield from (f'<circle class="{dot}" cx="{x}" cy="{y}" r="4"/>' for x, y in places)
        yield f'<line class="lead" x1="{x + 7}" y1="{y}" x2="{RIGHT + 12}" y2="{beside}"/>'
        yield (
            f'<text x="{RIGHT + 18}" y="{beside + 4.5}"><tspan class="name">{name}</tspan>'
            f" {_seconds(points[-1][1])}</text>"
        )


def _apart(wanted: list[float]) -> list[float]:
    """Move labels that would overlap, the least far, downwards and then up from the end."""
    order = sorted(range(len(wanted)), key=lambda one: wanted[one])
    placed = [wanted[one] for one in order]
    for at in range(1, len(placed)):
        placed[at] = max(placed[at], placed[at - 1] + LABEL_HEIGHT)
    placed[-1] = min(placed[-1], BOTTOM)
    for at in range(len(placed) - 2, -1, -1):
        placed[at] = min(placed[at], placed[at + 1] - LABEL_HEIGHT)
    found = dict(zip(order, placed, strict=True))
    return [round(found[one], 1) for one in range(len(wanted))]


def _seconds(seconds: float) -> str:
    return f"{seconds:#.2g} s" if seconds < 10 else f"{seconds:.0f} s"
