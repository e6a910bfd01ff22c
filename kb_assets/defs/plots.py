"""Plots as Markdown: small SVG images, drawn by hand, in the text itself."""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import dagster as dg

from kb_assets.retrieval.evaluations import Evaluation
from kb_assets.retrieval.measures import MEASURES, NDCG

_PALETTE = ("#4f43dd", "#1d8a5f", "#c4711a")
_COLOURS = dict(zip(("hybrid", "vector", "lexical"), _PALETTE, strict=True))
_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 630, 34, 226


def history_plot(evaluations: Sequence[Evaluation]) -> dg.MarkdownMetadataValue:
    """Return nDCG@10 over past evaluations, a line for each mode.

    Args:
        evaluations: Newest first, as they are stored; at least one.
    """
    past = list(reversed(evaluations))
    step = (_RIGHT - _LEFT) / max(1, len(past) - 1)
    lines = []
    for mode, colour in _COLOURS.items():
        points = [
            (_LEFT + place * step, _y(one.metrics[mode][NDCG].mean))
            for place, one in enumerate(past)
            if mode in one.metrics
        ]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(f'<polyline points="{corners}" fill="none" stroke="{colour}" {_STROKE}/>')
        lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    failed = (place for place, one in enumerate(past) if one.verdict == "fails")
    marks = [_text(_LEFT + place * step, _BOTTOM + 14, "fails", "#c00") for place in failed]
    ends = [
        _text(_LEFT, _HEIGHT - 6, f"{past[0].evaluated_at:%F %R}", anchor="start"),
        _text(_RIGHT, _HEIGHT - 6, f"{past[-1].evaluated_at:%F %R}", anchor="end"),
    ]
    return _image("nDCG@10 of the last evaluations", [*lines, *marks, *ends])


def measures_plot(evaluation: Evaluation) -> dg.MarkdownMetadataValue:
    """Return each measure as bars, one for each mode, with their 95% intervals."""
    present = [name for name in MEASURES if name in next(iter(evaluation.metrics.values()))]
    group = (_RIGHT - _LEFT) / len(present)
    bar = group * 0.8 / len(_COLOURS)
    drawn = []
    for place, name in enumerate(present):
        left = _LEFT + place * group + group * 0.1
        drawn.append(_text(left + group * 0.4, _BOTTOM + 14, name))
        for number, (mode, colour) in enumerate(_COLOURS.items()):
            one = evaluation.metrics[mode][name]
            x, middle = left + number * bar, left + (number + 0.5) * bar
            drawn.append(
                f'<rect x="{x:.1f}" y="{_y(one.mean):.1f}" width="{bar - 3:.1f}" '
                f'height="{_BOTTOM - _y(one.mean):.1f}" fill="{colour}" fill-opacity="0.75"/>'
                f'<line x1="{middle - 1.5:.1f}" x2="{middle - 1.5:.1f}" y1="{_y(one.low):.1f}" '
                f'y2="{_y(one.high):.1f}" stroke="#333" stroke-width="1.5"/>'
            )
            drawn.append(_text(middle - 1.5, _BOTTOM - 6, f"{one.mean:.2f}", "#fff"))
    return _image("Measures of each mode, with 95% intervals", drawn)


def lines_plot(
    title: str, at: Sequence[datetime], lines: Mapping[str, Sequence[float]]
) -> dg.MarkdownMetadataValue:
    """Return numbers over time, a line for each name.

    Args:
        title: What is shown.
        at: The times, oldest first; at least one.
        lines: Up to three, each with a number for each time.
    """
    colours = dict(zip(lines, _PALETTE, strict=False))
    top = _round_up(max(max(values) for values in lines.values()))
    span = (at[-1] - at[0]).total_seconds() or 1.0
    across = [_LEFT + (_RIGHT - _LEFT) * (one - at[0]).total_seconds() / span for one in at]
    drawn = []
    for name, values in lines.items():
        points = [(x, _y(value / top)) for x, value in zip(across, values, strict=True)]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        drawn.append(
            f'<polyline points="{corners}" fill="none" stroke="{colours[name]}" {_STROKE}/>'
        )
        drawn += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colours[name]}"/>' for x, y in points
        ]
    ends = [
        _text(_LEFT, _HEIGHT - 6, f"{at[0]:%F %R}", anchor="start"),
        _text(_RIGHT, _HEIGHT - 6, f"{at[-1]:%F %R}", anchor="end"),
    ]
    return _image(title, [*drawn, *ends], colours, top)


def sizes_plot(title: str, counted: Mapping[int, int], bars: int = 24) -> dg.MarkdownMetadataValue:
    """Return how often sizes occur, as bars.

    Args:
        title: What is shown.
        counted: How often there is which size; at least one.
        bars: How many there are, of equal width.
    """
    width = max(1, math.ceil((max(counted) + 1) / bars))
    heights = [0] * bars
    for size, count in counted.items():
        heights[size // width] += count
    top = _round_up(max(heights))
    step = (_RIGHT - _LEFT) / bars
    drawn = [
        f'<rect x="{_LEFT + place * step + 1:.1f}" y="{_y(height / top):.1f}" '
        f'width="{step - 2:.1f}" height="{_BOTTOM - _y(height / top):.1f}" fill="{_PALETTE[0]}" '
        'fill-opacity="0.75"/>'
        for place, height in enumerate(heights)
    ]
    drawn += [
        _text(_LEFT + place * step, _BOTTOM + 14, f"{place * width:,}")
        for place in range(0, bars + 1, 4)
    ]
    return _image(title, drawn, {title: _PALETTE[0]}, top)


_STROKE = 'stroke-width="2" stroke-linejoin="round"'


def _y(value: float) -> float:
    return _BOTTOM - value * (_BOTTOM - _TOP)


def _text(x: float, y: float, words: str, colour: str = "#444", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


def _round_up(value: float) -> float:
    """Return the end of a scale of five steps: 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= value)


def _short(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _frame(colours: Mapping[str, str], top: float) -> Iterator[str]:
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
    for fifths in range(6):
        y = _y(fifths / 5)
        yield f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield _text(_LEFT - 6, y + 4, _short(round(top * fifths / 5, 9)), anchor="end")
    x = _LEFT + 8.0
    for name, colour in colours.items():
        yield f'<rect x="{x:.1f}" y="12" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 15, 21, name, anchor="start")
        x += 42 + 7 * len(name)


def _image(
    title: str,
    drawn: Sequence[str],
    colours: Mapping[str, str] = _COLOURS,
    top: float = 1.0,
) -> dg.MarkdownMetadataValue:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="11">'
        f"{''.join(_frame(colours, top))}{''.join(drawn)}</svg>"
    )
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{encoded})")
