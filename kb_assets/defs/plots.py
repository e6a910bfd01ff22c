"""Plots as Markdown: small SVG images, drawn by hand, in the text itself."""

import base64
from collections.abc import Iterator, Sequence

import dagster as dg

from kb_assets.retrieval.evaluations import Evaluation
from kb_assets.retrieval.measures import MEASURES, NDCG

_COLOURS = {"hybrid": "#4f43dd", "vector": "#1d8a5f", "lexical": "#c4711a"}
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


_STROKE = 'stroke-width="2" stroke-linejoin="round"'


def _y(value: float) -> float:
    return _BOTTOM - value * (_BOTTOM - _TOP)


def _text(x: float, y: float, words: str, colour: str = "#444", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


def _frame() -> Iterator[str]:
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
    for tenths in range(0, 11, 2):
        y = _y(tenths / 10)
        yield f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield _text(_LEFT - 6, y + 4, f"{tenths / 10:.1f}", anchor="end")
    for number, (mode, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + 8 + number * 90
        yield f'<rect x="{x}" y="12" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 15, 21, mode, anchor="start")


def _image(title: str, drawn: Sequence[str]) -> dg.MarkdownMetadataValue:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="11">'
        f"{''.join(_frame())}{''.join(drawn)}</svg>"
    )
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{encoded})")
